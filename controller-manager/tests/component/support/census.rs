//! Counts pods while a test goes on.

use std::sync::{Arc, Mutex};

use api::meta::MetaExt;
use api::openapi::api::core::v1::Pod;
use client::{Informer, ListParams};
use component::tasks::lock;

use super::Cluster;

/// Watches how many pods exist and are ready, from when it is started.
pub struct Census {
    most: Arc<Mutex<usize>>,
    fewest_ready: Arc<Mutex<usize>>,
    /// The pods of `default`.
    pub pods: Informer<Pod>,
}

impl Census {
    /// Begins to watch.
    pub async fn start(cluster: &Cluster) -> Self {
        let pods = Informer::new(cluster.client.namespaced::<Pod>("default"), ListParams::default());
        pods.start(&cluster.tasks.spawner());
        pods.synced().await;
        let (most, fewest_ready) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(usize::MAX)));
        let (store, m, f) = (pods.store(), most.clone(), fewest_ready.clone());
        pods.on_change(move |_| {
            let pods = store.list();
            let live: Vec<_> = pods.iter().filter(|p| !p.is_deleting()).collect();
            let ready = |p: &&&Arc<Pod>| {
                api::conditions::is_true(&p.status.as_ref().and_then(|s| s.conditions.clone()), "Ready")
            };
            let (mut most, mut fewest) = (lock(&m), lock(&f));
            *most = (*most).max(live.len());
            *fewest = (*fewest).min(live.iter().filter(ready).count());
        });
        Self { most, fewest_ready, pods }
    }

    /// The most pods that existed at a time, those that were on their way out not counted.
    pub fn most(&self) -> usize {
        *lock(&self.most)
    }

    /// The fewest of them that were ready.
    pub fn fewest_ready(&self) -> usize {
        *lock(&self.fewest_ready)
    }
}
