//! InterPodAffinity: pods that must or would like to be near other pods, or away from them. What pods
//! that are there already demand of newcomers counts as well.

use std::collections::HashMap;
use std::sync::Arc;

use crate::framework::{
    Cycle, Event, Filter, MAX_SCORE, NAMESPACE, NODES, POD_LEFT, POD_PLACED, PreFilter, Refusal, Score,
};
use crate::pod::PodInfo;
use crate::snapshot::{Column, NodeState, Selection, Snapshot, Strength, speaks_of};
use crate::terms::AffinityTerm;

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// See the module.
#[derive(Clone, Debug)]
pub struct InterPodAffinity {
    /// What a required term of a pod that is there counts when nodes are scored.
    pub hard_weight: i32,
    /// Whether preferred terms of pods that are there are left out when the pod itself has none.
    pub ignore_preferred: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self { hard_weight: 1, ignore_preferred: false }
    }
}

/// How many pods that matter are in each domain of one label.
#[derive(Clone, Debug)]
struct Near {
    key: Arc<str>,
    of_node: Arc<Vec<u32>>,
    pods: Vec<u32>,
}

impl Near {
    fn of(term: &AffinityTerm, selection: &Selection, snapshot: &Snapshot) -> Self {
        let mut near = Self::empty(&term.topology_key, snapshot.column(&term.topology_key));
        let counts = snapshot.count(selection);
        for (at, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            near.add(at, *count);
        }
        near
    }

    fn empty(key: &Arc<str>, column: Column) -> Self {
        Self { key: key.clone(), of_node: column.of_node, pods: vec![0; column.domains] }
    }

    fn add(&mut self, at: usize, count: u32) {
        if let Some(pods) = self.pods.get_mut(self.of_node[at] as usize) {
            *pods += count;
        }
    }

    fn take(&mut self, at: usize, count: u32) {
        if let Some(pods) = self.pods.get_mut(self.of_node[at] as usize) {
            *pods = pods.saturating_sub(count);
        }
    }

    fn on(&self, at: usize) -> Option<u32> {
        self.pods.get(self.of_node[at] as usize).copied()
    }
}

#[derive(Clone, Debug)]
struct Liking {
    of_node: Arc<Vec<u32>>,
    scores: Vec<i64>,
}

/// What is worked out about one pod.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// For each required term: the pods that all of them speak of.
    near: Vec<Near>,
    /// For each required anti-affinity term: the pods that it speaks of.
    far: Vec<Near>,
    /// By label: the pods that do not want this one near.
    existing: Vec<Near>,
    /// Whether the pod is one of those that it wants to be near.
    own: bool,
    likings: Vec<Liking>,
}

fn all_of(terms: &[AffinityTerm]) -> Selection {
    Selection { terms: terms.iter().map(|t| t.term.clone()).collect(), living: false }
}

fn one(term: &AffinityTerm) -> Selection {
    Selection { terms: vec![term.term.clone()], living: false }
}

impl Filter for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn pre_filter(&self, pod: &PodInfo, cycle: &mut Cycle<'_>) -> PreFilter {
        let snapshot = cycle.snapshot;
        let affinity = &pod.pod_affinity;
        let mut state = State::default();
        if !affinity.required.is_empty() {
            let all = all_of(&affinity.required);
            state.near = affinity.required.iter().map(|t| Near::of(t, &all, snapshot)).collect();
            state.own = all.matches(pod, snapshot.namespaces());
        }
        state.far = affinity.required_anti.iter().map(|t| Near::of(t, &one(t), snapshot)).collect();
        let mut existing: HashMap<Arc<str>, Near> = HashMap::new();
        snapshot.carried(|carried, nodes| {
            if carried.strength == Strength::RequiredAnti
                && speaks_of(&carried.term.term, pod, snapshot.namespaces())
            {
                let key = &carried.term.topology_key;
                let near =
                    existing.entry(key.clone()).or_insert_with(|| Near::empty(key, snapshot.column(key)));
                for (id, count) in nodes {
                    if let Some(at) = snapshot.place(*id) {
                        near.add(at, *count);
                    }
                }
            }
        });
        state.existing = existing.into_values().collect();
        let skip = state.near.is_empty() && state.far.is_empty() && state.existing.is_empty();
        cycle.affinity = state;
        if skip { PreFilter::Skip } else { PreFilter::All }
    }

    fn filter(&self, _pod: &PodInfo, node: &NodeState, cycle: &Cycle<'_>) -> Result<(), Refusal> {
        let (state, at) = (&cycle.affinity, node.place());
        if !state.near.is_empty() {
            let labelled = state.near.iter().all(|near| near.on(at).is_some());
            let there = labelled && state.near.iter().all(|near| near.on(at).is_some_and(|n| n > 0));
            // The first of pods that want to be together may be anywhere.
            let first = || state.own && state.near.iter().all(|near| near.pods.iter().all(|n| *n == 0));
            if !(there || labelled && first()) {
                return Err(Refusal::for_good(AFFINITY));
            }
        }
        if state.far.iter().any(|far| far.on(at).is_some_and(|n| n > 0)) {
            return Err(Refusal::because(ANTI_AFFINITY));
        }
        if state.existing.iter().any(|near| near.on(at).is_some_and(|n| n > 0)) {
            return Err(Refusal::because(EXISTING));
        }
        Ok(())
    }

    fn add_pod(&self, pod: &PodInfo, other: &PodInfo, node: &NodeState, cycle: &mut Cycle<'_>) {
        shift(pod, other, node, cycle, Near::add);
    }

    fn remove_pod(&self, pod: &PodInfo, other: &PodInfo, node: &NodeState, cycle: &mut Cycle<'_>) {
        shift(pod, other, node, cycle, Near::take);
    }

    fn events(&self) -> u16 {
        NODES | POD_LEFT | POD_PLACED | NAMESPACE
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let affinity = &pod.pod_affinity;
        // Labels of namespaces are not at hand here: a term that looks at them may speak of any.
        let may = |term: &AffinityTerm, pod: &PodInfo| {
            let any = term.term.namespace_selector.is_some() && term.term.selector.matches(pod.labels());
            any || term.term.matches(pod.labels(), pod.namespace(), None)
        };
        let keys = || affinity.required.iter().chain(&affinity.required_anti).map(|t| &t.topology_key);
        match event {
            Event::PodPlaced(other) => {
                !affinity.required.is_empty() && affinity.required.iter().all(|t| may(t, other))
            }
            Event::PodLeft { pod: other, .. } => {
                affinity.required_anti.iter().any(|t| may(t, other))
                    || other.pod_affinity.required_anti.iter().any(|t| may(t, pod))
            }
            Event::NodeAdded(_) => true,
            Event::NodeUpdated { old, new } => {
                keys().any(|key| old.label(key) != new.label(key))
                    || keys().next().is_none() && old.rest.labels != new.rest.labels
            }
            Event::NodeRemoved(_) | Event::Storage { .. } => false,
            Event::Namespace => true,
        }
    }
}

fn shift(
    pod: &PodInfo,
    other: &PodInfo,
    node: &NodeState,
    cycle: &mut Cycle<'_>,
    by: impl Fn(&mut Near, usize, u32),
) {
    let (namespaces, at) = (cycle.snapshot.namespaces(), node.place());
    let state = &mut cycle.affinity;
    if !state.near.is_empty() && all_of(&pod.pod_affinity.required).matches(other, namespaces) {
        state.near.iter_mut().for_each(|near| by(near, at, 1));
    }
    for (far, term) in state.far.iter_mut().zip(&pod.pod_affinity.required_anti) {
        if speaks_of(&term.term, other, namespaces) {
            by(far, at, 1);
        }
    }
    for term in &other.pod_affinity.required_anti {
        if speaks_of(&term.term, pod, namespaces)
            && let Some(near) = state.existing.iter_mut().find(|near| near.key == term.topology_key)
        {
            by(near, at, 1);
        }
    }
}

impl Score for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn pre_score(&self, pod: &PodInfo, _feasible: &[usize], cycle: &mut Cycle<'_>) -> bool {
        let snapshot = cycle.snapshot;
        let affinity = &pod.pod_affinity;
        let mut likings: HashMap<Arc<str>, Liking> = HashMap::new();
        let mut add = |key: &Arc<str>, at: usize, score: i64| {
            let liking = likings.entry(key.clone()).or_insert_with(|| {
                let column = snapshot.column(key);
                Liking { of_node: column.of_node, scores: vec![0; column.domains] }
            });
            if let Some(sum) = liking.scores.get_mut(liking.of_node[at] as usize) {
                *sum += score;
            }
        };
        let wishes = affinity.preferred.iter().map(|(weight, term)| (*weight, term));
        let aversions = affinity.preferred_anti.iter().map(|(weight, term)| (-*weight, term));
        for (weight, term) in wishes.chain(aversions) {
            let counts = snapshot.count(&one(term));
            for (at, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                add(&term.topology_key, at, i64::from(weight) * i64::from(*count));
            }
        }
        let no_wishes = affinity.preferred.is_empty() && affinity.preferred_anti.is_empty();
        snapshot.carried(|carried, nodes| {
            let weight = match carried.strength {
                Strength::RequiredAnti => 0,
                Strength::Required => self.hard_weight,
                Strength::Preferred(_) if self.ignore_preferred && no_wishes => 0,
                Strength::Preferred(weight) => weight,
            };
            if weight != 0 && speaks_of(&carried.term.term, pod, snapshot.namespaces()) {
                for (id, count) in nodes {
                    if let Some(at) = snapshot.place(*id) {
                        add(&carried.term.topology_key, at, i64::from(weight) * i64::from(*count));
                    }
                }
            }
        });
        cycle.affinity.likings = likings.into_values().collect();
        !cycle.affinity.likings.is_empty()
    }

    fn score(&self, _pod: &PodInfo, node: &NodeState, cycle: &Cycle<'_>) -> i64 {
        let of = |liking: &Liking| liking.scores.get(liking.of_node[node.place()] as usize).copied();
        cycle.affinity.likings.iter().filter_map(of).sum()
    }

    fn normalize(&self, scores: &mut [i64], _cycle: &Cycle<'_>) {
        let (least, most) = (scores.iter().min().copied(), scores.iter().max().copied());
        let (Some(least), Some(most)) = (least, most) else { return };
        for score in scores {
            *score = if most == least { 0 } else { MAX_SCORE * (*score - least) / (most - least) };
        }
    }
}

#[cfg(test)]
mod tests;
