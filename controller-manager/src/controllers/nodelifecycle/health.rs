//! What is known of a node's heartbeats, and what follows for its conditions.

use std::time::Duration;

use api::openapi::api::coordination::v1::Lease;
use api::openapi::api::core::v1::{Node, NodeCondition};
use api::openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;

use crate::pods::later;

/// The conditions that a kubelet reports and that become unknown when it stops.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What a node's kubelet was last seen to do. Times are this process' own, so that clocks of
/// different machines need not agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// When a sign of life was last seen.
    pub seen: Timestamp,
    renewed: Option<Timestamp>,
    reported: Option<Timestamp>,
    ready: Option<(String, Option<Timestamp>)>,
}

/// The condition `Ready`.
pub fn ready(node: &Node) -> Option<&NodeCondition> {
    api::conditions::find(&node.status.as_ref()?.conditions, "Ready")
}

/// The status of the condition `Ready`: `True`, `False` or `Unknown`; a node that never reported is
/// `Unknown`.
pub fn ready_status(node: &Node) -> &str {
    ready(node).map_or("Unknown", |c| c.status.as_str())
}

impl Heartbeat {
    /// Takes note of a node and its Lease. Any change that the kubelet made is a sign of life; the
    /// first look at a node is one as well, since it is not known how old its signs are.
    pub fn observe(before: Option<&Self>, node: &Node, lease: Option<&Lease>, now: Timestamp) -> Self {
        let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.as_ref()).map(|t| t.0);
        let condition = ready(node);
        let reported = condition.and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0);
        let status = condition.map(|c| (c.status.clone(), c.last_transition_time.as_ref().map(|t| t.0)));
        let mut next = Self { seen: now, renewed, reported, ready: status };
        if let Some(before) = before {
            let by_lease = renewed > before.renewed;
            // Our own change to Unknown is no sign of life.
            let by_us = next.ready.as_ref().is_some_and(|(status, _)| status == "Unknown");
            let by_status = reported > before.reported || (next.ready != before.ready && !by_us);
            if !by_lease && !by_status {
                next.seen = before.seen;
            }
        }
        next
    }

    /// When the node counts as lost, unless it is heard of before.
    pub fn expires(&self, grace: Duration, startup_grace: Duration) -> Timestamp {
        later(self.seen, if self.ready.is_some() { grace } else { startup_grace })
    }
}

/// The conditions of a node that was not heard of for too long, if they are not so already.
pub fn lost(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut conditions = node.status.as_ref().and_then(|s| s.conditions.clone());
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut changed = false;
    for type_ in REPORTED {
        let next = match api::conditions::find(&conditions, type_) {
            Some(present) if present.status == "Unknown" => continue,
            Some(present) => NodeCondition {
                status: "Unknown".into(),
                reason: Some("NodeStatusUnknown".into()),
                message: Some("Kubelet stopped posting node status.".into()),
                last_transition_time: Some(Time(now)),
                ..present.clone()
            },
            None => NodeCondition {
                type_: type_.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            },
        };
        api::conditions::set(&mut conditions, next);
        changed = true;
    }
    conditions.filter(|_| changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, node};
    use api::openapi::api::coordination::v1::LeaseSpec;
    use api::openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    fn lease(renewed: i64) -> Lease {
        let spec = LeaseSpec { renew_time: Some(MicroTime(at(renewed))), ..LeaseSpec::default() };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[track_caller]
    fn check(then: (&str, i64, i64), now: (&str, i64, i64), sign_of_life: bool) {
        let observe = |before: Option<&Heartbeat>, (ready, since, renewed): (&str, i64, i64), when| {
            Heartbeat::observe(before, &node("n", ready, since).build(), Some(&lease(renewed)), at(when))
        };
        let before = observe(None, then, 100);
        assert_eq!(before.seen, at(100), "the first look");
        let after = observe(Some(&before), now, 200);
        assert_eq!(after.seen == at(200), sign_of_life);
    }

    #[test]
    fn a_renewed_lease_or_a_report_is_a_sign_of_life() {
        check(("True", 1, 1), ("True", 1, 1), false);
        check(("True", 1, 1), ("True", 1, 2), true);
        check(("True", 1, 1), ("True", 2, 1), true);
        check(("True", 2, 2), ("True", 1, 1), true);
        check(("True", 1, 1), ("Unknown", 1, 1), false);
        check(("Unknown", 1, 1), ("True", 1, 1), true);
    }

    #[test]
    fn a_lost_node_is_unknown_in_all_that_it_reported() {
        let conditions = lost(&node("n", "True", 1).build(), at(60)).expect("changed");
        let ready = &conditions[0];
        assert_eq!((ready.type_.as_str(), ready.status.as_str()), ("Ready", "Unknown"));
        assert_eq!(ready.reason.as_deref(), Some("NodeStatusUnknown"));
        assert_eq!(ready.last_heartbeat_time.as_ref().unwrap().0, at(1));
        assert_eq!(ready.last_transition_time.as_ref().unwrap().0, at(60));
        assert_eq!(conditions[1].reason.as_deref(), Some("NodeStatusNeverUpdated"));
        assert_eq!(conditions.len(), 4);
        let mut node = node("n", "True", 1).build();
        node.status.as_mut().unwrap().conditions = Some(conditions);
        assert_eq!(lost(&node, at(70)), None);
    }

    #[test]
    fn a_node_that_never_reported_has_its_own_patience() {
        let (grace, startup) = (Duration::from_secs(40), Duration::from_secs(60));
        let known = Heartbeat::observe(None, &node("n", "True", 1).build(), None, at(100));
        assert_eq!(known.expires(grace, startup), at(140));
        let silent = Heartbeat::observe(None, &Node::default(), None, at(100));
        assert_eq!(silent.expires(grace, startup), at(160));
    }
}
