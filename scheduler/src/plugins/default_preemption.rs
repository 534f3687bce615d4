//! DefaultPreemption: when no node was found, pods of lower priority make room, as few and as unimportant
//! ones as possible, and within their disruption budgets where that can be.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::cluster::Cluster;
use crate::framework::Refusal;
use crate::pod::PodInfo;
use crate::schedule::{Diagnosis, Search, counted};
use crate::snapshot::NodeState;

/// Upstream's name.
pub const NAME: &str = "DefaultPreemption";
/// The condition by which a victim learns why it goes.
pub const DISRUPTED: &str = "PreemptionByScheduler";

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// See the module.
#[derive(Clone, Debug)]
pub struct DefaultPreemption {
    /// `minCandidateNodesPercentage`.
    pub min_percentage: usize,
    /// `minCandidateNodesAbsolute`.
    pub min_absolute: usize,
}

impl Default for DefaultPreemption {
    fn default() -> Self {
        Self { min_percentage: 10, min_absolute: 100 }
    }
}

/// What preemption can do for a pod.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It may not be tried (again): whatever room is being made is waited for.
    Ineligible(String),
    /// No room can be made.
    Impossible(String),
    /// The pod goes to this node when these are gone.
    Nominated {
        /// The node.
        node: Arc<str>,
        /// Those who make room, the most important first.
        victims: Vec<Arc<PodInfo>>,
        /// Pods of lower priority for which room was being made there.
        displaced: Vec<Arc<PodInfo>>,
    },
}

/// A node on which room can be made.
#[derive(Debug)]
struct Candidate {
    node: Arc<str>,
    victims: Vec<Arc<PodInfo>>,
    /// How many of them disturb more than their budgets allow.
    violations: usize,
}

impl DefaultPreemption {
    /// Looks for room for a pod that was refused everywhere.
    pub fn preempt(&self, search: &Search<'_>, diagnosis: &Diagnosis, rng: &mut SmallRng) -> Outcome {
        if let Some(why) = ineligible(search, diagnosis) {
            return Outcome::Ineligible(why.to_owned());
        }
        let snapshot = search.cycle.snapshot;
        let nodes: Vec<&NodeState> = diagnosis
            .findings
            .resolvable()
            .filter_map(|id| snapshot.place(id))
            .map(|place| &snapshot.nodes()[place])
            .collect();
        let (mut candidates, mut failures): (Vec<Candidate>, Vec<Refusal>) = Default::default();
        let enough = self.enough(nodes.len());
        let offset = if nodes.is_empty() { 0 } else { rng.random_range(0..nodes.len()) };
        for node in nodes.iter().cycle().skip(offset).take(nodes.len()) {
            match victims(search, node) {
                Ok(candidate) => candidates.push(candidate),
                Err(refusal) => failures.push(refusal),
            }
            if candidates.len() >= enough && candidates.iter().any(|c| c.violations == 0) {
                break;
            }
        }
        let Some(best) = best(candidates) else {
            let hopeless = diagnosis.nodes - nodes.len();
            let hopeless = (hopeless > 0).then_some((Cow::Borrowed(NOT_HELPFUL), hopeless));
            let tried = failures.iter().flat_map(|r| r.reason.texts(search.pod)).map(|text| (text, 1));
            return Outcome::Impossible(counted(tried.chain(hopeless), diagnosis.nodes));
        };
        let displaced = search.nominated.on(&best.node);
        let displaced = displaced.filter(|pod| pod.priority < search.pod.priority).cloned().collect();
        Outcome::Nominated { node: best.node, victims: best.victims, displaced }
    }

    /// How many candidates are enough to choose from.
    fn enough(&self, nodes: usize) -> usize {
        (nodes * self.min_percentage / 100).max(self.min_absolute).min(nodes)
    }
}

fn ineligible(search: &Search<'_>, diagnosis: &Diagnosis) -> Option<&'static str> {
    let pod = search.pod;
    let policy = pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref());
    if policy == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let node = search.nominated.of(&pod.uid).and_then(|name| search.cycle.snapshot.node(name))?;
    // A node that has become unfit altogether is not waited for.
    if !diagnosis.findings.resolvable().any(|id| id == node.id) {
        return None;
    }
    let leaving = |other: &Arc<PodInfo>| other.priority < pod.priority && is_victim(other);
    node.pods().iter().any(leaving).then_some("not eligible due to a terminating pod on the nominated node.")
}

/// Whether a pod is on its way out to make room.
fn is_victim(pod: &PodInfo) -> bool {
    let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let told = |c: &api::openapi::api::core::v1::PodCondition| {
        c.type_ == "DisruptionTarget" && c.status == "True" && c.reason.as_deref() == Some(DISRUPTED)
    };
    pod.terminating && conditions.is_some_and(|list| list.iter().any(told))
}

/// Who would have to go from the node: all of lower priority, less those that can stay.
fn victims(search: &Search<'_>, node: &NodeState) -> Result<Candidate, Refusal> {
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods().iter().filter(|other| other.priority < search.pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(Refusal::for_good(NO_VICTIMS));
    }
    let (mut search, mut left) = (search.suppose(), node.clone());
    for other in &lower {
        search.remove_pod(other, &mut left);
    }
    search.fits(&left).map_err(|(_, refusal)| refusal)?;
    lower.sort_by_cached_key(|pod| importance(pod));
    let (violating, within) = by_budget(&lower, search.cycle.cluster);
    let mut candidate = Candidate { node: node.name().clone(), victims: Vec::new(), violations: 0 };
    for (pods, violates) in [(violating, 1), (within, 0)] {
        for pod in pods {
            search.add_pod(&pod, &mut left);
            if search.fits(&left).is_err() {
                search.remove_pod(&pod, &mut left);
                candidate.victims.push(pod);
                candidate.violations += violates;
            }
        }
    }
    candidate.victims.sort_by_cached_key(|pod| importance(pod));
    Ok(candidate)
}

/// When a pod began to run; one that has not is younger than all.
fn started(pod: &PodInfo) -> i64 {
    let time = pod.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    time.map_or(i64::MAX, |time| time.0.as_second())
}

/// The more important first: the higher priority, then the longer running.
fn importance(pod: &PodInfo) -> (Reverse<i32>, i64) {
    (Reverse(pod.priority), started(pod))
}

/// Those whose going would break a budget, and the others.
fn by_budget(pods: &[Arc<PodInfo>], cluster: &Cluster) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut spent: std::collections::HashMap<*const crate::cluster::Budget, i32> = Default::default();
    let mut violates = |pod: &&Arc<PodInfo>| {
        let mut violated = false;
        let selecting = cluster.budgets(pod.namespace()).filter(|budget| {
            !budget.selector.is_everything()
                && budget.selector.matches(pod.labels())
                && !budget.disrupted.iter().any(|name| name == api::meta::MetaExt::name(&*pod.pod))
        });
        for budget in selecting {
            let spent = spent.entry(std::ptr::from_ref(budget)).or_default();
            *spent += 1;
            violated |= *spent > budget.allowed;
        }
        violated
    };
    let mut sorted = (Vec::new(), Vec::new());
    for pod in pods {
        if violates(&pod) { sorted.0.push(pod.clone()) } else { sorted.1.push(pod.clone()) }
    }
    sorted
}

/// The candidate that does the least harm.
fn best(candidates: Vec<Candidate>) -> Option<Candidate> {
    // Priorities are shifted so that more victims are never a smaller sum.
    let sum = |c: &Candidate| {
        c.victims.iter().map(|pod| i64::from(pod.priority) + i64::from(i32::MAX) + 1).sum::<i64>()
    };
    let highest = |c: &Candidate| c.victims.first().map_or(i32::MIN, |pod| pod.priority);
    // Of the most important victims, the one that has run longest; the younger that is, the better.
    let oldest = |c: &Candidate| {
        let most = c.victims.iter().filter(|pod| pod.priority == highest(c));
        most.map(|pod| started(pod)).min().unwrap_or(i64::MAX)
    };
    let harm = |c: &Candidate| (c.violations, highest(c), sum(c), c.victims.len(), Reverse(oldest(c)));
    candidates.into_iter().min_by_key(harm)
}

#[cfg(test)]
mod tests;
