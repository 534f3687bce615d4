//! `kubectl taint`.

use clap::Args;
use serde_json::{Value, json};

use super::change::{ChangeArgs, send_patch};
use crate::apply::{MERGE, Patch};
use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::resource::targets::{self, Filter};
use crate::session::Session;

/// Update the taints on one or more nodes
#[derive(Args, Debug)]
pub struct Taint {
    /// nodes NAME... KEY[=VALUE]:EFFECT... or KEY[:EFFECT]-
    pub args: Vec<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Allow taints to be overwritten
    #[arg(long)]
    pub overwrite: bool,
    /// Select all nodes
    #[arg(long)]
    pub all: bool,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    pub selector: String,
}

/// What is done to a taint.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Add { key: String, value: String, effect: String },
    Remove { key: String, effect: Option<String> },
}

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

fn is_change(arg: &str) -> bool {
    arg.contains(':') || arg.contains('=') || (arg.ends_with('-') && arg.len() > 1)
}

fn parse(text: &str) -> Result<Change> {
    let bad = || Error::message(format!("invalid taint spec: {text}"));
    let checked = |effect: &str| match EFFECTS.contains(&effect) {
        true => Ok(effect.to_owned()),
        false => Err(Error::message(format!("invalid taint effect: {effect}, unsupported taint effect"))),
    };
    if let Some(rest) = text.strip_suffix('-') {
        let (key, effect) = rest.split_once(':').map_or((rest, None), |(k, e)| (k, Some(e)));
        let key = key.split('=').next().unwrap_or_default();
        if key.is_empty() {
            return Err(bad());
        }
        return Ok(Change::Remove { key: key.into(), effect: effect.map(checked).transpose()? });
    }
    let (start, effect) = text.rsplit_once(':').ok_or_else(bad)?;
    let (key, value) = start.split_once('=').unwrap_or((start, ""));
    if key.is_empty() {
        return Err(bad());
    }
    Ok(Change::Add { key: key.into(), value: value.into(), effect: checked(effect)? })
}

/// The taints after the changes, and what happened to the node.
fn plan(present: &[Value], changes: &[Change], overwrite: bool) -> Result<(Vec<Value>, &'static str)> {
    let mut taints = present.to_vec();
    let (mut added, mut removed) = (false, false);
    for change in changes {
        match change {
            Change::Add { key, value, effect } => {
                let same = |t: &&mut Value| t["key"] == key.as_str() && t["effect"] == effect.as_str();
                let mut taint = json!({"key": key, "effect": effect});
                if !value.is_empty() {
                    taint["value"] = json!(value);
                }
                match taints.iter_mut().find(same) {
                    Some(_) if !overwrite => {
                        return Err(Error::message(format!(
                            "already has {key} taint(s) with same effect(s) and --overwrite is false"
                        )));
                    }
                    Some(have) => *have = taint,
                    None => taints.push(taint),
                }
                added = true;
            }
            Change::Remove { key, effect } => {
                let before = taints.len();
                taints.retain(|t| {
                    t["key"] != key.as_str() || effect.as_ref().is_some_and(|e| t["effect"] != e.as_str())
                });
                if taints.len() == before {
                    let effect = effect.as_ref().map(|e| format!(":{e}")).unwrap_or_default();
                    return Err(Error::message(format!("taint {:?} not found", format!("{key}{effect}"))));
                }
                removed = true;
            }
        }
    }
    Ok((
        taints,
        match (added, removed) {
            (true, true) => "modified",
            (true, false) => "tainted",
            _ => "untainted",
        },
    ))
}

impl Taint {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let at = self
            .args
            .iter()
            .position(|a| is_change(a) && !a.contains('/') || a.contains(':'))
            .unwrap_or(self.args.len());
        let (names, changes) = self.args.split_at(at);
        let changes: Vec<Change> = changes.iter().map(|c| parse(c)).collect::<Result<_>>()?;
        if changes.is_empty() {
            return Err(Error::message("at least one taint update is required"));
        }
        let (targets, errors) = targets::resolve(session, names, &FileArgs::default(), false).await?;
        Error::from_list(errors)?;
        if targets.iter().any(|t| !t.resource.is("", "nodes")) || targets.is_empty() {
            return Err(Error::message("invalid resource type, only node types are supported"));
        }
        if targets.iter().any(|t| t.name.is_none()) && !self.all && self.selector.is_empty() {
            return Err(Error::message("resource(s) were provided, but no name was specified"));
        }
        let mut format = self.change.format()?;
        let filter = Filter { labels: self.selector.clone(), ..Filter::default() };
        let (found, mut errors) = targets::fetch(session, &targets, &filter).await;
        for node in found {
            let name = node.target.name.as_deref().unwrap_or_default();
            let present = node.object["spec"]["taints"].as_array().cloned().unwrap_or_default();
            let (taints, what) = match plan(&present, &changes, self.overwrite) {
                Ok(plan) => plan,
                Err(e) => {
                    errors.push(Error::message(format!(
                        "node {name} {}",
                        e.report().trim_start_matches("error: ")
                    )));
                    continue;
                }
            };
            let mut after = node.object.clone();
            after["spec"]["taints"] = json!(taints);
            // The version guards against taints that someone else sets meanwhile: the list is replaced.
            let version = &node.object["metadata"]["resourceVersion"];
            let body = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
            let patch = Patch { content_type: MERGE, body };
            match send_patch(session, &self.change, node.target.path(), &patch, "kubectl-taint", after).await
            {
                Ok(object) => self.change.print(&mut format, &object, what)?,
                Err(e) => errors.push(e),
            }
        }
        Error::from_list(errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_added_replaced_and_removed() {
        let change = |text: &str| vec![parse(text).unwrap()];
        let (taints, what) = plan(&[], &change("a=b:NoSchedule"), false).unwrap();
        assert_eq!(
            (taints.clone(), what),
            (vec![json!({"key": "a", "value": "b", "effect": "NoSchedule"})], "tainted")
        );
        assert!(plan(&taints, &change("a=c:NoSchedule"), false).is_err());
        assert_eq!(plan(&taints, &change("a=c:NoSchedule"), true).unwrap().0[0]["value"], "c");
        assert_eq!(plan(&taints, &change("a:NoSchedule-"), false).unwrap(), (vec![], "untainted"));
        assert_eq!(plan(&taints, &change("a-"), false).unwrap().0.len(), 0);
        assert!(plan(&taints, &change("a:NoExecute-"), false).is_err());
        assert!(parse("a=b:Nonsense").is_err() && parse("nothing").is_err());
    }
}
