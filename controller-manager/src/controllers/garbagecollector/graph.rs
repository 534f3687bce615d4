//! Who owns whom: a graph of owner references over all kinds.

use std::collections::{HashMap, HashSet, VecDeque};

use api::openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// The finalizer of an object that waits for the end of its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents are to lose their owner first.
pub const ORPHAN: &str = "orphan";

/// How many owners that are known to be gone are remembered, to spare asking for each dependent.
const REMEMBERED: usize = 500;

/// What the graph keeps of an object.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its kind.
    pub kind: &'static api::Kind,
    /// Its namespace, or the empty string.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Whether its deletion has begun.
    pub deleting: bool,
    /// Whether it has the finalizer [`FOREGROUND`].
    pub foreground: bool,
    /// Whether it has the finalizer [`ORPHAN`].
    pub orphan: bool,
}

impl Item {
    /// Whether it is being deleted and waits for the end of its dependents.
    pub fn waits_for_dependents(&self) -> bool {
        self.deleting && self.foreground
    }

    /// Whether an owner reference found in `namespace` means this object.
    pub fn is_meant_by(&self, owner: &OwnerReference, namespace: &str) -> bool {
        let same_kind = self.kind.kind == owner.kind && self.kind.group == group(&owner.api_version);
        let reachable = !self.kind.namespaced || self.namespace == namespace;
        self.uid == owner.uid && self.name == owner.name && same_kind && reachable
    }
}

/// The group of an `apiVersion`.
pub fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// What has to be looked at after a change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Whether the object with this uid must go, or may go now.
    Check(String),
    /// The dependents of the object with this uid are to lose their owner.
    Orphan(String),
}

/// The graph, by uid.
#[derive(Default)]
pub struct Graph {
    items: HashMap<String, Item>,
    /// The uids of an owner's dependents, whether or not the owner itself is known.
    dependents: HashMap<String, HashSet<String>>,
    gone: HashSet<String>,
    gone_order: VecDeque<String>,
}

impl Graph {
    /// An object.
    pub fn get(&self, uid: &str) -> Option<&Item> {
        self.items.get(uid)
    }

    /// The known objects that name this uid as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<&Item> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.items.get(uid)).collect()
    }

    /// What to look at again when a kind has become known: the objects that name one of it as an owner.
    pub fn owned_by(&self, kind: &api::Kind) -> Vec<Work> {
        let of = |owner: &OwnerReference| owner.kind == kind.kind && group(&owner.api_version) == kind.group;
        let owned = self.items.values().filter(|item| item.owners.iter().any(of));
        owned.map(|item| Work::Check(item.uid.clone())).collect()
    }

    /// Whether the object with this uid is known to be gone for good.
    pub fn is_gone(&self, uid: &str) -> bool {
        self.gone.contains(uid)
    }

    /// The API server does not know the object with this uid.
    pub fn note_gone(&mut self, uid: &str) {
        if self.gone.insert(uid.to_owned()) {
            self.gone_order.push_back(uid.to_owned());
            if self.gone_order.len() > REMEMBERED
                && let Some(oldest) = self.gone_order.pop_front()
            {
                self.gone.remove(&oldest);
            }
        }
    }

    /// An object is new or has changed.
    pub fn upsert(&mut self, item: Item) -> Vec<Work> {
        let uid = item.uid.clone();
        let before = self.items.insert(uid.clone(), item);
        let after = &self.items[&uid];
        let mut work = Vec::new();

        let former = before.as_ref().map(|b| b.owners.as_slice()).unwrap_or_default();
        let present = after.owners.as_slice();
        for owner in former.iter().filter(|f| !present.iter().any(|p| p.uid == f.uid)) {
            detach(&mut self.dependents, &owner.uid, &uid);
        }
        for owner in present {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        if former != present {
            let waits = |o: &&OwnerReference| self.items.get(&o.uid).is_some_and(Item::waits_for_dependents);
            // An owner may wait for this one no longer, or this one may have to go with it.
            work.extend(former.iter().filter(waits).map(|o| Work::Check(o.uid.clone())));
            let doubtful = |o: &OwnerReference| {
                let owner = self.items.get(&o.uid);
                owner.is_none_or(|owner| {
                    owner.waits_for_dependents() || !owner.is_meant_by(o, &after.namespace)
                })
            };
            if present.iter().any(doubtful) {
                work.push(Work::Check(uid.clone()));
            }
        }

        let was = |f: fn(&Item) -> bool| before.as_ref().is_some_and(f);
        if after.waits_for_dependents() && !was(Item::waits_for_dependents) {
            work.extend(self.dependents.get(&uid).into_iter().flatten().cloned().map(Work::Check));
            // Its owners count it as one that goes by itself.
            work.push(Work::Check(uid.clone()));
        }
        let orphans = |item: &Item| item.deleting && item.orphan;
        if orphans(after) && !was(orphans) {
            work.push(Work::Orphan(uid));
        }
        work
    }

    /// An object is gone.
    pub fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(item) = self.items.remove(uid) else { return Vec::new() };
        for owner in &item.owners {
            detach(&mut self.dependents, &owner.uid, uid);
        }
        let waits = |o: &&OwnerReference| self.items.get(&o.uid).is_some_and(Item::waits_for_dependents);
        let mut work: Vec<_> = item.owners.iter().filter(waits).map(|o| Work::Check(o.uid.clone())).collect();
        let dependents: Vec<_> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        if !dependents.is_empty() {
            self.note_gone(uid);
        }
        work.extend(dependents.into_iter().map(Work::Check));
        work
    }
}

fn detach(dependents: &mut HashMap<String, HashSet<String>>, owner: &str, uid: &str) {
    if let Some(set) = dependents.get_mut(owner) {
        set.remove(uid);
        if set.is_empty() {
            dependents.remove(owner);
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn item(uid: &str, owners: &[(&str, bool)]) -> Item {
        let kind = api::Kind::find("apps", "ReplicaSet").unwrap();
        let reference = |(uid, block): &(&str, bool)| OwnerReference {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: (*uid).into(),
            uid: (*uid).into(),
            block_owner_deletion: Some(*block),
            controller: None,
        };
        Item {
            kind,
            namespace: "ns".into(),
            name: uid.into(),
            uid: uid.into(),
            owners: owners.iter().map(reference).collect(),
            deleting: false,
            foreground: false,
            orphan: false,
        }
    }

    fn foreground(mut item: Item) -> Item {
        (item.deleting, item.foreground) = (true, true);
        item
    }

    #[track_caller]
    fn check(mut found: Vec<Work>, expected: &[&str]) {
        found.sort();
        let words: Vec<_> = found
            .iter()
            .map(|w| match w {
                Work::Check(uid) => format!("check {uid}"),
                Work::Orphan(uid) => format!("orphan {uid}"),
            })
            .collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn dependents_are_checked_when_their_owner_goes() {
        let mut graph = Graph::default();
        check(graph.upsert(item("a", &[])), &[]);
        check(graph.upsert(item("b", &[("a", true)])), &[]);
        check(graph.remove("a"), &["check b"]);
        assert!(graph.is_gone("a"));
        check(graph.remove("a"), &[]);
    }

    #[test]
    fn a_dependent_of_an_unknown_owner_is_checked() {
        let mut graph = Graph::default();
        check(graph.upsert(item("b", &[("a", true)])), &["check b"]);
        check(graph.upsert(item("b", &[("a", true)])), &[]);
        assert_eq!(graph.dependents("a").len(), 1);
        let mut elsewhere = item("a", &[]);
        elsewhere.namespace = "other".into();
        check(graph.upsert(elsewhere), &[]);
        check(graph.upsert(item("c", &[("a", false)])), &["check c"]);
    }

    #[test]
    fn foreground_deletion_checks_the_dependents_and_then_the_owner() {
        let mut graph = Graph::default();
        graph.upsert(item("a", &[]));
        graph.upsert(item("b", &[("a", true)]));
        check(graph.upsert(foreground(item("a", &[]))), &["check a", "check b"]);
        check(graph.upsert(foreground(item("a", &[]))), &[]);
        check(graph.upsert(item("c", &[("a", true)])), &["check c"]);
        check(graph.remove("b"), &["check a"]);
        check(graph.upsert(item("c", &[])), &["check a"]);
        check(graph.upsert(item("d", &[("a", true)])), &["check d"]);
        check(graph.upsert(item("d", &[("a", false)])), &["check a", "check d"]);
    }

    #[test]
    fn orphaning_is_noticed_once() {
        let mut graph = Graph::default();
        graph.upsert(item("a", &[]));
        let mut leaving = item("a", &[]);
        (leaving.deleting, leaving.orphan) = (true, true);
        check(graph.upsert(leaving.clone()), &["orphan a"]);
        check(graph.upsert(leaving), &[]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut graph = Graph::default();
        for i in 0..2000 {
            graph.note_gone(&i.to_string());
        }
        assert_eq!(graph.gone.len(), REMEMBERED);
        assert!(graph.is_gone("1999") && !graph.is_gone("0"));
    }
}
