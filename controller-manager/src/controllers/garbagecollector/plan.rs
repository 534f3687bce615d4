//! Decides what becomes of an object, from the state of its owners and dependents.

use api::openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::graph::{FOREGROUND, Item, ORPHAN};

/// How an owner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// It exists.
    Solid,
    /// It does not exist.
    Absent,
    /// It is being deleted and waits for the end of its dependents.
    Waiting,
}

/// What becomes of an object.
#[derive(Debug, PartialEq)]
pub enum Plan {
    /// It stays.
    Keep,
    /// It stays, without the owners that are gone or going.
    RemoveOwners(Vec<String>),
    /// It goes.
    Delete {
        /// What becomes of its own dependents.
        policy: &'static str,
        /// It lets its owners go before it is gone itself: they wait for each other otherwise.
        unblock: bool,
    },
}

/// Decides about an object that has owners. `dependents` are those that the graph knows.
pub fn plan(owners: &[(OwnerReference, OwnerState)], finalizers: &[String], dependents: &[&Item]) -> Plan {
    if owners.is_empty() {
        return Plan::Keep;
    }
    let is = |state: OwnerState| owners.iter().any(|(_, s)| *s == state);
    if is(OwnerState::Solid) {
        let others = owners.iter().filter(|(_, s)| *s != OwnerState::Solid);
        let uids: Vec<_> = others.map(|(owner, _)| owner.uid.clone()).collect();
        return if uids.is_empty() { Plan::Keep } else { Plan::RemoveOwners(uids) };
    }
    if is(OwnerState::Waiting) && !dependents.is_empty() {
        let unblock = dependents.iter().any(|d| d.waits_for_dependents());
        return Plan::Delete { policy: "Foreground", unblock };
    }
    let has = |finalizer: &str| finalizers.iter().any(|f| f == finalizer);
    let policy = match () {
        () if has(ORPHAN) => "Orphan",
        () if has(FOREGROUND) => "Foreground",
        () => "Background",
    };
    Plan::Delete { policy, unblock: false }
}

/// The dependents for which an owner that is deleted in the foreground still has to wait.
pub fn blocking<'g>(owner: &Item, dependents: &[&'g Item]) -> Vec<&'g Item> {
    let blocks = |dependent: &&&Item| {
        let mut references = dependent.owners.iter();
        references.any(|o| o.uid == owner.uid && o.block_owner_deletion == Some(true))
    };
    dependents.iter().filter(blocks).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::item;
    use super::*;
    use OwnerState::{Absent, Solid, Waiting};

    #[track_caller]
    fn check(states: &[OwnerState], finalizers: &[&str], dependents: &[&Item], expected: &Plan) {
        let owner = |(i, state): (usize, &OwnerState)| {
            (OwnerReference { uid: i.to_string(), ..OwnerReference::default() }, *state)
        };
        let owners: Vec<_> = states.iter().enumerate().map(owner).collect();
        let finalizers: Vec<_> = finalizers.iter().map(|f| (*f).to_owned()).collect();
        assert_eq!(&plan(&owners, &finalizers, dependents), expected);
    }

    fn delete(policy: &'static str) -> Plan {
        Plan::Delete { policy, unblock: false }
    }

    #[test]
    fn an_object_goes_with_its_last_owner() {
        let child = item("c", &[("x", true)]);
        check(&[], &[], &[], &Plan::Keep);
        check(&[Solid], &[], &[], &Plan::Keep);
        check(&[Absent], &[], &[], &delete("Background"));
        check(&[Absent], &[ORPHAN], &[], &delete("Orphan"));
        check(&[Absent], &[FOREGROUND], &[], &delete("Foreground"));
        check(&[Solid, Absent, Waiting], &[], &[], &Plan::RemoveOwners(vec!["1".into(), "2".into()]));
        check(&[Waiting], &[], &[], &delete("Background"));
        check(&[Waiting, Absent], &[], &[&child], &delete("Foreground"));
        check(&[Absent], &[], &[&child], &delete("Background"));
    }

    #[test]
    fn a_circle_of_waiting_is_broken() {
        let mut child = item("c", &[("x", true)]);
        (child.deleting, child.foreground) = (true, true);
        check(&[Waiting], &[], &[&child], &Plan::Delete { policy: "Foreground", unblock: true });
    }

    #[test]
    fn only_dependents_that_ask_for_it_are_waited_for() {
        let owner = item("a", &[]);
        let (one, other) = (item("b", &[("a", true)]), item("c", &[("a", false)]));
        let waited_for: Vec<_> = blocking(&owner, &[&one, &other]).iter().map(|i| i.uid.clone()).collect();
        assert_eq!(waited_for, ["b"]);
    }
}
