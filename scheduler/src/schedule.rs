//! One decision: which node for this pod, or why none. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::framework::{PreFilter, Reason, Status};
use crate::plugins::{FILTERS, SCORES};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// With fewer nodes than this, all are looked at.
const MIN_FEASIBLE: usize = 100;
/// The least share of the nodes that is looked for, in hundredths.
const MIN_PERCENTAGE: usize = 5;

/// A set of [`FILTERS`], by their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterSet(u32);

impl FilterSet {
    /// Adds a filter.
    pub fn insert(&mut self, filter: usize) {
        self.0 |= 1 << filter;
    }

    /// The places.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..FILTERS.len()).filter(move |i| self.0 & (1 << i) != 0)
    }
}

/// What was found out about one node.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// This filter refused it.
    Refused {
        /// Its place in [`FILTERS`].
        filter: usize,
        /// Why.
        status: Status,
    },
    /// It can run the pod, and is worth this much to each of [`SCORES`], weighted.
    Scored([i32; SCORES.len()]),
}

/// What was found out about the nodes that were looked at.
pub type Verdicts = Vec<(Arc<str>, Verdict)>;

/// Why no node was found.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// Everything that was refused.
    pub verdicts: Verdicts,
    /// What refused the pod for nodes that were not looked at one by one.
    pub others: Option<(usize, Status)>,
    /// The filters that refused anything.
    pub refused_by: FilterSet,
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, verdict) in &self.verdicts {
            if let Verdict::Refused { status, .. } = verdict {
                status.reasons().iter().for_each(|reason| *counts.entry(reason.as_str()).or_default() += 1);
            }
        }
        if let Some((n, status)) = &self.others {
            status.reasons().iter().for_each(|reason| *counts.entry(reason.as_str()).or_default() += n);
        }
        // Upstream sorts the finished phrases as text.
        let mut phrases: Vec<String> =
            counts.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        phrases.sort();
        write!(f, "0/{} nodes are available", self.nodes)?;
        if !phrases.is_empty() {
            write!(f, ": {}", phrases.join(", "))?;
        }
        f.write_str(".")
    }
}

/// A node that was found.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Its name.
    pub node: Arc<str>,
    /// What was found out about all that were looked at.
    pub verdicts: Verdicts,
}

/// What a decision remembers for the next one.
pub struct Scheduler {
    /// Where the next search begins, so that all nodes get their turn.
    cursor: usize,
    rng: SmallRng,
    /// `percentageOfNodesToScore`; 0 adapts to the number of nodes.
    percentage: usize,
    feasible: Vec<usize>,
    scores: Vec<i64>,
    totals: Vec<i64>,
}

impl Scheduler {
    /// A scheduler whose ties are broken by this generator.
    pub fn new(rng: SmallRng, percentage: usize) -> Self {
        Self { cursor: 0, rng, percentage, feasible: Vec::new(), scores: Vec::new(), totals: Vec::new() }
    }

    /// Decides where a pod should run.
    pub fn decide(&mut self, pod: &PodInfo, snapshot: &Snapshot) -> Result<Placement, Box<Diagnosis>> {
        let mut search = Search {
            active: [true; FILTERS.len()],
            only: None,
            verdicts: Vec::new(),
            refused_by: FilterSet::default(),
        };
        search.pre_filter(pod, snapshot);
        self.feasible.clear();
        let total = snapshot.nodes().len();
        match search.only.take() {
            Some((filter, positions)) => {
                for position in &positions {
                    if search.look_at(pod, snapshot, *position) {
                        self.feasible.push(*position);
                    }
                }
                if self.feasible.is_empty() {
                    return Err(search.none(total, Some((filter, positions.len()))));
                }
            }
            None => {
                let wanted = self.wanted(total);
                let mut looked_at = 0;
                while looked_at < total && self.feasible.len() < wanted {
                    let position = (self.cursor + looked_at) % total;
                    looked_at += 1;
                    if search.look_at(pod, snapshot, position) {
                        self.feasible.push(position);
                    }
                }
                if self.feasible.is_empty() {
                    return Err(search.none(total, None));
                }
                self.cursor = (self.cursor + looked_at) % total;
            }
        }
        Ok(self.choose(pod, snapshot, search.verdicts))
    }

    /// How many feasible nodes are enough.
    fn wanted(&self, total: usize) -> usize {
        if total < MIN_FEASIBLE {
            return total;
        }
        let percentage = match self.percentage {
            0 => 50usize.saturating_sub(total / 125).max(MIN_PERCENTAGE),
            fixed => fixed.min(100),
        };
        (total * percentage / 100).max(MIN_FEASIBLE)
    }

    fn choose(&mut self, pod: &PodInfo, snapshot: &Snapshot, mut verdicts: Verdicts) -> Placement {
        let n = self.feasible.len();
        self.totals.clear();
        self.totals.resize(n, 0);
        let first = verdicts.len();
        let nodes = snapshot.nodes();
        let blank = Verdict::Scored([0; SCORES.len()]);
        verdicts.extend(self.feasible.iter().map(|i| (nodes[*i].name.clone(), blank.clone())));
        for (place, plugin) in SCORES.iter().enumerate().filter(|(_, plugin)| !plugin.skip(pod, snapshot)) {
            self.scores.clear();
            self.scores.extend(self.feasible.iter().map(|i| plugin.score(pod, &nodes[*i], snapshot)));
            plugin.normalize(&mut self.scores);
            for (i, score) in self.scores.iter().enumerate() {
                let weighted = score * plugin.weight();
                self.totals[i] += weighted;
                if let Verdict::Scored(scores) = &mut verdicts[first + i].1 {
                    scores[place] = i32::try_from(weighted).unwrap_or(i32::MAX);
                }
            }
        }
        let best = self.totals.iter().copied().max().unwrap_or(0);
        // Pods that ask for next to nothing score the same everywhere: then the fewest pods decide, so
        // that replicas spread, and only then chance.
        let pods = |i: usize| nodes[self.feasible[i]].requested.pods;
        let tied = || self.totals.iter().enumerate().filter(|(_, total)| **total == best).map(|(i, _)| i);
        let fewest = tied().map(pods).min().unwrap_or(0);
        let ties = tied().filter(|i| pods(*i) == fewest).count();
        let lucky = if ties > 1 { self.rng.random_range(0..ties) } else { 0 };
        let chosen = tied().filter(|i| pods(*i) == fewest).nth(lucky).unwrap_or(0);
        Placement { node: nodes[self.feasible[chosen]].name.clone(), verdicts }
    }
}

struct Search {
    /// Filters that have something to say about the pod.
    active: [bool; FILTERS.len()],
    /// The only nodes to look at, and the filter that says so.
    only: Option<(usize, Vec<usize>)>,
    verdicts: Verdicts,
    refused_by: FilterSet,
}

impl Search {
    fn pre_filter(&mut self, pod: &PodInfo, snapshot: &Snapshot) {
        for (place, filter) in FILTERS.iter().enumerate() {
            match filter.pre_filter(pod) {
                PreFilter::All => {}
                PreFilter::Skip => self.active[place] = false,
                PreFilter::Only(names) => {
                    let mut positions: Vec<usize> =
                        names.iter().filter_map(|n| snapshot.position(n)).collect();
                    if let Some((_, earlier)) = &self.only {
                        positions.retain(|p| earlier.contains(p));
                    }
                    self.only = Some((place, positions));
                }
            }
        }
    }

    /// Whether the pod can run there; if not, why is noted.
    fn look_at(&mut self, pod: &PodInfo, snapshot: &Snapshot, position: usize) -> bool {
        let node = &snapshot.nodes()[position];
        for (place, filter) in FILTERS.iter().enumerate() {
            if self.active[place]
                && let Err(status) = filter.filter(pod, node)
            {
                self.refused_by.insert(place);
                self.verdicts.push((node.name.clone(), Verdict::Refused { filter: place, status }));
                return false;
            }
        }
        true
    }

    fn none(mut self, nodes: usize, only: Option<(usize, usize)>) -> Box<Diagnosis> {
        let others = only.map(|(filter, looked_at)| {
            self.refused_by.insert(filter);
            let reason = Reason::Static("node(s) didn't satisfy plugin(s) [NodeAffinity]");
            (nodes.saturating_sub(looked_at), Status::Unschedulable(reason))
        });
        if nodes == 0 {
            // A first node may be what all filters wait for.
            (0..FILTERS.len()).for_each(|filter| self.refused_by.insert(filter));
        }
        let others = others.filter(|(n, _)| *n > 0);
        Box::new(Diagnosis { nodes, verdicts: self.verdicts, others, refused_by: self.refused_by })
    }
}

#[cfg(test)]
mod tests;
