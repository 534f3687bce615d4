//! Rules of the kinds in `coordination.k8s.io/v1`.

pub mod lease;
