//! etcd, and the copy of it that reads are served from.

mod batch;
pub mod cache;
mod copies;
pub mod encoding;
pub mod entry;
pub mod etcd;
pub mod filter;
pub mod hub;
pub mod layout;
pub mod version;
pub mod watcher;
pub mod window;

pub use cache::Cache;
pub use entry::Entry;
pub use etcd::{Etcd, EtcdConfig, EtcdError};
pub use filter::Filter;
pub use hub::Hub;
pub use watcher::Watcher;
pub use window::Change;
