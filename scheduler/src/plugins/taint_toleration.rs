//! TaintToleration: refuses nodes with taints that the pod does not tolerate, and prefers those with
//! fewer taints that ask politely.

use api::openapi::api::core::v1::Toleration;

use crate::framework::{Event, Filter, Reason, Score, Status, normalize_to_max};
use crate::pod::PodInfo;
use crate::snapshot::{NodeState, Snapshot};

/// See the module.
pub struct TaintToleration;

/// Whether one of the tolerations covers a taint.
pub fn tolerates(tolerations: &[Toleration], key: &str, value: &str, effect: &str) -> bool {
    tolerations.iter().any(|toleration| {
        let own = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
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

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeState) -> Result<(), Status> {
        let hard = node.taints.iter().filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
        for taint in hard {
            if !tolerates(pod.tolerations(), &taint.key, &taint.value, &taint.effect) {
                return Err(Status::Unschedulable(Reason::Shared(taint.reason.clone())));
            }
        }
        Ok(())
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        event.opens(self, pod)
    }
}

impl Score for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, pod: &PodInfo, node: &NodeState, _snapshot: &Snapshot) -> i64 {
        let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
        let untolerated = soft.filter(|t| !tolerates(pod.tolerations(), &t.key, &t.value, &t.effect));
        i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
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
        let seen = TaintToleration.filter(&pod, &node).err().map(|s| s.reasons()[0].as_str().to_owned());
        assert_eq!(seen.as_deref(), refused);
    }

    #[test]
    fn taints_are_tolerated_as_documented() {
        let refused = Some("node(s) had untolerated taint {dedicated: gpu}");
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
        let mut scores = nodes.map(|n| TaintToleration.score(&pod, &n, &Snapshot::default()));
        TaintToleration.normalize(&mut scores);
        assert_eq!(scores, [100, 50, 0]);
        let mut scores = [0, 0];
        TaintToleration.normalize(&mut scores);
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
