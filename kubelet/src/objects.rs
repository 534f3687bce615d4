//! The ConfigMaps and Secrets that this node's pods refer to, each watched for as long as a pod does, and their tokens.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::Typed;
use api::meta::key_of;
use client::{Client, Error, Informer, ListParams};
use component::clock::Clock;
use component::tasks::{Spawner, Tasks, lock};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec, Secret};
use tokio::sync::Notify;

use crate::pod::env::{self, EnvError, References};
use crate::resources::all_containers;
use crate::tokens::Tokens;

/// How long the first list of an object may take before it is asked for directly.
const PATIENCE: Duration = Duration::from_secs(3);

struct Watched<K> {
    informer: Informer<K>,
    users: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
    /// Dropping it ends the watch.
    _tasks: Tasks,
}

struct Cache<K> {
    client: Client,
    watched: Mutex<HashMap<String, Watched<K>>>,
}

impl<K: Typed> Cache<K> {
    fn new(client: Client) -> Self {
        Self { client, watched: Mutex::default() }
    }

    fn watch(&self, namespace: &str, name: &str) -> Watched<K> {
        let params = ListParams::fields(format!("metadata.name={name}"));
        let informer = Informer::new(self.client.namespaced::<K>(namespace), params);
        let users = Arc::<Mutex<HashMap<String, Arc<Notify>>>>::default();
        let told = users.clone();
        informer.on_change(move |_| lock(&told).values().for_each(|n| n.notify_one()));
        let tasks = Tasks::new("watch of a referenced object");
        informer.start(&tasks.spawner());
        Watched { informer, users, _tasks: tasks }
    }

    /// Makes `names` the objects that a pod refers to.
    fn refer(&self, namespace: &str, uid: &str, names: &HashSet<String>, wake: &Arc<Notify>) {
        let mut watched = lock(&self.watched);
        for name in names {
            let key = key_of(namespace, name);
            let entry = watched.entry(key).or_insert_with(|| self.watch(namespace, name));
            lock(&entry.users).insert(uid.to_owned(), wake.clone());
        }
        watched.retain(|key, entry| {
            let mut users = lock(&entry.users);
            if !names.iter().any(|n| key_of(namespace, n) == *key) {
                users.remove(uid);
            }
            !users.is_empty()
        });
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, Error> {
        let key = key_of(namespace, name);
        let informer = lock(&self.watched).get(&key).map(|w| w.informer.clone());
        if let Some(informer) = informer {
            // Within that time or not, what is there is there.
            let _ = tokio::time::timeout(PATIENCE, informer.synced()).await;
            if let Some(object) = informer.store().get(&key) {
                return Ok(Some(object));
            }
        }
        // What the watch has not seen may have been made a moment ago.
        Ok(self.client.namespaced::<K>(namespace).get_opt(name).await?.map(Arc::new))
    }
}

/// The caches of both kinds.
pub struct Objects {
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
    tokens: Tokens,
}

/// The names of all ConfigMaps and Secrets that a pod's volumes and containers refer to.
pub fn referenced(spec: &PodSpec) -> (HashSet<String>, HashSet<String>) {
    let (mut maps, mut secrets) = (HashSet::new(), HashSet::new());
    for container in all_containers(spec) {
        let (m, s) = env::referenced(container);
        maps.extend(m);
        secrets.extend(s);
    }
    for volume in spec.volumes.iter().flatten() {
        maps.extend(volume.config_map.as_ref().map(|c| c.name.clone()));
        secrets.extend(volume.secret.as_ref().and_then(|s| s.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            maps.extend(source.config_map.as_ref().map(|c| c.name.clone()));
            secrets.extend(source.secret.as_ref().map(|s| s.name.clone()));
        }
    }
    secrets.extend(spec.image_pull_secrets.iter().flatten().map(|s| s.name.clone()));
    maps.remove("");
    secrets.remove("");
    (maps, secrets)
}

impl Objects {
    /// Empty caches.
    pub fn new(client: &Client, clock: &Clock, tasks: &Spawner) -> Self {
        Self {
            config_maps: Cache::new(client.clone()),
            secrets: Cache::new(client.clone()),
            tokens: Tokens::new(client.clone(), clock.clone(), tasks),
        }
    }

    /// The tokens of service accounts.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Watches what a pod refers to; `wake` is told of changes. Call again when the pod changed.
    pub fn refer(&self, namespace: &str, uid: &str, pod: &Pod, wake: &Arc<Notify>) {
        let (maps, secrets) = pod.spec.as_ref().map(referenced).unwrap_or_default();
        self.config_maps.refer(namespace, uid, &maps, wake);
        self.secrets.refer(namespace, uid, &secrets, wake);
        self.tokens.refer(uid, wake);
    }

    /// Forgets a pod, and what only it referred to.
    pub fn forget(&self, namespace: &str, uid: &str, wake: &Arc<Notify>) {
        self.config_maps.refer(namespace, uid, &HashSet::new(), wake);
        self.secrets.refer(namespace, uid, &HashSet::new(), wake);
        self.tokens.forget(uid);
    }

    /// A ConfigMap, if it exists.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, Error> {
        self.config_maps.get(namespace, name).await
    }

    /// A Secret, if it exists.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, Error> {
        self.secrets.get(namespace, name).await
    }

    /// What a container's environment refers to.
    pub async fn references(&self, namespace: &str, container: &Container) -> Result<References, EnvError> {
        let (maps, secrets) = env::referenced(container);
        let mut found = References::default();
        for name in maps {
            let object =
                self.config_map(namespace, &name).await.map_err(|e| EnvError::Fetch(e.to_string()))?;
            found.config_maps.extend(object.map(|o| (name, o)));
        }
        for name in secrets {
            let object = self.secret(namespace, &name).await.map_err(|e| EnvError::Fetch(e.to_string()))?;
            found.secrets.extend(object.map(|o| (name, o)));
        }
        Ok(found)
    }
}
