//! NodeAffinity: `nodeSelector`, and required and preferred node affinity.

use std::collections::BTreeMap;

use api::openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use crate::framework::{Event, Filter, PreFilter, Score, Status, normalize_to_max};
use crate::pod::PodInfo;
use crate::snapshot::{NodeState, Snapshot};

/// See the module.
pub struct NodeAffinity;

/// Where a pod must and would like to run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Affinity {
    /// Labels that the node must have.
    selector: BTreeMap<String, String>,
    /// One of these must match, if there is a list.
    required: Option<Vec<NodeSelectorTerm>>,
    /// What each adds to a node that matches.
    preferred: Vec<(i64, NodeSelectorTerm)>,
}

impl Affinity {
    /// Reads a pod's spec.
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred =
            affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self {
            selector: spec.node_selector.clone().unwrap_or_default(),
            required: required.map(|r| r.node_selector_terms.clone()),
            preferred: preferred
                .into_iter()
                .flatten()
                .map(|p| (p.weight.into(), p.preference.clone()))
                .collect(),
        }
    }

    fn allows(&self, node: &NodeState) -> bool {
        self.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| matches(term, node)))
    }

    /// The nodes that the required terms name, if every term names some.
    fn named(&self) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for term in self.required.as_ref()? {
            let fields = term.match_fields.iter().flatten();
            let mut lists = fields.filter(|f| f.key == "metadata.name" && f.operator == "In");
            let first = lists.next()?.values.clone().unwrap_or_default();
            let others: Vec<_> = lists.map(|f| f.values.clone().unwrap_or_default()).collect();
            names.extend(first.into_iter().filter(|name| others.iter().all(|list| list.contains(name))));
        }
        names.sort();
        names.dedup();
        Some(names)
    }
}

/// All requirements of a term hold; a term without any matches nothing.
fn matches(term: &NodeSelectorTerm, node: &NodeState) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |r: &NodeSelectorRequirement| holds(r, node.labels.get(&r.key).map(String::as_str));
    let field = |r: &NodeSelectorRequirement| {
        holds(r, if r.key == "metadata.name" { Some(&*node.name) } else { None })
    };
    expressions.iter().all(label) && fields.iter().all(field)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|v| v == value);
    let compare = |order: std::cmp::Ordering| {
        let number = |text: &str| text.parse::<i64>().ok();
        match (value.and_then(number), values.first().and_then(|v| number(v))) {
            (Some(own), Some(limit)) => values.len() == 1 && own.cmp(&limit) == order,
            _ => false,
        }
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => value.is_none_or(|v| !listed(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn pre_filter(&self, pod: &PodInfo) -> PreFilter {
        let affinity = &pod.affinity;
        if affinity.selector.is_empty() && affinity.required.is_none() {
            return PreFilter::Skip;
        }
        affinity.named().map_or(PreFilter::All, PreFilter::Only)
    }

    fn filter(&self, pod: &PodInfo, node: &NodeState) -> Result<(), Status> {
        if pod.affinity.allows(node) {
            return Ok(());
        }
        Err(Status::because("node(s) didn't match Pod's node affinity/selector"))
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        event.opens(self, pod)
    }
}

impl Score for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn skip(&self, pod: &PodInfo, _snapshot: &Snapshot) -> bool {
        pod.affinity.preferred.is_empty()
    }

    fn score(&self, pod: &PodInfo, node: &NodeState, _snapshot: &Snapshot) -> i64 {
        let preferred = pod.affinity.preferred.iter();
        preferred.filter(|(_, term)| matches(term, node)).map(|(weight, _)| weight).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_to_max(scores, false);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{node, pod};

    fn n() -> NodeState {
        node("n1").label("zone", "a").label("cores", "8").state()
    }

    fn required(terms: Value) -> Value {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}})
    }

    #[track_caller]
    fn check(key: &str, operator: &str, values: Value, fits: bool) {
        let terms = json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        let pod = pod("p").set("affinity", required(terms)).info();
        assert_eq!(NodeAffinity.filter(&pod, &n()).is_ok(), fits, "{key} {operator}");
    }

    #[test]
    fn every_operator_is_as_documented() {
        check("zone", "In", json!(["a", "b"]), true);
        check("zone", "In", json!(["b"]), false);
        check("none", "In", json!(["a"]), false);
        check("zone", "NotIn", json!(["a"]), false);
        check("zone", "NotIn", json!(["b"]), true);
        check("none", "NotIn", json!(["a"]), true);
        check("zone", "Exists", json!([]), true);
        check("none", "Exists", json!([]), false);
        check("zone", "DoesNotExist", json!([]), false);
        check("none", "DoesNotExist", json!([]), true);
        check("cores", "Gt", json!(["7"]), true);
        check("cores", "Gt", json!(["8"]), false);
        check("cores", "Lt", json!(["9"]), true);
        check("zone", "Lt", json!(["9"]), false);
        check("zone", "Nonsense", json!(["a"]), false);
    }

    #[test]
    fn terms_are_alternatives_and_empty_ones_match_nothing() {
        let fits = |terms: Value| {
            let pod = pod("p").set("affinity", required(terms)).info();
            NodeAffinity.filter(&pod, &n()).is_ok()
        };
        let a = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]});
        let b = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]});
        assert!(fits(json!([b, a])));
        assert!(!fits(json!([{}])));
        assert!(!fits(json!([])));
    }

    #[test]
    fn a_selector_and_an_affinity_must_both_hold() {
        let selected = |value: &str| pod("p").set("nodeSelector", json!({"zone": value})).info();
        assert!(NodeAffinity.filter(&selected("a"), &n()).is_ok());
        let refused = NodeAffinity.filter(&selected("b"), &n()).unwrap_err();
        assert_eq!(refused.reasons()[0].as_str(), "node(s) didn't match Pod's node affinity/selector");
    }

    #[test]
    fn nodes_that_are_named_are_the_only_ones_looked_at() {
        let field = |names: Value| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]});
        let pod =
            pod("p").set("affinity", required(json!([field(json!(["n1"])), field(json!(["n2"]))]))).info();
        assert!(matches!(NodeAffinity.pre_filter(&pod), PreFilter::Only(names) if names == ["n1", "n2"]));
        assert!(NodeAffinity.filter(&pod, &n()).is_ok());
        assert!(NodeAffinity.filter(&pod, &node("n3").state()).is_err());
        let other = json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]});
        let pod =
            crate::fixtures::pod("p").set("affinity", required(json!([field(json!(["n1"])), other]))).info();
        assert!(matches!(NodeAffinity.pre_filter(&pod), PreFilter::All));
    }

    #[test]
    fn preferences_add_up() {
        let term =
            |zone: &str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
        let preferred = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 10, "preference": term("a")}, {"weight": 30, "preference": term("b")}]}});
        let pod = pod("p").set("affinity", preferred).info();
        let nodes = [n(), node("n2").label("zone", "b").state(), node("n3").state()];
        let mut scores = nodes.map(|n| NodeAffinity.score(&pod, &n, &Snapshot::default()));
        NodeAffinity.normalize(&mut scores);
        assert_eq!(scores, [33, 100, 0]);
    }

    #[test]
    fn a_new_label_wakes_the_pod() {
        let pod = pod("p").set("nodeSelector", json!({"disk": "ssd"})).info();
        let (without, with) = (node("n").state(), node("n").label("disk", "ssd").state());
        assert!(NodeAffinity.hint(&pod, &Event::NodeUpdated { old: &without, new: &with }));
        assert!(!NodeAffinity.hint(&pod, &Event::NodeAdded(&without)));
    }
}
