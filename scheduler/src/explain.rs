//! The last decision about each pod, for those who ask why.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::plugins::{FILTERS, SCORES};
use crate::schedule::{Verdict, Verdicts};

/// How many nodes' verdicts are kept in all; at some 60 bytes each about 2 MB.
const KEPT_VERDICTS: usize = 30_000;
/// How many decisions are kept at most.
const KEPT: usize = 2_000;

/// A decision.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Tells pods of one name apart.
    pub uid: Arc<str>,
    /// When it was made, in RFC 3339.
    pub time: String,
    /// The node, if one was found.
    pub node: Option<Arc<str>>,
    /// What users were told.
    pub message: String,
    /// How many nodes there were.
    pub nodes: usize,
    /// What was found out about those that were looked at.
    pub verdicts: Verdicts,
}

/// A bounded number of decisions, the latest one of each pod.
#[derive(Debug, Default)]
pub struct Explain {
    decisions: HashMap<String, (u64, Decision)>,
    /// In the order in which they were made; those that were replaced are skipped.
    order: VecDeque<(u64, String)>,
    verdicts: usize,
    count: u64,
}

impl Explain {
    /// Keeps a decision about the pod `namespace/name`.
    pub fn record(&mut self, key: String, decision: Decision) {
        self.count += 1;
        self.verdicts += decision.verdicts.len();
        self.order.push_back((self.count, key.clone()));
        if let Some((_, old)) = self.decisions.insert(key, (self.count, decision)) {
            self.verdicts -= old.verdicts.len();
        }
        // The newest stays, however large.
        while (self.verdicts > KEPT_VERDICTS || self.decisions.len() > KEPT || self.order.len() > 4 * KEPT)
            && self.order.len() > 1
        {
            let Some((count, key)) = self.order.pop_front() else { return };
            if self.decisions.get(&key).is_some_and(|(latest, _)| *latest == count)
                && let Some((_, gone)) = self.decisions.remove(&key)
            {
                self.verdicts -= gone.verdicts.len();
            }
        }
    }

    /// The last decision about the pod `namespace/name`, as JSON.
    pub fn show(&self, key: &str) -> Option<Value> {
        let (_, decision) = self.decisions.get(key)?;
        let nodes = decision.verdicts.iter().map(|(node, verdict)| show(node, verdict, decision));
        Some(json!({
            "pod": key,
            "uid": &*decision.uid,
            "time": decision.time,
            "node": decision.node.as_deref(),
            "message": decision.message,
            "totalNodes": decision.nodes,
            "evaluatedNodes": decision.verdicts.len(),
            "nodes": nodes.collect::<Vec<_>>(),
        }))
    }
}

fn show(node: &str, verdict: &Verdict, decision: &Decision) -> Value {
    match verdict {
        Verdict::Refused { filter, status } => {
            let reasons: Vec<&str> = status.reasons().iter().map(|r| r.as_str()).collect();
            json!({"name": node, "filter": FILTERS[*filter].name(), "reasons": reasons})
        }
        Verdict::Scored(scores) => {
            let named =
                SCORES.iter().zip(scores).map(|(plugin, score)| (plugin.name().to_owned(), json!(score)));
            let total: i32 = scores.iter().sum();
            json!({"name": node, "scores": Value::Object(named.collect()), "total": total,
                "chosen": decision.node.as_deref() == Some(node)})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Status;

    fn decision(nodes: usize) -> Decision {
        let verdict =
            || Verdict::Refused { filter: 0, status: Status::because("node(s) were unschedulable") };
        Decision {
            uid: "u".into(),
            time: "2026-01-01T00:00:00Z".into(),
            node: None,
            message: String::new(),
            nodes,
            verdicts: (0..nodes).map(|i| (format!("n{i}").into(), verdict())).collect(),
        }
    }

    #[test]
    fn memory_is_bounded_and_the_latest_stay() {
        let mut explain = Explain::default();
        for i in 0..10 * KEPT {
            explain.record(format!("default/p{}", i % (2 * KEPT)), decision(3));
            explain.record("default/same".into(), decision(3));
        }
        assert!(explain.decisions.len() <= KEPT && explain.order.len() <= 4 * KEPT + 1);
        assert_eq!(
            explain.verdicts,
            explain.decisions.values().map(|(_, d)| d.verdicts.len()).sum::<usize>()
        );
        assert!(explain.show("default/same").is_some());
        explain.record("default/huge".into(), decision(2 * KEPT_VERDICTS));
        assert_eq!(explain.decisions.len(), 1);
        assert_eq!(explain.show("default/huge").unwrap()["evaluatedNodes"], 2 * KEPT_VERDICTS);
    }

    #[test]
    fn a_decision_names_the_filter_and_the_scores() {
        let mut explain = Explain::default();
        let mut scored = decision(1);
        scored.node = Some("b".into());
        scored.verdicts.push(("b".into(), Verdict::Scored([300, 0, 95, 50, 0])));
        explain.record("default/p".into(), scored);
        let shown = explain.show("default/p").unwrap();
        assert_eq!(shown["nodes"][0]["filter"], "NodeUnschedulable");
        assert_eq!(shown["nodes"][1]["scores"]["NodeResourcesFit"], 95);
        assert_eq!((&shown["nodes"][1]["total"], &shown["nodes"][1]["chosen"]), (&json!(445), &json!(true)));
    }
}
