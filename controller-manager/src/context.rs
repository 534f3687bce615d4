//! What every controller is handed.

use std::sync::Arc;

use client::{Client, Recorder};
use component::clock::Clock;
use component::tasks::Spawner;

use crate::Config;
use crate::informers::Informers;

/// What every controller is handed; it lives as long as this instance leads. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The shared caches.
    pub informers: Arc<Informers>,
    /// The current time.
    pub clock: Clock,
    /// Where tasks are started; they end when leadership does.
    pub tasks: Spawner,
    /// The settings.
    pub config: Arc<Config>,
}

impl Context {
    /// A recorder of events on behalf of one controller.
    pub fn recorder(&self, controller: &str) -> Recorder {
        Recorder::new(&self.client, controller, "", self.clock.clone(), &self.tasks)
    }
}
