//! What every binary shares: flags, logs, metrics, health, TLS, tasks, the clock and shutdown.
#![deny(missing_docs)]

pub mod clock;
pub mod flags;
pub mod health;
pub mod jwt;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod shutdown;
pub mod tasks;
pub mod tls;
