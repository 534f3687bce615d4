//! Real packets through the rules: pods, nodes and clients are network namespaces. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod network;
mod node;
mod scale;
mod services;
