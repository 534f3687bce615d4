//! etcd, and the copy of it that reads are served from.

mod batch;
pub mod cache;
pub mod encoding;
pub mod etcd;
pub mod hub;
pub mod layout;
pub mod version;

pub use cache::{Cache, Change, Entry, Filter, Watcher};
pub use etcd::{Etcd, EtcdConfig, EtcdError};
pub use hub::Hub;
