//! Clusters for tests: each in network namespaces of its own without a route out, gone when dropped.
//!
//! The binaries under test are those that cargo built beside the test itself.

#![deny(missing_docs)]

mod cluster;
mod control_plane;
mod http;
mod kubectl;
mod netns;
pub mod transcript;
mod wait;

pub use cluster::{Cluster, bin, bin_dir, is_ready, repository, upstream_kubectl};
pub use control_plane::ControlPlane;
pub use http::{Answer, Load, Tally, get, get_through};
pub use kubectl::{Kubectl, Outcome};
pub use netns::Netns;
pub use wait::{until, until_some};
