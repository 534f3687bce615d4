//! Cluster DNS on every node, answered from what the rules were made of
//! (Kubernetes DNS-Based Service Discovery, version 1.1.0).

pub mod answer;
pub mod forward;
pub mod serve;
pub mod zone;

pub use serve::{Config, serve};
pub use zone::Zone;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// The names of the generation that the kernel's rules are at. Cheap to clone.
#[derive(Clone)]
pub struct Names(Arc<RwLock<Zone>>);

impl Names {
    /// Shares a zone.
    pub fn new(zone: Zone) -> Self {
        Self(Arc::new(RwLock::new(zone)))
    }

    /// The names as they are now.
    pub fn read(&self) -> RwLockReadGuard<'_, Zone> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the names; no query is answered in the middle of it.
    pub fn update(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}
