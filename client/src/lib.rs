//! To Coxswain's components what client-go is to Kubernetes: a typed client over gRPC, informers,
//! work queues, a controller runner, leader election and an event recorder.
#![deny(missing_docs)]

mod api_handle;
mod channel;
mod config;
mod controller;
mod error;
mod events;
mod informer;
mod leader;
mod store;
mod workqueue;

pub use api_handle::{Api, List, ListParams, Patch, WatchEvent};
pub use channel::{Channel, Client};
pub use config::{ClientConfig, ConfigError};
pub use controller::{Action, run_workers};
pub use error::Error;
pub use events::{EventType, Recorder, reference};
pub use informer::{Change, Informer};
pub use leader::{LeaderConfig, lead};
pub use store::Store;
pub use workqueue::WorkQueue;
