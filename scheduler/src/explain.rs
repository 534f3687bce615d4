//! The last decision about each pod, for those who ask why.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::profile::Profile;
use crate::schedule::{Entry, Verdict};
use crate::snapshot::Snapshot;

/// How many nodes' verdicts are kept in all; at 16 bytes each 3 MB at most.
const KEPT_ENTRIES: usize = 200_000;
/// How many decisions are kept at most.
const KEPT: usize = 2_000;

/// A decision.
#[derive(Clone, Debug)]
pub struct Decision {
    /// `namespace/name` of the pod.
    pub key: String,
    /// Tells pods of one name apart.
    pub uid: Arc<str>,
    /// When it was made, in RFC 3339.
    pub time: String,
    /// The place of the profile by which it was made.
    pub profile: usize,
    /// The node, if one was found.
    pub node: Option<Arc<str>>,
    /// What users were told.
    pub message: String,
    /// How many nodes there were.
    pub nodes: usize,
    /// What was found out about those that were looked at.
    pub entries: Vec<Entry>,
    /// The reasons for which they were refused, as administrators may read them.
    pub reasons: Vec<Vec<String>>,
    /// How many were not looked at one by one, and why.
    pub others: Option<(usize, String)>,
}

/// A bounded number of decisions, the latest one of each pod.
#[derive(Debug, Default)]
pub struct Explain {
    decisions: HashMap<String, (u64, Decision)>,
    /// In the order in which they were made; those that were replaced are skipped.
    order: VecDeque<(u64, String)>,
    entries: usize,
    count: u64,
}

impl Explain {
    /// Keeps a decision.
    pub fn record(&mut self, decision: Decision) {
        let key = decision.key.clone();
        self.count += 1;
        self.entries += decision.entries.len();
        self.order.push_back((self.count, key.clone()));
        if let Some((_, old)) = self.decisions.insert(key, (self.count, decision)) {
            self.entries -= old.entries.len();
        }
        // The newest stays, however large.
        while (self.entries > KEPT_ENTRIES || self.decisions.len() > KEPT || self.order.len() > 4 * KEPT)
            && self.order.len() > 1
        {
            let Some((count, key)) = self.order.pop_front() else { return };
            if self.decisions.get(&key).is_some_and(|(latest, _)| *latest == count)
                && let Some((_, gone)) = self.decisions.remove(&key)
            {
                self.entries -= gone.entries.len();
            }
        }
    }

    /// Forgets everything: nodes have new ids.
    pub fn clear(&mut self) {
        *self = Self { count: self.count, ..Self::default() };
    }

    /// The last decision about the pod `namespace/name`, as JSON.
    pub fn show(&self, key: &str, snapshot: &Snapshot, profiles: &[Profile]) -> Option<Value> {
        let (_, decision) = self.decisions.get(key)?;
        let profile = profiles.get(decision.profile)?;
        let entries = decision.entries.iter();
        let nodes = entries.map(|entry| show(entry, snapshot.name_of(entry.node), profile, decision));
        let others = decision.others.as_ref().map(|(n, reason)| json!({"count": n, "reason": reason}));
        Some(json!({
            "pod": key,
            "uid": &*decision.uid,
            "schedulerName": profile.name,
            "time": decision.time,
            "node": decision.node.as_deref(),
            "message": decision.message,
            "totalNodes": decision.nodes,
            "evaluatedNodes": decision.entries.len(),
            "nodes": nodes.collect::<Vec<_>>(),
            "otherNodes": others,
        }))
    }
}

fn show(entry: &Entry, node: &str, profile: &Profile, decision: &Decision) -> Value {
    match &entry.verdict {
        Verdict::Refused { filter, reason } => {
            let filter = profile.filters.get(usize::from(*filter)).map(|filter| filter.name());
            let reasons = decision.reasons.get(usize::from(*reason));
            json!({"name": node, "filter": filter, "reasons": reasons})
        }
        Verdict::Scored(scores) => {
            let weighted = || profile.scores.iter().zip(scores).map(|(p, s)| (p, i64::from(*s) * p.weight));
            let named = weighted().map(|(p, score)| (p.plugin.name().to_owned(), json!(score)));
            let total: i64 = weighted().map(|(_, score)| score).sum();
            json!({"name": node, "scores": Value::Object(named.collect()), "total": total,
                "chosen": decision.node.as_deref() == Some(node)})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::node;
    use crate::profile::MOST;

    fn decision(name: &str, nodes: u32) -> Decision {
        let entry = |node| Entry { node, verdict: Verdict::Refused { filter: 0, reason: 0 } };
        Decision {
            key: format!("default/{name}"),
            uid: "u".into(),
            time: "2026-01-01T00:00:00Z".into(),
            profile: 0,
            node: None,
            message: String::new(),
            nodes: nodes as usize,
            entries: (0..nodes).map(entry).collect(),
            reasons: vec![vec!["node(s) were unschedulable".to_owned()]],
            others: None,
        }
    }

    fn show(explain: &Explain, key: &str) -> Option<Value> {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(&node("a").build());
        snapshot.set_node(&node("b").build());
        explain.show(key, &snapshot, &[Profile::default()])
    }

    #[test]
    fn memory_is_bounded_and_the_latest_stay() {
        let mut explain = Explain::default();
        for i in 0..3 * KEPT {
            explain.record(decision(&format!("p{}", i % (2 * KEPT)), 3));
            explain.record(decision("same", 3));
        }
        assert!(explain.decisions.len() <= KEPT && explain.order.len() <= 4 * KEPT + 1);
        let held = explain.decisions.values().map(|(_, d)| d.entries.len()).sum::<usize>();
        assert_eq!(explain.entries, held);
        assert!(show(&explain, "default/same").is_some());
        explain.record(decision("huge", 2 * u32::try_from(KEPT_ENTRIES).unwrap()));
        assert_eq!(explain.decisions.len(), 1);
        assert_eq!(show(&explain, "default/huge").unwrap()["evaluatedNodes"], 2 * KEPT_ENTRIES);
    }

    #[test]
    fn an_entry_is_small() {
        assert!(std::mem::size_of::<Entry>() <= 16);
    }

    #[test]
    fn a_decision_names_the_filter_and_the_scores() {
        let mut explain = Explain::default();
        let mut scored = decision("p", 1);
        scored.node = Some("b".into());
        let mut scores = [0; MOST];
        (scores[0], scores[4], scores[5]) = (100, 95, 50);
        scored.entries.push(Entry { node: 1, verdict: Verdict::Scored(scores) });
        explain.record(scored);
        let shown = show(&explain, "default/p").unwrap();
        assert_eq!(shown["schedulerName"], "default-scheduler");
        assert_eq!((&shown["nodes"][0]["name"], &shown["nodes"][1]["name"]), (&json!("a"), &json!("b")));
        assert_eq!(shown["nodes"][0]["filter"], "NodeUnschedulable");
        assert_eq!(shown["nodes"][0]["reasons"], json!(["node(s) were unschedulable"]));
        assert_eq!(shown["nodes"][1]["scores"]["TaintToleration"], 300);
        assert_eq!(shown["nodes"][1]["scores"]["NodeResourcesFit"], 95);
        assert_eq!((&shown["nodes"][1]["total"], &shown["nodes"][1]["chosen"]), (&json!(445), &json!(true)));
    }
}
