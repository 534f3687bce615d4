//! PodTopologySpread: keeps pods of a kind evenly spread over zones, nodes, or whatever nodes are
//! labelled by (KEP-895, KEP-3022, KEP-3094, KEP-3243).

use std::sync::Arc;

use super::node_affinity::NodeAffinity;
use super::taint_toleration::untolerated;
use crate::framework::{
    Cycle, Event, Filter, MAX_SCORE, NODE_REMOVED, NODES, POD_LEFT, POD_PLACED, PreFilter, Refusal, Score,
};
use crate::pod::PodInfo;
use crate::snapshot::{NONE, NodeState, Selection, Snapshot};
use crate::terms::{Constraint, Term};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const REFUSED: &str = "node(s) didn't match pod topology spread constraints";
const UNLABELLED: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// See the module.
#[derive(Clone, Debug)]
pub struct PodTopologySpread {
    /// For pods that state none; their selectors are found through Services and owners.
    defaults: Vec<Constraint>,
    /// Whether `defaults` are the built-in ones, for which nodes may lack a label.
    system: bool,
    /// What is added to pods' own affinity in this profile.
    added: NodeAffinity,
}

/// What is known of one hard constraint before nodes are looked at.
#[derive(Clone, Debug)]
struct Domains {
    of_node: Arc<Vec<u32>>,
    /// Matching pods by domain, [`NONE`] for a domain without any eligible node.
    pods: Vec<u32>,
    max_skew: u32,
    /// 1 if the pod itself counts.
    own: u32,
    min_domains: u32,
    eligible: Arc<Vec<bool>>,
    selection: Selection,
}

impl Domains {
    fn least(&self) -> u32 {
        let present = self.pods.iter().filter(|count| **count != NONE);
        let (least, domains) = present.fold((u32::MAX, 0), |(least, n), count| (least.min(*count), n + 1));
        if domains < self.min_domains { 0 } else { least }
    }
}

/// What is known of one soft constraint before nodes are scored.
#[derive(Clone, Debug)]
struct Wish {
    of_node: Arc<Vec<u32>>,
    by: By,
    max_skew: u32,
    weight: f64,
}

#[derive(Clone, Debug)]
enum By {
    Domain(Vec<u32>),
    Node(Arc<Vec<u32>>),
}

/// What is worked out about one pod.
#[derive(Clone, Debug, Default)]
pub struct State {
    hard: Vec<Domains>,
    least: Vec<u32>,
    soft: Vec<Wish>,
    /// By the order of the nodes that are scored: those that lack a label.
    ignored: Vec<bool>,
    ignored_at: Vec<bool>,
}

impl Default for PodTopologySpread {
    /// The built-in defaults: at most 3 more on one node than on another, at most 5 in one zone.
    fn default() -> Self {
        let default = |key: &str, max_skew| Constraint {
            max_skew,
            topology_key: key.into(),
            hard: false,
            selector: api::selector::Selector::nothing(),
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
        };
        Self {
            defaults: vec![default(HOSTNAME, 3), default(ZONE, 5)],
            system: true,
            added: NodeAffinity::default(),
        }
    }
}

impl PodTopologySpread {
    /// With these constraints for pods that state none (`defaultingType: List`).
    pub fn with_defaults(defaults: Vec<Constraint>) -> Self {
        Self { defaults, system: false, added: NodeAffinity::default() }
    }

    /// In a profile that adds to pods' node affinity.
    #[must_use]
    pub fn with_added_affinity(mut self, added: NodeAffinity) -> Self {
        self.added = added;
        self
    }

    /// The constraints that hold for a pod, and whether nodes must bear the labels of all of them.
    fn constraints(&self, pod: &PodInfo, hard: bool, cycle: &Cycle<'_>) -> (Vec<Constraint>, bool) {
        if !pod.spread.is_empty() {
            return (pod.spread.iter().filter(|c| c.hard == hard).cloned().collect(), true);
        }
        let wanted = || self.defaults.iter().filter(|c| c.hard == hard);
        if wanted().next().is_none() {
            return (Vec::new(), true);
        }
        let Some(selector) = cycle.cluster.like(pod) else { return (Vec::new(), true) };
        let own = wanted().map(|c| Constraint { selector: selector.clone(), ..c.clone() });
        (own.collect(), !self.system)
    }

    /// By the places of nodes: whether their pods are counted for a constraint.
    fn eligible(
        &self,
        pod: &PodInfo,
        constraint: &Constraint,
        labelled: Option<&[bool]>,
        snapshot: &Snapshot,
    ) -> Vec<bool> {
        let affinity = constraint.honor_affinity && self.added.restricts(pod);
        let nodes = snapshot.nodes().iter();
        nodes
            .map(|node| {
                labelled.is_none_or(|labelled| labelled[node.place()])
                    && (!affinity || self.added.allows(pod, node))
                    && !(constraint.honor_taints && untolerated(pod, node).is_some())
            })
            .collect()
    }
}

fn selection(pod: &PodInfo, constraint: &Constraint) -> Selection {
    Selection { terms: vec![Term::within(pod.namespace(), constraint.selector.clone())], living: true }
}

/// By the places of nodes: whether they bear the labels of all constraints.
fn labelled(constraints: &[Constraint], snapshot: &Snapshot) -> Vec<bool> {
    let mut all = vec![true; snapshot.nodes().len()];
    for constraint in constraints {
        let column = snapshot.column(&constraint.topology_key);
        all.iter_mut().zip(column.of_node.iter()).for_each(|(all, domain)| *all &= *domain != NONE);
    }
    all
}

impl Filter for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn pre_filter(&self, pod: &PodInfo, cycle: &mut Cycle<'_>) -> PreFilter {
        let (constraints, _) = self.constraints(pod, true, cycle);
        cycle.spread.hard.clear();
        if constraints.is_empty() {
            return PreFilter::Skip;
        }
        let snapshot = cycle.snapshot;
        let labelled = labelled(&constraints, snapshot);
        for constraint in &constraints {
            let column = snapshot.column(&constraint.topology_key);
            let eligible = self.eligible(pod, constraint, Some(&labelled), snapshot);
            let selection = selection(pod, constraint);
            let counts = snapshot.count(&selection);
            let mut pods = vec![NONE; column.domains];
            for (at, domain) in column.of_node.iter().enumerate().filter(|(at, _)| eligible[*at]) {
                let sum = &mut pods[*domain as usize];
                *sum = if *sum == NONE { 0 } else { *sum }.saturating_add(counts[at]);
            }
            cycle.spread.hard.push(Domains {
                of_node: column.of_node,
                pods,
                max_skew: constraint.max_skew,
                own: u32::from(constraint.selector.matches(pod.labels())),
                min_domains: constraint.min_domains,
                eligible: Arc::new(eligible),
                selection,
            });
        }
        cycle.spread.least = cycle.spread.hard.iter().map(Domains::least).collect();
        PreFilter::All
    }

    fn filter(&self, _pod: &PodInfo, node: &NodeState, cycle: &Cycle<'_>) -> Result<(), Refusal> {
        for (domains, least) in cycle.spread.hard.iter().zip(&cycle.spread.least) {
            let domain = domains.of_node[node.place()];
            if domain == NONE {
                return Err(Refusal::for_good(UNLABELLED));
            }
            let there = Some(domains.pods[domain as usize]).filter(|n| *n != NONE).unwrap_or(0);
            if i64::from(there) + i64::from(domains.own) - i64::from(*least) > i64::from(domains.max_skew) {
                return Err(Refusal::because(REFUSED));
            }
        }
        Ok(())
    }

    fn add_pod(&self, _pod: &PodInfo, other: &PodInfo, node: &NodeState, cycle: &mut Cycle<'_>) {
        shift(other, node, cycle, |count| count.saturating_add(1));
    }

    fn remove_pod(&self, _pod: &PodInfo, other: &PodInfo, node: &NodeState, cycle: &mut Cycle<'_>) {
        shift(other, node, cycle, |count| count.saturating_sub(1));
    }

    fn events(&self) -> u16 {
        NODES | NODE_REMOVED | POD_LEFT | POD_PLACED
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let counted = |other: &PodInfo| {
            // Of a pod that states none, the default constraints count.
            other.namespace() == pod.namespace()
                && (pod.spread.is_empty()
                    || pod.spread.iter().any(|c| c.hard && c.selector.matches(other.labels())))
        };
        let labelled = |node: &NodeState| {
            pod.spread.iter().filter(|c| c.hard).all(|c| node.label(&c.topology_key).is_some())
        };
        match event {
            Event::PodLeft { pod: other, .. } | Event::PodPlaced(other) => counted(other),
            Event::NodeAdded(node) | Event::NodeRemoved(node) => labelled(node),
            Event::NodeUpdated { old, new } => {
                let keys = || pod.spread.iter().filter(|c| c.hard).map(|c| &c.topology_key);
                labelled(old) != labelled(new)
                    || labelled(new) && keys().any(|key| old.label(key) != new.label(key))
                    || pod.spread.iter().any(|c| c.honor_taints) && old.rest.taints != new.rest.taints
                    || pod.spread.iter().any(|c| c.honor_affinity)
                        && self.added.allows(pod, old) != self.added.allows(pod, new)
            }
            Event::Storage { .. } | Event::Namespace => false,
        }
    }
}

fn shift(other: &PodInfo, node: &NodeState, cycle: &mut Cycle<'_>, by: impl Fn(u32) -> u32) {
    let State { hard, least, .. } = &mut cycle.spread;
    for (domains, least) in hard.iter_mut().zip(least) {
        let domain = domains.of_node[node.place()];
        if domain == NONE
            || !domains.eligible[node.place()]
            || !domains.selection.matches(other, cycle.snapshot.namespaces())
        {
            continue;
        }
        let count = &mut domains.pods[domain as usize];
        if *count != NONE {
            *count = by(*count);
        }
        *least = domains.least();
    }
}

impl Score for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn pre_score(&self, pod: &PodInfo, feasible: &[usize], cycle: &mut Cycle<'_>) -> bool {
        let (constraints, all_labels) = self.constraints(pod, false, cycle);
        if constraints.is_empty() {
            return false;
        }
        let snapshot = cycle.snapshot;
        let labelled = all_labels.then(|| labelled(&constraints, snapshot));
        let ignored = |at: usize| labelled.as_ref().is_some_and(|labelled| !labelled[at]);
        let mut state = State {
            ignored: feasible.iter().map(|at| ignored(*at)).collect(),
            ignored_at: (0..snapshot.nodes().len()).map(ignored).collect(),
            ..State::default()
        };
        let counted = state.ignored.iter().filter(|ignored| !**ignored).count();
        for constraint in &constraints {
            let column = snapshot.column(&constraint.topology_key);
            let counts = snapshot.count(&selection(pod, constraint));
            let (by, size) = if *constraint.topology_key == *HOSTNAME {
                (By::Node(counts), counted)
            } else {
                // Only domains of nodes that are still in question count.
                let mut pods = vec![NONE; column.domains];
                for at in feasible.iter().filter(|at| !ignored(**at)) {
                    let domain = column.of_node[*at];
                    if domain != NONE {
                        pods[domain as usize] = 0;
                    }
                }
                let size = pods.iter().filter(|n| **n != NONE).count();
                let eligible = self.eligible(pod, constraint, labelled.as_deref(), snapshot);
                for (at, domain) in column.of_node.iter().enumerate().filter(|(_, domain)| **domain != NONE) {
                    let sum = &mut pods[*domain as usize];
                    if eligible[at] && *sum != NONE {
                        *sum = sum.saturating_add(counts[at]);
                    }
                }
                (By::Domain(pods), size)
            };
            state.soft.push(Wish {
                of_node: column.of_node,
                by,
                max_skew: constraint.max_skew,
                // The more domains, the less a single pod tells.
                weight: ((size + 2) as f64).ln(),
            });
        }
        state.hard = std::mem::take(&mut cycle.spread.hard);
        state.least = std::mem::take(&mut cycle.spread.least);
        cycle.spread = state;
        true
    }

    fn score(&self, _pod: &PodInfo, node: &NodeState, cycle: &Cycle<'_>) -> i64 {
        let at = node.place();
        if cycle.spread.ignored_at[at] {
            return 0;
        }
        let mut sum = 0.0;
        for wish in &cycle.spread.soft {
            let domain = wish.of_node[at];
            if domain == NONE {
                continue;
            }
            let count = match &wish.by {
                By::Node(counts) => counts[at],
                By::Domain(pods) => Some(pods[domain as usize]).filter(|n| *n != NONE).unwrap_or(0),
            };
            sum += f64::from(count) * wish.weight + f64::from(wish.max_skew.saturating_sub(1));
        }
        sum.round() as i64
    }

    fn normalize(&self, scores: &mut [i64], cycle: &Cycle<'_>) {
        let ignored = &cycle.spread.ignored;
        let counted =
            || scores.iter().zip(ignored).filter(|(_, ignored)| !**ignored).map(|(score, _)| *score);
        let (least, most) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
        for (score, ignored) in scores.iter_mut().zip(ignored) {
            *score = match (ignored, most) {
                (true, _) => 0,
                (false, 0) => MAX_SCORE,
                (false, _) => MAX_SCORE * (most + least - *score) / most,
            };
        }
    }
}

#[cfg(test)]
mod tests;
