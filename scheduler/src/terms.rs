//! Which pods a rule of a pod speaks of: affinity terms and spread constraints, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::openapi::api::core::v1::{
    Affinity, PodAffinityTerm, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use api::openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use api::selector::Selector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Pods of some namespaces with certain labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// Names of namespaces.
    pub namespaces: BTreeSet<String>,
    /// Namespaces besides those, by their labels.
    pub namespace_selector: Option<Selector>,
    /// Labels of the pods.
    pub selector: Selector,
}

impl Term {
    /// Pods of one namespace.
    pub fn within(namespace: &str, selector: Selector) -> Self {
        Self { namespaces: BTreeSet::from([namespace.to_owned()]), namespace_selector: None, selector }
    }

    /// Whether it speaks of a pod with these labels, in this namespace that has these labels.
    pub fn matches(&self, labels: &Labels, namespace: &str, namespace_labels: Option<&Labels>) -> bool {
        let within = || {
            let selector = self.namespace_selector.as_ref();
            let none = Labels::new();
            selector.is_some_and(|s| s.matches(namespace_labels.unwrap_or(&none)))
        };
        (self.namespaces.contains(namespace) || within()) && self.selector.matches(labels)
    }
}

/// A term, and the label of nodes that says what is near.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    /// Which pods.
    pub term: Term,
    /// Nodes with one value of this label are near each other.
    pub topology_key: Arc<str>,
}

/// Near which pods a pod must and would like to run, or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodAffinity {
    /// Must be near.
    pub required: Vec<AffinityTerm>,
    /// Must not be near.
    pub required_anti: Vec<AffinityTerm>,
    /// Would like to be near.
    pub preferred: Vec<(i32, AffinityTerm)>,
    /// Would rather not be near.
    pub preferred_anti: Vec<(i32, AffinityTerm)>,
}

impl PodAffinity {
    /// Reads a pod's affinity. What is invalid was refused by the API server, and selects nothing.
    pub fn of(affinity: Option<&Affinity>, namespace: &str, labels: &Labels) -> Self {
        let read = |terms: &Option<Vec<PodAffinityTerm>>| -> Vec<AffinityTerm> {
            terms.iter().flatten().map(|t| read(t, namespace, labels)).collect()
        };
        let weighted = |terms: &Option<Vec<WeightedPodAffinityTerm>>| -> Vec<(i32, AffinityTerm)> {
            let one =
                |t: &WeightedPodAffinityTerm| (t.weight, self::read(&t.pod_affinity_term, namespace, labels));
            terms.iter().flatten().map(one).collect()
        };
        let Some(affinity) = affinity else { return Self::default() };
        let mut all = Self::default();
        if let Some(near) = &affinity.pod_affinity {
            all.required = read(&near.required_during_scheduling_ignored_during_execution);
            all.preferred = weighted(&near.preferred_during_scheduling_ignored_during_execution);
        }
        if let Some(far) = &affinity.pod_anti_affinity {
            all.required_anti = read(&far.required_during_scheduling_ignored_during_execution);
            all.preferred_anti = weighted(&far.preferred_during_scheduling_ignored_during_execution);
        }
        all
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.required_anti.is_empty()
            && self.preferred.is_empty()
            && self.preferred_anti.is_empty()
    }
}

fn read(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> AffinityTerm {
    let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    let by_labels = term.namespace_selector.as_ref();
    if namespaces.is_empty() && by_labels.is_none() {
        namespaces.insert(namespace.to_owned());
    }
    // The API server merges these keys into the selector; merging them again changes nothing.
    let mut selector = term.label_selector.clone();
    merge(&mut selector, &term.match_label_keys, labels, "In");
    merge(&mut selector, &term.mismatch_label_keys, labels, "NotIn");
    AffinityTerm {
        term: Term {
            namespaces,
            namespace_selector: by_labels.map(|s| selector_of(Some(s))),
            selector: selector_of(selector.as_ref()),
        },
        topology_key: term.topology_key.as_str().into(),
    }
}

/// A selector that the API server has let through; one that it has not selects nothing.
pub fn selector_of(selector: Option<&LabelSelector>) -> Selector {
    Selector::from_typed(selector).unwrap_or_else(|_| Selector::nothing())
}

/// Adds to a selector that pods must have the same value as this one, or another (KEP-3633, KEP-3243).
fn merge(selector: &mut Option<LabelSelector>, keys: &Option<Vec<String>>, labels: &Labels, operator: &str) {
    let Some(selector) = selector else { return };
    for key in keys.iter().flatten() {
        let Some(value) = labels.get(key) else { continue };
        let requirement = LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.to_owned(),
            values: Some(vec![value.clone()]),
        };
        let all = selector.match_expressions.get_or_insert_default();
        if !all.contains(&requirement) {
            all.push(requirement);
        }
    }
}

/// How evenly pods are to be spread over the values of a label of nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Constraint {
    /// By how much domains may differ.
    pub max_skew: u32,
    /// The label of nodes.
    pub topology_key: Arc<str>,
    /// `DoNotSchedule` rather than `ScheduleAnyway`.
    pub hard: bool,
    /// Which pods are counted.
    pub selector: Selector,
    /// With fewer domains than this, the least is zero.
    pub min_domains: u32,
    /// Whether nodes that the pod's affinity refuses are left out; so by default.
    pub honor_affinity: bool,
    /// Whether nodes with untolerated taints are left out; not so by default.
    pub honor_taints: bool,
}

impl Constraint {
    /// Reads a constraint; `labels` are those of the pod, for `matchLabelKeys`.
    pub fn of(constraint: &TopologySpreadConstraint, labels: &Labels) -> Self {
        let mut selector = constraint.label_selector.clone();
        merge(&mut selector, &constraint.match_label_keys, labels, "In");
        let positive =
            |n: Option<i32>, default: u32| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
        Self {
            max_skew: positive(Some(constraint.max_skew), 1),
            topology_key: constraint.topology_key.as_str().into(),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            selector: selector_of(selector.as_ref()),
            min_domains: positive(constraint.min_domains, 1),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}
