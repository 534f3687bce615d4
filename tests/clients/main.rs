//! Clients that none of us wrote, unmodified: each on a control plane of its own without nodes.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod discovery;
mod kubectl;
mod packages;
mod python;
