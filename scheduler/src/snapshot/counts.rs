//! How many pods of a kind are on each node, kept up to date rather than counted for each decision.

use std::collections::HashMap;
use std::sync::Arc;

use super::NodeState;
use crate::pod::PodInfo;
use crate::terms::{AffinityTerm, Labels, Term};

/// So many selections are kept counted; what was asked for longest ago goes first.
const KEPT: usize = 128;

/// The labels of namespaces, by name.
pub type Namespaces = HashMap<String, Labels>;

/// The pods that every one of some terms speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selection {
    /// The terms.
    pub terms: Vec<Term>,
    /// Whether pods that are being deleted are left out.
    pub living: bool,
}

impl Selection {
    /// Whether a pod is one of them.
    pub fn matches(&self, pod: &PodInfo, namespaces: &Namespaces) -> bool {
        !(self.living && pod.terminating) && self.terms.iter().all(|term| speaks_of(term, pod, namespaces))
    }

    fn looks_at_namespaces(&self) -> bool {
        self.terms.iter().any(|term| term.namespace_selector.is_some())
    }
}

/// Whether a term speaks of a pod.
pub fn speaks_of(term: &Term, pod: &PodInfo, namespaces: &Namespaces) -> bool {
    term.matches(pod.labels(), pod.namespace(), namespaces.get(pod.namespace()))
}

/// How strongly a pod that is there feels about others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strength {
    /// It must not be near them.
    RequiredAnti,
    /// It had to be near them.
    Required,
    /// It would like to be near them; negative: rather not.
    Preferred(i32),
}

/// A term that pods carry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Carried {
    /// How strongly.
    pub strength: Strength,
    /// About whom, and what is near.
    pub term: AffinityTerm,
}

#[derive(Debug)]
struct Counter {
    by_node: Arc<Vec<u32>>,
    used: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Counts {
    selected: HashMap<Selection, Counter>,
    /// How many pods carry a term, by the ids of nodes.
    carried: HashMap<Carried, HashMap<u32, u32>>,
    clock: u64,
}

impl Counts {
    /// By the places of nodes: how many of these pods are there.
    pub fn of(
        &mut self,
        selection: &Selection,
        nodes: &[NodeState],
        namespaces: &Namespaces,
    ) -> Arc<Vec<u32>> {
        self.clock += 1;
        if let Some(counter) = self.selected.get_mut(selection) {
            counter.used = self.clock;
            return counter.by_node.clone();
        }
        if self.selected.len() >= KEPT
            && let Some(oldest) = self.selected.iter().min_by_key(|(_, c)| c.used).map(|(s, _)| s.clone())
        {
            self.selected.remove(&oldest);
        }
        let by_node =
            Arc::new(nodes.iter().map(|node| count(selection, node, namespaces)).collect::<Vec<_>>());
        self.selected.insert(selection.clone(), Counter { by_node: by_node.clone(), used: self.clock });
        by_node
    }

    /// The terms that pods carry, and on which nodes, by id, how many do.
    pub fn carried(&self) -> impl Iterator<Item = (&Carried, &HashMap<u32, u32>)> {
        self.carried.iter()
    }

    /// A pod is on the node in this place, or is no longer.
    pub fn pod(&mut self, pod: &PodInfo, at: usize, id: u32, added: bool, namespaces: &Namespaces) {
        for (selection, counter) in &mut self.selected {
            if selection.matches(pod, namespaces) {
                let count = &mut Arc::make_mut(&mut counter.by_node)[at];
                *count = if added { *count + 1 } else { count.saturating_sub(1) };
            }
        }
        for carried in carried_by(pod) {
            if added {
                *self.carried.entry(carried).or_default().entry(id).or_default() += 1;
            } else if let Some(nodes) = self.carried.get_mut(&carried) {
                if let Some(count) = nodes.get_mut(&id) {
                    *count -= 1;
                    if *count == 0 {
                        nodes.remove(&id);
                    }
                }
                if nodes.is_empty() {
                    self.carried.remove(&carried);
                }
            }
        }
    }

    /// A node without pods came, in the last place.
    pub fn push(&mut self) {
        for counter in self.selected.values_mut() {
            Arc::make_mut(&mut counter.by_node).push(0);
        }
    }

    /// A node without pods is gone and the last one has its place.
    pub fn swap_remove(&mut self, at: usize) {
        for counter in self.selected.values_mut() {
            Arc::make_mut(&mut counter.by_node).swap_remove(at);
        }
    }

    /// A namespace has other labels: what looked at them is counted anew when it is asked for.
    pub fn namespace_changed(&mut self) {
        self.selected.retain(|selection, _| !selection.looks_at_namespaces());
    }
}

fn count(selection: &Selection, node: &NodeState, namespaces: &Namespaces) -> u32 {
    let matching = node.pods().iter().filter(|pod| selection.matches(pod, namespaces)).count();
    u32::try_from(matching).unwrap_or(u32::MAX)
}

fn carried_by(pod: &PodInfo) -> impl Iterator<Item = Carried> {
    let affinity = &pod.pod_affinity;
    let with = |strength: Strength| move |term: &AffinityTerm| Carried { strength, term: term.clone() };
    let weighted = |sign: i32| move |(w, t): &(i32, AffinityTerm)| with(Strength::Preferred(sign * w))(t);
    let anti = affinity.required_anti.iter().map(with(Strength::RequiredAnti));
    let required = affinity.required.iter().map(with(Strength::Required));
    let preferred = affinity.preferred.iter().map(weighted(1));
    anti.chain(required).chain(preferred).chain(affinity.preferred_anti.iter().map(weighted(-1)))
}
