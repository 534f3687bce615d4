//! Rules of the kinds in `policy/v1`.

pub mod eviction;
pub mod pod_disruption_budget;
