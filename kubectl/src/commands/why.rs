//! `kubectl why`: what the scheduler found out about each node when it last decided about a pod.

use clap::Args;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::output::{print, println};
use crate::session::{Call, Session, encode};

/// Explain where a pod was scheduled, or why it was not: for each node the filter that refused it, or its
/// scores
#[derive(Args, Debug)]
pub struct Why {
    /// `pod NAME` or `pod/NAME`
    #[arg(value_name = "pod NAME | pod/NAME", required = true, num_args = 1..=2)]
    args: Vec<String>,
    /// Output format: json, or the table
    #[arg(long, short = 'o', value_parser = ["json"])]
    output: Option<String>,
}

impl Why {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let name = pod(&self.args)?;
        let namespace = session.namespace().await?;
        let call = Call::get(format!("/debug/decisions/{}/{}", encode(namespace), encode(name)));
        let decision = session.json(&call).await?;
        if self.output.is_some() {
            let text = serde_json::to_string_pretty(&decision).map_err(|e| Error::Plain(e.to_string()))?;
            return println(&text);
        }
        print(&render(&decision))
    }
}

/// The pod's name.
fn pod(args: &[String]) -> Result<&str> {
    let is_pod = |kind: &str| matches!(kind, "pod" | "pods" | "po");
    let (kind, name) = match args {
        [both] => both.split_once('/').unwrap_or(("pod", both)),
        [kind, name] => (kind.as_str(), name.as_str()),
        _ => ("", ""),
    };
    if !is_pod(kind) {
        return Err(Error::Plain(format!("error: {kind:?} is not scheduled: only pods are")));
    }
    Ok(name)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The decision as people read it: the best node first, the refused ones by their reasons.
fn render(decision: &Value) -> String {
    let number = |field: &str| decision[field].as_u64().unwrap_or(0);
    let mut lines = vec![
        format!("Pod:        {}", text(decision, "pod")),
        format!("Scheduler:  {}", text(decision, "schedulerName")),
        format!("Decided:    {}", text(decision, "time")),
        format!("Node:       {}", decision["node"].as_str().unwrap_or("<none>")),
        format!("Message:    {}", text(decision, "message")),
        format!("Looked at:  {} of {} nodes", number("evaluatedNodes"), number("totalNodes")),
    ];
    let nodes: &[Value] = decision["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut scored: Vec<&Value> = nodes.iter().filter(|node| node["total"].is_number()).collect();
    let chosen = |node: &Value| node["chosen"] == true;
    scored.sort_by_key(|n| (!chosen(n), -n["total"].as_i64().unwrap_or(0), text(n, "name").to_owned()));
    if let Some(first) = scored.first() {
        let plugins: Vec<&str> =
            first["scores"].as_object().map(|s| s.keys().map(String::as_str).collect()).unwrap_or_default();
        let mut rows =
            vec![["NODE", "TOTAL"].into_iter().chain(plugins.clone()).map(str::to_owned).collect()];
        for node in &scored {
            let mark = if chosen(node) { "*" } else { "" };
            let mut row = vec![format!("{}{mark}", text(node, "name")), node["total"].to_string()];
            row.extend(plugins.iter().map(|plugin| node["scores"][*plugin].to_string()));
            rows.push(row);
        }
        lines.push(String::new());
        lines.extend(columns(&rows));
    }
    let refused: Vec<&Value> = nodes.iter().filter(|node| node["filter"].is_string()).collect();
    let others = &decision["otherNodes"];
    if !refused.is_empty() || others.is_object() {
        let mut rows = vec![vec!["NODE".to_owned(), "REFUSED BY".to_owned(), "REASON".to_owned()]];
        for node in refused {
            let reasons = node["reasons"].as_array().into_iter().flatten();
            let reasons: Vec<&str> = reasons.filter_map(Value::as_str).collect();
            let (name, filter) = (text(node, "name"), text(node, "filter"));
            rows.push(vec![name.to_owned(), filter.to_owned(), reasons.join(", ")]);
        }
        if others.is_object() {
            rows.push(vec![
                format!("({} nodes)", others["count"]),
                String::new(),
                text(others, "reason").to_owned(),
            ]);
        }
        lines.push(String::new());
        lines.extend(columns(&rows));
    }
    lines.join("\n") + "\n"
}

fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let wide = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(wide).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_pods_are_scheduled() {
        let seen = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
            match pod(&args) {
                Ok(name) => name.to_owned(),
                Err(Error::Plain(text)) => text,
                Err(other) => panic!("{other:?}"),
            }
        };
        assert_eq!(seen(&["pod", "web"]), "web");
        assert_eq!(seen(&["po/web"]), "web");
        assert_eq!(seen(&["web"]), "web");
        assert_eq!(seen(&["deployment/web"]), r#"error: "deployment" is not scheduled: only pods are"#);
    }

    #[test]
    fn the_chosen_node_stands_first_and_refusals_say_why() {
        let decision = json!({"pod": "default/web", "schedulerName": "default-scheduler", "time": "T",
            "node": "b", "message": "Successfully assigned default/web to b", "totalNodes": 4, "evaluatedNodes": 3,
            "nodes": [
                {"name": "a", "scores": {"NodeResourcesFit": 90, "TaintToleration": 300}, "total": 390, "chosen": false},
                {"name": "b", "scores": {"NodeResourcesFit": 95, "TaintToleration": 300}, "total": 395, "chosen": true},
                {"name": "long-name", "filter": "NodeResourcesFit", "reasons": ["Insufficient cpu"]}],
            "otherNodes": {"count": 1, "reason": "node(s) didn't satisfy plugin(s) [NodeAffinity]"}});
        let expected = "\
Pod:        default/web
Scheduler:  default-scheduler
Decided:    T
Node:       b
Message:    Successfully assigned default/web to b
Looked at:  3 of 4 nodes

NODE   TOTAL   NodeResourcesFit   TaintToleration
b*     395     95                 300
a      390     90                 300

NODE        REFUSED BY         REASON
long-name   NodeResourcesFit   Insufficient cpu
(1 nodes)                      node(s) didn't satisfy plugin(s) [NodeAffinity]
";
        assert_eq!(render(&decision), expected);
    }
}
