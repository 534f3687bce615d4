//! A pod on this node: what should be, what the runtime reports, and what to do next.

pub mod container;
pub mod env;
pub mod lifecycle;
pub mod ops;
pub mod sandbox;
pub mod security;
pub mod state;
pub mod status;
pub mod step;
pub mod view;
pub mod worker;
