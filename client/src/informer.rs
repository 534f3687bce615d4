//! Informers: list, watch, resume; a shared store and ordered change notices.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::object::Document;
use component::tasks::{Spawner, lock};
use futures::StreamExt;
use rand::RngExt;
use tokio::sync::watch;

use crate::api_handle::{Api, ListParams, WatchEvent};
use crate::error::Error;
use crate::store::Store;

/// What happened to an object, as far as the informer has seen: several changes may be one.
#[derive(Debug)]
pub enum Change<K> {
    /// The object was not known before.
    Added(Arc<K>),
    /// The object differs from what was known.
    Updated {
        /// What was known.
        old: Arc<K>,
        /// What is known now.
        new: Arc<K>,
    },
    /// The object is gone; this is the last state that was seen, perhaps not its very last.
    Deleted(Arc<K>),
}

impl<K: Document> Change<K> {
    /// The object as it is now, or was last.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Updated { new: object, .. } | Self::Deleted(object) => object,
        }
    }

    /// The object's key.
    pub fn key(&self) -> String {
        self.object().document_key()
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

struct Inner<K> {
    api: Api<K>,
    params: ListParams,
    store: Store<K>,
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

/// Keeps a copy of a resource's objects up to date. Cheap to clone; clones share the copy.
pub struct Informer<K>(Arc<Inner<K>>);

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Document> Informer<K> {
    /// An informer that has not begun.
    pub fn new(api: Api<K>, params: ListParams) -> Self {
        Self(Arc::new(Inner {
            api,
            params,
            store: Store::default(),
            handlers: Mutex::default(),
            synced: watch::channel(false).0,
        }))
    }

    /// Adds an index to the store: `of` gives the values under which an object is found.
    pub fn index(self, name: &'static str, of: fn(&K) -> Vec<String>) -> Self {
        self.0.store.add_index(name, of);
        self
    }

    /// Calls `handler` for every change, in order, after the store has changed. It is called first
    /// for the objects that are known already. Handlers run in the informer's task: they must not
    /// block, and must not call `on_change` themselves.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = lock(&self.0.handlers);
        for object in self.0.store.list() {
            handler(&Change::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// Begins, for as long as the owner of `tasks` lives. Call it once.
    pub fn start(&self, tasks: &Spawner) {
        let inner = self.0.clone();
        let token = tasks.token();
        tasks.spawn(format!("informer {}", inner.api.kind().plural), async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = inner.run() => {}
            }
        });
    }

    /// The objects.
    pub fn store(&self) -> Store<K> {
        self.0.store.clone()
    }

    /// Waits for the first complete list.
    pub async fn synced(&self) {
        // The sender lives in self.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Whether the first list is complete.
    pub fn has_synced(&self) -> bool {
        *self.0.synced.borrow()
    }
}

/// Where an informer stands.
enum State {
    /// Nothing is known, or what is known is too old: list.
    Listing,
    /// Everything up to this version is known: watch from there.
    Watching(String),
}

impl<K: Document> Inner<K> {
    async fn run(&self) {
        let mut state = State::Listing;
        let mut failures = 0u32;
        loop {
            let began = tokio::time::Instant::now();
            let result = match &mut state {
                State::Listing => self.list().await.map(State::Watching),
                State::Watching(version) => match self.watch(version).await {
                    Ok(()) => Ok(State::Watching(std::mem::take(version))),
                    Err(error) if error.is_expired() => Ok(State::Listing),
                    Err(error) => Err(error),
                },
            };
            // A watch that lived for a while is no failure when it ends.
            if began.elapsed() > Duration::from_secs(5) {
                failures = 0;
            }
            match result {
                Ok(next) => {
                    let ended_at_once =
                        matches!(state, State::Watching(_)) && began.elapsed() < Duration::from_secs(1);
                    state = next;
                    if ended_at_once {
                        failures += 1;
                        self.pause(failures).await;
                    }
                }
                Err(error) => {
                    failures += 1;
                    let resource = self.api.kind().plural;
                    if failures <= 1 {
                        tracing::debug!(resource, %error, "watch ended");
                    } else {
                        tracing::warn!(resource, %error, failures, "list or watch failed");
                    }
                    self.pause(failures).await;
                }
            }
        }
    }

    /// 50 ms, doubling to 2 s, less a random half, so that a thousand clients do not return at once.
    async fn pause(&self, failures: u32) {
        let full =
            Duration::from_millis(50).saturating_mul(1 << failures.min(10)).min(Duration::from_secs(2));
        let pause = full.mul_f64(rand::rng().random_range(0.5..1.0));
        tokio::time::sleep(pause).await;
    }

    /// Replaces the store's content by the present objects; returns their version.
    async fn list(&self) -> Result<String, Error> {
        let list = self.api.list(&self.params).await?;
        let mut gone: std::collections::HashSet<_> = self.store.keys().into_iter().collect();
        for object in list.items {
            gone.remove(&object.document_key());
            self.put(object);
        }
        for key in gone {
            self.take(&key);
        }
        tracing::debug!(resource = self.api.kind().plural, objects = self.store.len(), "listed");
        self.synced.send_replace(true);
        Ok(list.resource_version)
    }

    /// Follows the changes after `version`, which advances, until the stream ends.
    async fn watch(&self, version: &mut String) -> Result<(), Error> {
        let mut events = std::pin::pin!(self.api.watch(&self.params, version).await?);
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *version = object.document_version().to_owned();
                    self.put(object);
                }
                WatchEvent::Deleted(object) => {
                    *version = object.document_version().to_owned();
                    self.take(&object.document_key());
                }
                WatchEvent::Bookmark(at) => *version = at,
            }
        }
        Ok(())
    }

    fn put(&self, object: K) {
        let handlers = lock(&self.handlers);
        let new = Arc::new(object);
        let change = match self.store.insert(new.clone()) {
            Some(old) if old.document_version() == new.document_version() => return,
            Some(old) => Change::Updated { old, new },
            None => Change::Added(new),
        };
        handlers.iter().for_each(|handle| handle(&change));
    }

    fn take(&self, key: &str) {
        let handlers = lock(&self.handlers);
        if let Some(old) = self.store.remove(key) {
            let change = Change::Deleted(old);
            handlers.iter().for_each(|handle| handle(&change));
        }
    }
}
