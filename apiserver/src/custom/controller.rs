//! Keeps definitions, the table of kinds and the copies of objects in step: names are accepted, established kinds
//! are served, and the objects of a definition that goes are deleted before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::decode::decode_json;
use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use api::status::StatusError;
use api::{Kind, Object, Subresource, Typed};

use super::{Table, names, rows};
use crate::auth::User;
use crate::registry::Registry;
use crate::registry::apiextensions::custom_resource_definition::FINALIZER;
use crate::registry::errors::from_etcd;
use crate::registry::read::ListQuery;
use crate::registry::store::{Target, WriteOptions};
use crate::storage::{Entry, Filter};

/// How soon an attempt that failed, or that waits for others, is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// A definition as it was last seen.
struct Known {
    revision: i64,
    definition: CustomResourceDefinition,
    /// What is served of it.
    rows: Vec<&'static Kind>,
    /// Under which its objects are kept.
    stored: Option<&'static Kind>,
}

/// Runs until its future is dropped.
pub async fn run(registry: Arc<Registry>, table: Arc<Table>) {
    registry.hub().filled().await;
    let kind = CustomResourceDefinition::kind();
    let mut controller = Controller { registry, table, known: BTreeMap::new(), followed: BTreeMap::new() };
    loop {
        let cache = controller.registry.hub().cache(kind);
        let (entries, _, mut watcher) = cache.watch_from_now(Filter::default());
        let done = controller.sync(&entries).await;
        let changed = watcher.changed();
        match done {
            Ok(true) => changed.await,
            Ok(false) => drop(tokio::time::timeout(AGAIN, changed).await),
            Err(error) => {
                tracing::warn!(%error, "custom resource definitions are not in step; trying again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

struct Controller {
    registry: Arc<Registry>,
    table: Arc<Table>,
    known: BTreeMap<Arc<str>, Known>,
    /// The kinds whose objects are followed, by the key of their definition.
    followed: BTreeMap<Arc<str>, &'static Kind>,
}

impl Controller {
    /// One round; false when something is still to be waited for.
    async fn sync(&mut self, entries: &[Arc<Entry>]) -> Result<bool, StatusError> {
        self.learn(entries);
        self.serve().await?;
        let mut done = true;
        for (key, status) in self.statuses() {
            let Some(known) = self.known.get(&key) else { continue };
            self.write_status(&known.definition, status).await?;
        }
        for known in self.known.values().filter(|k| is_going(&k.definition)) {
            done &= self.clean_up(known).await?;
        }
        Ok(done)
    }

    fn learn(&mut self, entries: &[Arc<Entry>]) {
        let present: BTreeSet<&str> = entries.iter().map(|e| &*e.key).collect();
        self.known.retain(|key, _| present.contains(&**key));
        for entry in entries {
            if self.known.get(&*entry.key).is_some_and(|k| k.revision == entry.revision) {
                continue;
            }
            match decode_json::<CustomResourceDefinition>(&entry.json) {
                Ok(definition) => {
                    let served = names::is_established(&definition);
                    let known = Known {
                        revision: entry.revision,
                        rows: if served { rows::of(&definition) } else { Vec::new() },
                        stored: if served { rows::stored(&definition) } else { None },
                        definition,
                    };
                    self.known.insert((&*entry.key).into(), known);
                }
                Err(error) => tracing::error!(name = %entry.key, %error, "a definition in the store is none"),
            }
        }
    }

    /// Follows the objects of established kinds, then shows the kinds; hides others before their objects go.
    async fn serve(&mut self) -> Result<(), StatusError> {
        let hub = self.registry.hub().clone();
        for (key, known) in &self.known {
            let Some(stored) = known.stored else { continue };
            if self.followed.get(key).is_none_or(|followed| !std::ptr::eq(*followed, stored)) {
                hub.renew(stored).await.map_err(|e| from_etcd(&e))?;
                tracing::info!(definition = %key, "serving custom resources");
                self.followed.insert(key.clone(), stored);
            }
        }
        let all: Vec<&'static Kind> = self.known.values().flat_map(|k| k.rows.iter().copied()).collect();
        self.table.set(all);
        let known = &self.known;
        self.followed.retain(|key, kind| {
            let stays = known.get(key).is_some_and(|k| k.stored.is_some());
            if !stays {
                hub.remove(kind);
                tracing::info!(definition = %key, "custom resources are served no longer");
            }
            stays
        });
        Ok(())
    }

    /// The statuses that are not as they should be.
    fn statuses(&self) -> Vec<(Arc<str>, serde_json::Value)> {
        let now = self.registry.clock().now();
        let standing = self.known.iter().filter(|(_, known)| !is_going(&known.definition));
        let wanted = standing.filter_map(|(key, known)| {
            let others = self.known.values().map(|k| &k.definition);
            let status = names::decide(&known.definition, others, now);
            (known.definition.status.as_ref() != Some(&status))
                .then(|| (key.clone(), serde_json::json!(status)))
        });
        // One at a time, so that of two newcomers with one name the second sees what the first was given.
        wanted.take(1).collect()
    }

    async fn write_status(
        &self,
        definition: &CustomResourceDefinition,
        status: serde_json::Value,
    ) -> Result<(), StatusError> {
        let mut object = Object::from_typed(definition);
        object.as_map_mut().insert("status".into(), status);
        self.write(&object, Some(Subresource::Status)).await
    }

    async fn write(&self, object: &Object, subresource: Option<Subresource>) -> Result<(), StatusError> {
        let target = Target { kind: CustomResourceDefinition::kind(), namespace: "", name: object.name() };
        let (user, options) = (User::apiserver(), WriteOptions::default());
        match self.registry.update(&user, target, subresource, object.to_value(), &options, &|| Ok(())).await
        {
            // Whoever changed or removed it in between has made another round due.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Deletes the objects of a definition that goes; true when it waits for nothing of ours any longer.
    async fn clean_up(&self, known: &Known) -> Result<bool, StatusError> {
        let mut definition = known.definition.clone();
        let finalizers = definition.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(true);
        }
        finalizers.retain(|f| f != FINALIZER);
        let now = self.registry.clock().now();
        let mut status = definition.status.clone().unwrap_or_default();
        if names::condition(&status, "Terminating").is_none_or(|c| c.status != "True") {
            let message = "CustomResource deletion is in progress";
            names::set(&mut status, "Terminating", "True", "InstanceDeletionInProgress", message, now);
            self.write_status(&known.definition, serde_json::json!(status)).await?;
            return Ok(false);
        }
        if let Some(stored) = known.stored {
            let (user, options) = (User::apiserver(), DeleteOptions::default());
            let everything = ListQuery::default();
            self.registry.delete_collection(&user, stored, "", &everything, &options).await?;
            let left = self.registry.list(stored, "", &ListQuery { limit: 1, ..everything }).await?;
            if !left.entries.is_empty() {
                return Ok(false);
            }
        }
        self.write(&Object::from_typed(&definition), None).await?;
        Ok(true)
    }
}

fn is_going(definition: &CustomResourceDefinition) -> bool {
    definition.metadata.deletion_timestamp.is_some()
}
