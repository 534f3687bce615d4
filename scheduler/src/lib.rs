//! Assigns pods to nodes.
//!
//! `core` is one state machine over `queue`, `snapshot` and `schedule`; `run` feeds it from the API
//! and `bind` carries out what it decides.

mod answer;
pub mod bind;
pub mod cluster;
pub mod config;
pub mod core;
pub mod explain;
mod feed;
#[cfg(test)]
mod fixtures;
pub mod framework;
pub mod plugins;
pub mod pod;
pub mod profile;
pub mod queue;
pub mod resources;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod snapshot;
pub mod telemetry;
pub mod terms;
pub mod volumes;

pub use run::{Config, Error, run};
