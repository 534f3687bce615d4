//! Makes the keys of addresses and node ports agree with the Services, when a server starts.
//!
//! Every write keeps them equal, so there is something to do only where a store was restored in part or
//! changed by hand. Each key is put right by a transaction of its own that changes nothing which was
//! written since, so any number of servers may do this at any time.

use std::collections::{BTreeMap, BTreeSet};

use api::openapi::api::core::v1::Service;
use api::{Kind, Typed};
use bytes::Bytes;

use super::{RANGES, keys};
use crate::registry::Registry;
use crate::storage::etcd::{EtcdError, Op, Outcome, Versioned, Write};
use crate::storage::layout::{prefix_end, resource_prefix};

/// What must change. Keys are whole, as they stand in the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Keys to create, with the key of the Service that owns each.
    pub missing: Vec<(String, String)>,
    /// Keys that no Service owns, with the revision at which that was so.
    pub leaked: Vec<(String, i64)>,
    /// Keys that several Services own, which only people can put right.
    pub contested: Vec<(String, Vec<String>)>,
}

/// Compares the keys (with their revisions) with the Services (by their keys), read at the same revision.
pub fn plan(services: &[(String, Service)], present: &BTreeMap<String, i64>, root: &str) -> Plan {
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (owner, service) in services {
        for key in keys(service) {
            owners.entry(format!("{root}{key}")).or_default().push(owner.clone());
        }
    }
    let owned: BTreeSet<&String> = owners.keys().collect();
    let leaked = present.iter().filter(|(key, _)| !owned.contains(key));
    Plan {
        leaked: leaked.map(|(key, revision)| (key.clone(), *revision)).collect(),
        missing: owners
            .iter()
            .filter(|(key, _)| !present.contains_key(*key))
            .filter_map(|(key, owners)| Some((key.clone(), owners.first()?.clone())))
            .collect(),
        contested: owners.into_iter().filter(|(_, owners)| owners.len() > 1).collect(),
    }
}

/// Reads both, puts right what differs, and tells the allocator what is taken.
///
/// # Errors
/// When the store cannot be read or written; to be tried again.
pub async fn run(registry: &Registry) -> Result<(), EtcdError> {
    let etcd = registry.etcd();
    let root = format!("{}/", etcd.prefix());
    let revision = etcd.current_version().await?;
    let present: BTreeMap<String, i64> = all(registry, &format!("{root}{RANGES}"), revision, true)
        .await?
        .into_iter()
        .map(|found| (found.key, found.version))
        .collect();
    let services = all(registry, &resource_prefix(etcd.prefix(), Service::kind()), revision, false).await?;
    let services: Vec<(String, Service)> = services
        .into_iter()
        .filter_map(|found| Some((found.key, decode(Service::kind(), &found.value)?)))
        .collect();
    let plan = plan(&services, &present, &root);
    for (key, owners) in &plan.contested {
        tracing::error!(key, ?owners, "several Services have the same address or port");
    }
    for (key, owner) in &plan.missing {
        let outcome = correct(registry, key, 0, Op::Put(Bytes::from(owner.clone()))).await?;
        tracing::warn!(key, owner, ?outcome, "the address or port of a Service was not marked as taken");
    }
    for (key, revision) in &plan.leaked {
        let outcome = correct(registry, key, *revision, Op::Delete).await?;
        tracing::warn!(key, ?outcome, "an address or port was marked as taken by no Service");
    }
    let leaked: BTreeSet<&String> = plan.leaked.iter().map(|(key, _)| key).collect();
    let taken =
        present.keys().filter(|key| !leaked.contains(key)).chain(plan.missing.iter().map(|(key, _)| key));
    registry.allocator().taken(&mut taken.filter_map(|key| Some(key.strip_prefix(&root)?.to_owned())));
    Ok(())
}

async fn correct(registry: &Registry, key: &str, expect: i64, op: Op) -> Result<Outcome, EtcdError> {
    let write = Write {
        key: key.to_owned(),
        expect,
        op,
        take: Vec::new(),
        give: Vec::new(),
        beside: Vec::new(),
        lease: 0,
    };
    registry.etcd().commit(&write).await
}

/// A stored object, unless it is none: the store must not keep a server from starting.
fn decode(kind: &Kind, bytes: &[u8]) -> Option<Service> {
    let result = serde_json::from_slice(bytes);
    result
        .map_err(|error| tracing::error!(kind = kind.kind, %error, "a stored object is not of its kind"))
        .ok()
}

/// Everything beneath a prefix at a revision.
async fn all(
    registry: &Registry,
    prefix: &str,
    revision: i64,
    keys_only: bool,
) -> Result<Vec<Versioned>, EtcdError> {
    let mut found: Vec<Versioned> = Vec::new();
    let mut start = prefix.to_owned();
    loop {
        let page = registry.etcd().range(&start, Some(prefix_end(prefix)), revision, 500, keys_only).await?;
        let more = page.more;
        found.extend(page.items);
        match found.last() {
            Some(last) if more => start = format!("{}\0", last.key),
            _ => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::core::service::ServiceStrategy;
    use crate::registry::testing::created;
    use serde_json::json;

    fn service(ip: &str, node_port: i32) -> Service {
        let spec =
            json!({"type": "NodePort", "clusterIP": ip, "ports": [{"port": 80, "nodePort": node_port}]});
        created(&ServiceStrategy, json!({"spec": spec}))
    }

    #[test]
    fn the_plan_creates_what_is_missing_and_removes_what_nobody_owns() {
        let services = [("/r/services/specs/a".to_owned(), service("10.96.1.1", 30_001))];
        let present = [
            ("/r/ranges/serviceips/10.96.1.1".to_owned(), 5),
            ("/r/ranges/serviceips/10.96.9.9".to_owned(), 7),
        ];
        assert_eq!(
            plan(&services, &present.into_iter().collect(), "/r/"),
            Plan {
                missing: vec![("/r/ranges/servicenodeports/30001".into(), "/r/services/specs/a".into())],
                leaked: vec![("/r/ranges/serviceips/10.96.9.9".into(), 7)],
                contested: Vec::new(),
            }
        );
    }

    #[test]
    fn an_address_of_two_services_is_told() {
        let both = ["a", "b"].map(|name| (name.to_owned(), service("10.96.1.1", 30_001)));
        let contested = plan(&both, &BTreeMap::new(), "").contested;
        assert_eq!(contested.len(), 2);
        assert_eq!(
            contested[1],
            ("ranges/servicenodeports/30001".to_owned(), vec!["a".to_owned(), "b".to_owned()])
        );
    }

    #[test]
    fn a_store_that_agrees_is_left_alone() {
        let one = service("10.96.1.1", 30_001);
        let present = keys(&one).into_iter().map(|key| (key, 1)).collect();
        assert_eq!(plan(&[("a".into(), one)], &present, ""), Plan::default());
    }
}
