//! NodeAffinity: `nodeSelector`, and required and preferred node affinity.

use std::collections::BTreeMap;

use api::openapi::api::core::v1::{
    NodeAffinity as KubeNodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

use crate::framework::{Cycle, Event, Filter, NODES, PreFilter, Refusal, Score, normalize_to_max};
use crate::pod::PodInfo;
use crate::snapshot::NodeState;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct NodeAffinity {
    /// What holds for all pods of the profile besides their own affinity (`addedAffinity`).
    added: Affinity,
}

impl NodeAffinity {
    /// With `addedAffinity`.
    pub fn with_added(affinity: &KubeNodeAffinity) -> Self {
        Self { added: Affinity::of_node_affinity(Some(affinity)) }
    }

    /// Whether any node might be refused.
    pub fn restricts(&self, pod: &PodInfo) -> bool {
        pod.affinity.restricts() || self.added.restricts()
    }

    /// Whether the pod may run on the node.
    pub fn allows(&self, pod: &PodInfo, node: &NodeState) -> bool {
        pod.affinity.allows(node) && self.added.allows(node)
    }
}

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
        Self { selector: spec.node_selector.clone().unwrap_or_default(), ..Self::of_node_affinity(affinity) }
    }

    fn of_node_affinity(affinity: Option<&KubeNodeAffinity>) -> Self {
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred =
            affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self {
            selector: BTreeMap::new(),
            required: required.map(|r| r.node_selector_terms.clone()),
            preferred: preferred
                .into_iter()
                .flatten()
                .map(|p| (p.weight.into(), p.preference.clone()))
                .collect(),
        }
    }

    fn restricts(&self) -> bool {
        !self.selector.is_empty() || self.required.is_some()
    }

    fn allows(&self, node: &NodeState) -> bool {
        self.selector.iter().all(|(key, value)| node.label(key) == Some(value))
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
pub fn matches(term: &NodeSelectorTerm, node: &NodeState) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |r: &NodeSelectorRequirement| holds(r, node.label(&r.key));
    let field = |r: &NodeSelectorRequirement| {
        holds(r, if r.key == "metadata.name" { Some(&**node.name()) } else { None })
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

    fn pre_filter(&self, pod: &PodInfo, cycle: &mut Cycle<'_>) -> PreFilter {
        if !self.restricts(pod) {
            return PreFilter::Skip;
        }
        match pod.affinity.named() {
            None => PreFilter::All,
            Some(names) => {
                PreFilter::Only(names.iter().filter_map(|name| cycle.snapshot.position(name)).collect())
            }
        }
    }

    fn filter(&self, pod: &PodInfo, node: &NodeState, _cycle: &Cycle<'_>) -> Result<(), Refusal> {
        if !self.added.allows(node) {
            return Err(Refusal::for_good("node(s) didn't match scheduler-enforced node affinity"));
        }
        if !pod.affinity.allows(node) {
            return Err(Refusal::for_good("node(s) didn't match Pod's node affinity/selector"));
        }
        Ok(())
    }

    fn events(&self) -> u16 {
        NODES
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        event.opens(|node| self.allows(pod, node))
    }
}

impl Score for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn pre_score(&self, pod: &PodInfo, _feasible: &[usize], _cycle: &mut Cycle<'_>) -> bool {
        !(pod.affinity.preferred.is_empty() && self.added.preferred.is_empty())
    }

    fn score(&self, pod: &PodInfo, node: &NodeState, _cycle: &Cycle<'_>) -> i64 {
        let preferred = pod.affinity.preferred.iter().chain(&self.added.preferred);
        preferred.filter(|(_, term)| matches(term, node)).map(|(weight, _)| weight).sum()
    }

    fn normalize(&self, scores: &mut [i64], _cycle: &Cycle<'_>) {
        normalize_to_max(scores, false);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Cluster;
    use crate::fixtures::{node, pod};
    use crate::snapshot::Snapshot;

    fn fits(pod: &PodInfo, node: &NodeState) -> bool {
        NodeAffinity::default().allows(pod, node)
    }

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
        assert_eq!(super::tests::fits(&pod, &n()), fits, "{key} {operator}");
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
            super::tests::fits(&pod, &n())
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
        assert!(fits(&selected("a"), &n()));
        let (snapshot, cluster) = Default::default();
        let cycle = Cycle::new(&snapshot, &cluster);
        let refused = NodeAffinity::default().filter(&selected("b"), &n(), &cycle);
        assert_eq!(refused, Err(Refusal::for_good("node(s) didn't match Pod's node affinity/selector")));
    }

    #[test]
    fn nodes_that_are_named_are_the_only_ones_looked_at() {
        let field = |names: Value| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]});
        let pod =
            pod("p").set("affinity", required(json!([field(json!(["n1"])), field(json!(["n2"]))]))).info();
        let (mut snapshot, cluster) = (Snapshot::default(), Cluster::default());
        for name in ["n1", "n2", "n3"] {
            snapshot.set_node(&node(name).build());
        }
        let mut cycle = Cycle::new(&snapshot, &cluster);
        assert_eq!(NodeAffinity::default().pre_filter(&pod, &mut cycle), PreFilter::Only(vec![0, 1]));
        assert!(fits(&pod, &n()));
        assert!(!fits(&pod, &node("n3").state()));
        let other = json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]});
        let pod =
            crate::fixtures::pod("p").set("affinity", required(json!([field(json!(["n1"])), other]))).info();
        assert_eq!(NodeAffinity::default().pre_filter(&pod, &mut cycle), PreFilter::All);
    }

    #[test]
    fn preferences_add_up() {
        let term =
            |zone: &str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
        let preferred = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 10, "preference": term("a")}, {"weight": 30, "preference": term("b")}]}});
        let pod = pod("p").set("affinity", preferred).info();
        let nodes = [n(), node("n2").label("zone", "b").state(), node("n3").state()];
        let (snapshot, cluster) = Default::default();
        let cycle = Cycle::new(&snapshot, &cluster);
        let mut scores = nodes.map(|n| NodeAffinity::default().score(&pod, &n, &cycle));
        NodeAffinity::default().normalize(&mut scores, &cycle);
        assert_eq!(scores, [33, 100, 0]);
    }

    #[test]
    fn a_new_label_wakes_the_pod() {
        let pod = pod("p").set("nodeSelector", json!({"disk": "ssd"})).info();
        let (without, with) = (node("n").state(), node("n").label("disk", "ssd").state());
        assert!(NodeAffinity::default().hint(&pod, &Event::NodeUpdated { old: &without, new: &with }));
        assert!(!NodeAffinity::default().hint(&pod, &Event::NodeAdded(&without)));
    }

    #[test]
    fn what_a_profile_adds_holds_for_every_pod() {
        let added =
            required(json!([{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a"]}]}]));
        let plugin =
            NodeAffinity::with_added(&serde_json::from_value(added["nodeAffinity"].clone()).unwrap());
        let (snapshot, cluster) = Default::default();
        let cycle = Cycle::new(&snapshot, &cluster);
        assert!(plugin.filter(&pod("p").info(), &node("n").label("pool", "a").state(), &cycle).is_ok());
        let refused = plugin.filter(&pod("p").info(), &node("n").state(), &cycle);
        assert_eq!(refused, Err(Refusal::for_good("node(s) didn't match scheduler-enforced node affinity")));
    }
}
