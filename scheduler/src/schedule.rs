//! One decision: which node for this pod, or why none. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::cluster::Cluster;
use crate::framework::{Cycle, PreFilter, Reason, Refusal};
use crate::pod::PodInfo;
use crate::profile::{MOST, Profile};
use crate::snapshot::{NodeState, Snapshot};

/// With fewer nodes than this, all are looked at.
const MIN_FEASIBLE: usize = 100;
/// The least share of the nodes that is looked for, in hundredths.
const MIN_PERCENTAGE: usize = 5;

/// Some of a profile's filters, by their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterSet(u32);

impl FilterSet {
    /// Adds a filter.
    pub fn insert(&mut self, filter: usize) {
        self.0 |= 1 << filter;
    }

    /// Takes a filter out.
    pub fn remove(&mut self, filter: usize) {
        self.0 &= !(1 << filter);
    }

    /// Whether a filter is among them.
    pub fn contains(self, filter: usize) -> bool {
        self.0 & (1 << filter) != 0
    }

    /// The places.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..32).filter(move |i| self.contains(*i))
    }

    /// All filters of a profile.
    pub fn all(profile: &Profile) -> Self {
        let mut all = Self::default();
        (0..profile.filters.len()).for_each(|filter| all.insert(filter));
        all
    }
}

/// What was found out about one node, in few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A filter refused it.
    Refused {
        /// The filter's place in the profile.
        filter: u8,
        /// The place of the reason among [`Findings::reasons`].
        reason: u16,
    },
    /// It can run the pod, and is worth this much to each of the profile's scores, before weights.
    Scored([u8; MOST]),
}

/// A node, by its id, and what was found out about it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The id.
    pub node: u32,
    /// What was found out.
    pub verdict: Verdict,
}

/// What was found out about the nodes that were looked at.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Node by node.
    pub entries: Vec<Entry>,
    /// The reasons for which nodes were refused, and how many were.
    pub reasons: Vec<(Refusal, usize)>,
}

impl Findings {
    fn refused(&mut self, node: u32, filter: usize, refusal: Refusal) {
        let known = self.reasons.iter().position(|(reason, _)| *reason == refusal);
        let place = known.unwrap_or_else(|| {
            self.reasons.push((refusal, 0));
            self.reasons.len() - 1
        });
        self.reasons[place].1 += 1;
        let filter = u8::try_from(filter).unwrap_or(u8::MAX);
        let reason = u16::try_from(place).unwrap_or(u16::MAX);
        self.entries.push(Entry { node, verdict: Verdict::Refused { filter, reason } });
    }

    /// The reasons as administrators may read them.
    pub fn texts(&self, pod: &PodInfo) -> Vec<Vec<String>> {
        let one = |(refusal, _): &(Refusal, usize)| {
            let texts = refusal.reason.texts(pod).into_iter();
            let detailed = texts.map(|text| match refusal.reason.detail() {
                Some(detail) => format!("{text} {detail}"),
                None => text.into_owned(),
            });
            detailed.collect()
        };
        self.reasons.iter().map(one).collect()
    }

    /// The ids of nodes that were refused only for the pods that are there.
    pub fn resolvable(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().filter_map(|entry| match entry.verdict {
            Verdict::Refused { reason, .. } => self
                .reasons
                .get(usize::from(reason))
                .filter(|(refusal, _)| refusal.resolvable)
                .map(|_| entry.node),
            Verdict::Scored(_) => None,
        })
    }
}

/// Why no node was found.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// How many nodes there are.
    pub nodes: usize,
    /// Everything that was refused.
    pub findings: Findings,
    /// What refused the pod for so many nodes that were not looked at one by one.
    pub others: Option<(usize, Reason)>,
    /// What refuses the pod whatever the node.
    pub whole: Option<Reason>,
    /// The filters that refused anything.
    pub refused_by: FilterSet,
}

/// Counts how often each phrase occurs, and writes them as upstream does: sorted as finished text.
pub fn counted<'a>(
    phrases: impl Iterator<Item = (std::borrow::Cow<'a, str>, usize)>,
    nodes: usize,
) -> String {
    let mut counts: BTreeMap<std::borrow::Cow<'a, str>, usize> = BTreeMap::new();
    phrases.for_each(|(phrase, n)| *counts.entry(phrase).or_default() += n);
    let mut finished: Vec<String> = counts.into_iter().map(|(phrase, n)| format!("{n} {phrase}")).collect();
    finished.sort();
    let mut text = format!("0/{nodes} nodes are available");
    if !finished.is_empty() {
        text = format!("{text}: {}", finished.join(", "));
    }
    text + "."
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        if let Some(whole) = &self.whole {
            let texts = whole.texts(&self.pod);
            return write!(f, "0/{} nodes are available: {}.", self.nodes, texts.join(", "));
        }
        let reasons = self.findings.reasons.iter().map(|(refusal, n)| (&refusal.reason, *n));
        let others = self.others.iter().map(|(n, reason)| (reason, *n));
        let phrases = reasons
            .chain(others)
            .flat_map(|(reason, n)| reason.texts(&self.pod).into_iter().map(move |text| (text, n)));
        f.write_str(&counted(phrases, self.nodes))
    }
}

/// A node that was found.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Its name.
    pub node: Arc<str>,
    /// What was found out about all that were looked at.
    pub findings: Findings,
}

/// Pods for which room is being made, and where.
#[derive(Debug, Default)]
pub struct Nominated {
    pods: HashMap<Arc<str>, (Arc<PodInfo>, Arc<str>)>,
    by_node: HashMap<Arc<str>, Vec<Arc<str>>>,
}

impl Nominated {
    /// Room is made for the pod on the node.
    pub fn set(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove(&pod.uid.clone());
        let node: Arc<str> = node.into();
        self.by_node.entry(node.clone()).or_default().push(pod.uid.clone());
        self.pods.insert(pod.uid.clone(), (pod, node));
    }

    /// No room is made for the pod any more.
    pub fn remove(&mut self, uid: &str) {
        let Some((_, node)) = self.pods.remove(uid) else { return };
        if let Some(uids) = self.by_node.get_mut(&node) {
            uids.retain(|other| **other != *uid);
            if uids.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    /// Where room is made for the pod.
    pub fn of(&self, uid: &str) -> Option<&Arc<str>> {
        self.pods.get(uid).map(|(_, node)| node)
    }

    /// The pods for which room is made on the node.
    pub fn on(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        let uids = if self.pods.is_empty() { None } else { self.by_node.get(node) };
        uids.into_iter().flatten().filter_map(|uid| self.pods.get(uid)).map(|(pod, _)| pod)
    }
}

/// What a pod is decided by, once it has been looked at as a whole.
pub struct Search<'a> {
    /// The pod.
    pub pod: &'a Arc<PodInfo>,
    /// Its profile.
    pub profile: &'a Profile,
    /// What the plugins have worked out.
    pub cycle: Cycle<'a>,
    /// Pods for which room is being made.
    pub nominated: &'a Nominated,
    /// The filters that have something to say.
    pub active: FilterSet,
}

/// What all filters together say before they look at single nodes.
enum Outlook {
    Open,
    Only { filters: FilterSet, places: Vec<usize> },
    Closed { filter: usize, reason: Reason },
}

impl<'a> Search<'a> {
    fn begin(
        pod: &'a Arc<PodInfo>,
        profile: &'a Profile,
        snapshot: &'a Snapshot,
        cluster: &'a Cluster,
        nominated: &'a Nominated,
    ) -> (Self, Outlook) {
        let cycle = Cycle::new(snapshot, cluster);
        let mut search = Self { pod, profile, cycle, nominated, active: FilterSet::all(profile) };
        let mut only: Option<(FilterSet, Vec<usize>)> = None;
        for (place, filter) in profile.filters.iter().enumerate() {
            match filter.pre_filter(pod, &mut search.cycle) {
                PreFilter::All => {}
                PreFilter::Skip => search.active.remove(place),
                PreFilter::Refuse(reason) => return (search, Outlook::Closed { filter: place, reason }),
                PreFilter::Only(mut places) => {
                    let (mut filters, earlier) = only.take().unwrap_or_default();
                    if filters != FilterSet::default() {
                        places.retain(|p| earlier.contains(p));
                    }
                    filters.insert(place);
                    only = Some((filters, places));
                }
            }
        }
        let outlook = only.map_or(Outlook::Open, |(filters, places)| Outlook::Only { filters, places });
        (search, outlook)
    }

    /// Whether the pod can run on the node, also beside those for which room is made there.
    pub fn fits(&self, node: &NodeState) -> Result<(), (usize, Refusal)> {
        let ahead = |other: &&Arc<PodInfo>| other.priority >= self.pod.priority && other.uid != self.pod.uid;
        if self.nominated.on(node.name()).any(|other| ahead(&other)) {
            let (mut full, mut cycle) = (node.clone(), self.cycle.clone());
            for other in self.nominated.on(node.name()).filter(ahead) {
                full.take(other);
                for (_, filter) in self.filters() {
                    filter.add_pod(self.pod, other, node, &mut cycle);
                }
            }
            self.passes(&full, &cycle)?;
        }
        self.passes(node, &self.cycle)
    }

    fn filters(&self) -> impl Iterator<Item = (usize, &'a dyn crate::framework::Filter)> + use<'a> {
        let (active, filters) = (self.active, &self.profile.filters);
        filters.iter().enumerate().filter(move |(i, _)| active.contains(*i)).map(|(i, f)| (i, &**f))
    }

    fn passes(&self, node: &NodeState, cycle: &Cycle<'_>) -> Result<(), (usize, Refusal)> {
        for (place, filter) in self.filters() {
            filter.filter(self.pod, node, cycle).map_err(|refusal| (place, refusal))?;
        }
        Ok(())
    }

    /// What if this pod were on the node, too?
    pub fn add_pod(&mut self, other: &Arc<PodInfo>, node: &mut NodeState) {
        node.take(other);
        for (_, filter) in self.filters() {
            filter.add_pod(self.pod, other, node, &mut self.cycle);
        }
    }

    /// What if this pod were not on the node?
    pub fn remove_pod(&mut self, other: &PodInfo, node: &mut NodeState) {
        node.give_back(other);
        for (_, filter) in self.filters() {
            filter.remove_pod(self.pod, other, node, &mut self.cycle);
        }
    }

    /// The same pod on other assumptions.
    pub fn suppose(&self) -> Self {
        Self {
            pod: self.pod,
            profile: self.profile,
            cycle: self.cycle.clone(),
            nominated: self.nominated,
            active: self.active,
        }
    }

    /// Begins anew, to see what preemption could do for a pod that was decided in vain.
    pub fn again(
        pod: &'a Arc<PodInfo>,
        profile: &'a Profile,
        snapshot: &'a Snapshot,
        cluster: &'a Cluster,
        nominated: &'a Nominated,
    ) -> Self {
        Self::begin(pod, profile, snapshot, cluster, nominated).0
    }
}

/// What a decision remembers for the next one.
pub struct Scheduler {
    /// Where the next search begins, so that all nodes get their turn.
    cursor: usize,
    /// Breaks ties.
    pub rng: SmallRng,
    feasible: Vec<usize>,
    scores: Vec<i64>,
    totals: Vec<i64>,
}

impl Scheduler {
    /// A scheduler whose ties are broken by this generator.
    pub fn new(rng: SmallRng) -> Self {
        Self { cursor: 0, rng, feasible: Vec::new(), scores: Vec::new(), totals: Vec::new() }
    }

    /// Decides where a pod should run.
    pub fn decide(
        &mut self,
        pod: &Arc<PodInfo>,
        profile: &Profile,
        snapshot: &Snapshot,
        cluster: &Cluster,
        nominated: &Nominated,
    ) -> Result<Placement, Box<Diagnosis>> {
        let (mut search, outlook) = Search::begin(pod, profile, snapshot, cluster, nominated);
        let total = snapshot.nodes().len();
        let mut diagnosis = Diagnosis {
            pod: pod.clone(),
            nodes: total,
            findings: Findings::default(),
            others: None,
            whole: None,
            refused_by: FilterSet::default(),
        };
        if total == 0 {
            // A first node may be what all filters wait for.
            diagnosis.refused_by = FilterSet::all(profile);
            return Err(Box::new(diagnosis));
        }
        self.feasible.clear();
        // Where room was made for it, it goes if it can.
        let made = nominated.of(&pod.uid).and_then(|node| snapshot.node(node));
        if let (Some(node), Outlook::Open) = (made, &outlook)
            && search.fits(node).is_ok()
        {
            self.feasible.push(node.place());
            return Ok(self.choose(&mut search, Findings::default()));
        }
        match outlook {
            Outlook::Closed { filter, reason } => {
                diagnosis.refused_by.insert(filter);
                diagnosis.whole = Some(reason);
            }
            Outlook::Only { filters, places } => {
                for place in &places {
                    self.look_at(&search, &snapshot.nodes()[*place], &mut diagnosis);
                }
                if self.feasible.is_empty() {
                    let names: Vec<_> = filters.iter().map(|filter| profile.filters[filter].name()).collect();
                    filters.iter().for_each(|filter| diagnosis.refused_by.insert(filter));
                    let reason = format!("node(s) didn't satisfy plugin(s) [{}]", names.join(" "));
                    let others = total.saturating_sub(places.len());
                    diagnosis.others = (others > 0).then(|| (others, Reason::Shared(reason.into())));
                }
            }
            Outlook::Open => {
                let wanted = wanted(profile.percentage, total);
                diagnosis.findings.entries.reserve(wanted);
                let mut looked_at = 0;
                while looked_at < total && self.feasible.len() < wanted {
                    let mut place = self.cursor + looked_at;
                    if place >= total {
                        place %= total;
                    }
                    looked_at += 1;
                    self.look_at(&search, &snapshot.nodes()[place], &mut diagnosis);
                }
                if !self.feasible.is_empty() {
                    self.cursor = (self.cursor + looked_at) % total;
                }
            }
        }
        if self.feasible.is_empty() {
            return Err(Box::new(diagnosis));
        }
        Ok(self.choose(&mut search, diagnosis.findings))
    }

    fn look_at(&mut self, search: &Search<'_>, node: &NodeState, diagnosis: &mut Diagnosis) {
        match search.fits(node) {
            Ok(()) => self.feasible.push(node.place()),
            Err((filter, refusal)) => {
                diagnosis.refused_by.insert(filter);
                diagnosis.findings.refused(node.id, filter, refusal);
            }
        }
    }

    fn choose(&mut self, search: &mut Search<'_>, mut findings: Findings) -> Placement {
        let (pod, nodes) = (search.pod, search.cycle.snapshot.nodes());
        self.totals.clear();
        self.totals.resize(self.feasible.len(), 0);
        let first = findings.entries.len();
        let blank = Verdict::Scored([0; MOST]);
        findings.entries.extend(self.feasible.iter().map(|i| Entry { node: nodes[*i].id, verdict: blank }));
        for (place, weighted) in search.profile.scores.iter().enumerate() {
            let plugin = &weighted.plugin;
            if !plugin.pre_score(pod, &self.feasible, &mut search.cycle) {
                continue;
            }
            let cycle = &search.cycle;
            self.scores.clear();
            self.scores.extend(self.feasible.iter().map(|i| plugin.score(pod, &nodes[*i], cycle)));
            plugin.normalize(&mut self.scores, cycle);
            for (i, score) in self.scores.iter().enumerate() {
                self.totals[i] += score * weighted.weight;
                if let Verdict::Scored(scores) = &mut findings.entries[first + i].verdict {
                    scores[place] = u8::try_from((*score).max(0)).unwrap_or(u8::MAX);
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
        Placement { node: nodes[self.feasible[chosen]].name().clone(), findings }
    }
}

/// How many feasible nodes are enough, as `percentageOfNodesToScore` documents it.
fn wanted(percentage: usize, total: usize) -> usize {
    if total < MIN_FEASIBLE {
        return total;
    }
    let percentage = match percentage {
        0 => 50usize.saturating_sub(total / 125).max(MIN_PERCENTAGE),
        fixed => fixed.min(100),
    };
    (total * percentage / 100).max(MIN_FEASIBLE)
}

#[cfg(test)]
mod tests;
