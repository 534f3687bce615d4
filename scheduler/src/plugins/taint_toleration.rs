//! TaintToleration: refuses nodes with taints that the pod does not tolerate, and prefers those with
//! fewer taints that ask politely.

use api::openapi::api::core::v1::Toleration;

use crate::framework::{Cycle, Event, Filter, NODES, Reason, Refusal, Score, normalize_to_max};
use crate::pod::PodInfo;
use crate::snapshot::{NodeState, NodeTaint};

/// See the module.
pub struct TaintToleration;

/// Whether one of the tolerations covers a taint.
pub fn tolerates(tolerations: &[Toleration], key: &str, value: &str, effect: &str) -> bool {
    tolerations.iter().any(|toleration| {
        fn own(text: &Option<String>) -> &str {
            text.as_deref().unwrap_or_default()
        }
        let (own_key, own_effect) = (own(&toleration.key), own(&toleration.effect));
        if !own_effect.is_empty() && own_effect != effect || !own_key.is_empty() && own_key != key {
            return false;
        }
        match toleration.operator.as_deref().unwrap_or_default() {
            "Exists" => true,
            "" | "Equal" => own(&toleration.value) == value,
            _ => false,
        }
    })
}

/// The first taint that keeps the pod away from the node.
pub fn untolerated<'a>(pod: &PodInfo, node: &'a NodeState) -> Option<&'a NodeTaint> {
    if !node.has_hard_taints {
        return None;
    }
    let mut hard = node.rest.taints.iter().filter(|taint| taint.is_hard());
    hard.find(|taint| !tolerates(pod.tolerations(), &taint.key, &taint.value, &taint.effect))
}

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeState, _cycle: &Cycle<'_>) -> Result<(), Refusal> {
        match untolerated(pod, node) {
            None => Ok(()),
            Some(taint) => {
                let reason = Reason::Detailed("node(s) had untolerated taint(s)", taint.detail.clone());
                Err(Refusal { reason, resolvable: false })
            }
        }
    }

    fn events(&self) -> u16 {
        NODES
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        event.opens(|node| untolerated(pod, node).is_none())
    }
}

impl Score for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn score(&self, pod: &PodInfo, node: &NodeState, _cycle: &Cycle<'_>) -> i64 {
        if !node.has_soft_taints {
            return 0;
        }
        let soft = node.rest.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
        let untolerated = soft.filter(|t| !tolerates(pod.tolerations(), &t.key, &t.value, &t.effect));
        i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64], _cycle: &Cycle<'_>) {
        normalize_to_max(scores, true);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{node, pod};

    #[track_caller]
    fn check(tolerations: Value, refused: Option<&str>) {
        let node =
            node("n").taint("dedicated", "gpu", "NoSchedule").taint("soft", "", "PreferNoSchedule").state();
        let pod = pod("p").set("tolerations", tolerations).info();
        assert_eq!(untolerated(&pod, &node).map(|taint| &*taint.detail), refused);
    }

    #[test]
    fn taints_are_tolerated_as_documented() {
        let refused = Some("{dedicated: gpu}");
        check(json!([]), refused);
        check(json!([{"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}]), None);
        check(json!([{"key": "dedicated", "operator": "Equal", "value": "gpu"}]), None);
        check(json!([{"key": "dedicated", "operator": "Exists"}]), None);
        check(json!([{"operator": "Exists"}]), None);
        check(json!([{"key": "dedicated", "value": "cpu"}]), refused);
        check(json!([{"key": "other", "operator": "Exists"}]), refused);
        check(json!([{"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}]), refused);
    }

    #[test]
    fn polite_taints_count_against_a_node() {
        let nodes = [
            node("a").state(),
            node("b").taint("x", "", "PreferNoSchedule").state(),
            node("c").taint("x", "", "PreferNoSchedule").taint("y", "", "PreferNoSchedule").state(),
        ];
        let pod = pod("p").info();
        let (snapshot, cluster) = Default::default();
        let cycle = Cycle::new(&snapshot, &cluster);
        let mut scores = nodes.map(|n| TaintToleration.score(&pod, &n, &cycle));
        TaintToleration.normalize(&mut scores, &cycle);
        assert_eq!(scores, [100, 50, 0]);
        let mut scores = [0, 0];
        TaintToleration.normalize(&mut scores, &cycle);
        assert_eq!(scores, [100, 100]);
    }

    #[test]
    fn a_removed_taint_wakes_the_pod() {
        let (tainted, clean) = (node("n").taint("k", "v", "NoExecute").state(), node("n").state());
        let pod = pod("p").info();
        assert!(TaintToleration.hint(&pod, &Event::NodeUpdated { old: &tainted, new: &clean }));
        assert!(!TaintToleration.hint(&pod, &Event::NodeUpdated { old: &clean, new: &tainted }));
        let left = crate::fixtures::pod("q").info();
        assert!(!TaintToleration.hint(&pod, &Event::PodLeft { pod: &left, node: Some(&clean) }));
    }
}
