//! Charges ResourceQuotas in the very transaction that writes what they limit: a quota is charged if and only if the
//! object is there, whatever else is written at the same time, through this server or another.
//!
//! Writers of one namespace that has quotas take turns, so that they do not overtake each other all the time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::quota::{Charge, is_about};
use api::status::StatusError;
use api::{Kind, Object};
use component::tasks::lock;
use tokio::sync::OwnedMutexGuard;

use super::Registry;
use crate::registry::errors::from_etcd;
use crate::storage::etcd::Beside;
use crate::storage::version;
use crate::storage::{Entry, Filter, encoding};

/// The namespaces whose quotas were charged.
#[derive(Default)]
pub(super) struct Ledger(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Known>>>>);

/// The quotas of a namespace as this server wrote them last, by key: the copy of the store is a moment behind. A quota
/// that was found gone is there without an object.
type Known = HashMap<String, (i64, Option<Object>)>;

/// A writer's turn at the quotas of a namespace.
pub(super) struct Account {
    namespace: String,
    known: OwnedMutexGuard<Known>,
}

impl Registry {
    /// Waits for a turn; nothing when there is no quota about the kind.
    pub(super) async fn account(&self, kind: &'static Kind, namespace: &str) -> Option<Account> {
        let quotas = quotas();
        if !kind.namespaced || !self.admission.charges_quotas() || self.hub.cache(quotas).is_empty() {
            return None;
        }
        let filter = Filter { namespace: namespace.to_owned(), ..Filter::default() };
        let about = |entry: &Arc<Entry>| {
            let quota = Object::parse(&entry.json).ok();
            let hard = quota.as_ref().and_then(|q| q.pointer("/status/hard")?.as_object());
            hard.is_some_and(|hard| hard.keys().any(|name| is_about(kind, name)))
        };
        if !self.hub.cache(quotas).list(&filter, 0, "").entries.iter().any(about) {
            return None;
        }
        let known = lock(&self.ledger.0).entry(namespace.to_owned()).or_default().clone();
        Some(Account { namespace: namespace.to_owned(), known: known.lock_owned().await })
    }
}

fn quotas() -> &'static Kind {
    Kind::find("", "ResourceQuota").expect("ResourceQuota is in the table")
}

impl Account {
    /// The quotas of the namespace, with their versions.
    fn quotas(&self, registry: &Registry) -> Result<Vec<(String, i64, Object)>, StatusError> {
        let filter = Filter { namespace: self.namespace.clone(), ..Filter::default() };
        let mut all = Vec::new();
        for entry in registry.hub.cache(quotas()).list(&filter, 0, "").entries {
            let key = registry.key(quotas(), &self.namespace, entry.name());
            match self.known.get(&key).filter(|(version, _)| *version >= entry.revision) {
                Some((version, Some(object))) => all.push((key, *version, object.clone())),
                Some((_, None)) => {}
                None => {
                    let object = Object::parse(&entry.json).map_err(StatusError::internal)?;
                    all.push((key, entry.revision, object));
                }
            }
        }
        Ok(all)
    }

    /// What is to be written beside an object.
    ///
    /// # Errors
    /// 403 when a quota does not let it be written.
    pub(super) fn charges(
        &self,
        registry: &Registry,
        kind: &Kind,
        new: &Object,
        old: Option<&Object>,
    ) -> Result<Vec<Beside>, StatusError> {
        let (whole, before) = (new.to_value(), old.map(Object::to_value));
        let charge = Charge { kind, new: &whole, old: before.as_ref(), now: registry.clock.now() };
        let mut charges = Vec::new();
        for (key, expect, mut quota) in self.quotas(registry)? {
            let charged = charge.apply(&quota.to_value());
            let charged = charged.map_err(|why| StatusError::forbidden(kind, new.name(), why))?;
            let Some(used) = charged else { continue };
            if let Some(status) = quota.as_map_mut().get_mut("status").and_then(|s| s.as_object_mut()) {
                status.insert("used".into(), used.document());
            }
            charges.push(Beside { key, expect, value: encoding::encode(&quota) });
        }
        Ok(charges)
    }

    /// Remembers what was written at a version of the store.
    pub(super) fn settle(&mut self, written: Vec<Beside>, at: i64) -> Result<(), StatusError> {
        for Beside { key, value, .. } in written {
            let version = version::of(&key, version::revision(at));
            let mut object = Object::parse(&value).map_err(StatusError::internal)?;
            object.set_resource_version(&version.to_string());
            self.known.insert(key, (version, Some(object)));
        }
        Ok(())
    }

    /// Reads the quotas that were charged in vain, as somebody else has written one of them.
    pub(super) async fn reread(
        &mut self,
        registry: &Registry,
        written: &[Beside],
    ) -> Result<(), StatusError> {
        for Beside { key, expect, .. } in written {
            let found = registry.etcd.get(key).await.map_err(|e| from_etcd(&e))?;
            let now = match found {
                None => (*expect, None),
                Some(found) => {
                    let mut object = Object::parse(&found.value).map_err(StatusError::internal)?;
                    object.set_resource_version(&found.version.to_string());
                    (found.version, Some(object))
                }
            };
            self.known.insert(key.clone(), now);
        }
        Ok(())
    }
}
