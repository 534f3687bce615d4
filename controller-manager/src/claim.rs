//! Adoption and release: which of the matching objects an owner manages, takes over or lets go.

use std::sync::Arc;

use api::meta::{MetaExt, controller_ref};
use api::openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use api::selector::Selector;
use api::{Typed, openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta};
use client::{Api, Patch};
use serde_json::{Value, json};

/// What an owner has to do with the objects that it was shown.
#[derive(Debug)]
pub struct Claim<K> {
    /// Already managed by it, and selected.
    pub mine: Vec<Arc<K>>,
    /// Selected and without a manager: to be taken over.
    pub adopt: Vec<Arc<K>>,
    /// Managed by it but no longer selected: to be let go.
    pub release: Vec<Arc<K>>,
}

/// Sorts candidates by what their would-be owner should do with them. An owner that is being
/// deleted takes and releases nothing; an object that is being deleted is not adopted.
pub fn claim<O: Typed, K: Typed>(
    owner: &O,
    selector: &Selector,
    candidates: impl IntoIterator<Item = Arc<K>>,
) -> Claim<K> {
    let mut claim = Claim { mine: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for candidate in candidates {
        let selected = selects(selector, candidate.metadata());
        match candidate.controller() {
            Some(present) if present.uid != owner.uid() => {}
            Some(_) if selected => claim.mine.push(candidate),
            Some(_) if !owner.is_deleting() => claim.release.push(candidate),
            Some(_) => {}
            None => {
                let may = !owner.is_deleting() && !candidate.is_deleting();
                if selected && may && candidate.namespace() == owner.namespace() {
                    claim.adopt.push(candidate);
                }
            }
        }
    }
    claim
}

fn selects(selector: &Selector, meta: &ObjectMeta) -> bool {
    selector.matches_with(|key| meta.labels.as_ref()?.get(key).map(String::as_str))
}

/// The patch that makes `reference` an owner of the object with this uid.
fn adoption(reference: &OwnerReference, uid: &str) -> Value {
    json!({ "metadata": { "uid": uid, "ownerReferences": [reference] } })
}

/// The patch that removes the owner with a uid.
fn release(owner_uid: &str, uid: &str) -> Value {
    let gone = json!([{ "$patch": "delete", "uid": owner_uid }]);
    json!({ "metadata": { "uid": uid, "ownerReferences": gone } })
}

/// Carries out a claim and returns what the owner manages afterwards. Before the first adoption the
/// owner is read from the API server: a cached owner may have been deleted, and adopting for it
/// would hand the objects to the garbage collector.
pub async fn settle<O: Typed, K: Typed>(
    owner: &O,
    owners: &Api<O>,
    objects: &Api<K>,
    claim: Claim<K>,
) -> Result<Vec<Arc<K>>, client::Error> {
    let Claim { mine: mut managed, adopt, release: releases } = claim;
    if !adopt.is_empty() {
        let live = owners.get_opt(owner.name()).await?;
        let fit = live.is_some_and(|o| o.uid() == owner.uid() && !o.is_deleting());
        for orphan in adopt.into_iter().filter(|_| fit) {
            let patch = Patch::Strategic(adoption(&controller_ref(owner), orphan.uid()));
            match objects.patch(orphan.name(), &patch).await {
                Ok(adopted) => managed.push(Arc::new(adopted)),
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
    }
    for leaving in releases {
        let patch = Patch::Strategic(release(owner.uid(), leaving.uid()));
        match objects.patch(leaving.name(), &patch).await {
            Ok(_) => {}
            // Gone, or without owner references by now: either way it is not ours any more.
            Err(e) if e.is_not_found() || e.is_invalid() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(managed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{pod, replica_set};

    #[track_caller]
    fn check(owner_deleting: bool, candidate: api::openapi::api::core::v1::Pod, expected: &str) {
        let mut set = replica_set("web", 1).build();
        if owner_deleting {
            set.metadata.deletion_timestamp = Some(crate::fixtures::time(1));
        }
        let selector = Selector::parse("app=web").unwrap();
        let claim = claim(&set, &selector, [Arc::new(candidate)]);
        let found = match (claim.mine.len(), claim.adopt.len(), claim.release.len()) {
            (1, 0, 0) => "mine",
            (0, 1, 0) => "adopt",
            (0, 0, 1) => "release",
            _ => "none",
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn objects_are_kept_adopted_and_released_by_owner_and_selector() {
        let set = replica_set("web", 1).build();
        let other = replica_set("other", 1).build();
        check(false, pod("a").owned_by(&set).build(), "mine");
        check(false, pod("a").build(), "adopt");
        check(false, pod("a").owned_by(&other).build(), "none");
        check(false, pod("a").labels(&[("app", "db")]).build(), "none");
        check(false, pod("a").labels(&[("app", "db")]).owned_by(&set).build(), "release");
        check(false, pod("a").deleting().build(), "none");
        check(true, pod("a").build(), "none");
        check(true, pod("a").owned_by(&set).build(), "mine");
        check(true, pod("a").labels(&[("app", "db")]).owned_by(&set).build(), "none");
        check(false, pod("a").namespace("elsewhere").build(), "none");
    }
}
