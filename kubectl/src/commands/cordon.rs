//! `kubectl cordon` and `kubectl uncordon`.

use clap::Args;
use serde_json::{Value, json};

use super::change::DryRun;
use crate::apply::{Patch, STRATEGIC};
use crate::error::{Error, Result};
use crate::output::println;
use crate::resource::targets::{Filter, Found, Target, fetch};
use crate::session::{Call, Session};

/// Mark node as unschedulable
#[derive(Args, Debug)]
pub struct Cordon {
    #[command(flatten)]
    nodes: Nodes,
}

/// Mark node as schedulable
#[derive(Args, Debug)]
pub struct Uncordon {
    #[command(flatten)]
    nodes: Nodes,
}

/// Which nodes.
#[derive(Args, Debug, Clone)]
pub struct Nodes {
    /// Names of nodes
    pub names: Vec<String>,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub dry_run: DryRun,
}

impl Cordon {
    /// Runs the command.
    pub async fn run(self, session: &Session, cordon: bool) -> Result<()> {
        self.nodes.run(session, cordon).await
    }
}

impl Uncordon {
    /// Runs the command.
    pub async fn run(self, session: &Session, cordon: bool) -> Result<()> {
        self.nodes.run(session, cordon).await
    }
}

impl Nodes {
    async fn run(self, session: &Session, cordon: bool) -> Result<()> {
        let (found, mut errors) = self.found(session).await?;
        for node in found {
            if let Err(e) = set(session, &node, cordon, self.dry_run).await {
                errors.push(e);
            }
        }
        Error::from_list(errors)
    }

    /// The nodes that are meant.
    pub async fn found(&self, session: &Session) -> Result<(Vec<Found>, Vec<Error>)> {
        if self.names.is_empty() && self.selector.is_empty() {
            return Err(Error::message("USAGE: expected NODE or -l SELECTOR"));
        }
        let resource = session.resource("nodes").await?;
        let target = |name: Option<String>| Target {
            resource: resource.clone(),
            name,
            namespace: String::new(),
            document: None,
        };
        let bare = |n: &String| n.strip_prefix("node/").or(n.strip_prefix("nodes/")).unwrap_or(n).to_owned();
        let targets: Vec<Target> = match self.names.as_slice() {
            [] => vec![target(None)],
            names => names.iter().map(|n| target(Some(bare(n)))).collect(),
        };
        Ok(fetch(session, &targets, &Filter { labels: self.selector.clone(), ..Filter::default() }).await)
    }
}

/// Sets a node's `unschedulable` and says so.
pub async fn set(session: &Session, node: &Found, cordon: bool, dry_run: DryRun) -> Result<()> {
    let name = node.target.name.as_deref().unwrap_or_default();
    let word = if cordon { "cordoned" } else { "uncordoned" };
    if (node.object["spec"]["unschedulable"] == true) == cordon {
        return println(format!("node/{name} already {word}{}", dry_run.suffix()));
    }
    let wanted = if cordon { json!(true) } else { Value::Null };
    let patch = Patch { content_type: STRATEGIC, body: json!({"spec": {"unschedulable": wanted}}) };
    if dry_run != DryRun::Client {
        let call = Call::patch(node.target.path(), patch.content_type, patch.body.to_string().into_bytes());
        session.json(&dry_run.query(call)).await?;
    }
    println(format!("node/{name} {word}{}", dry_run.suffix()))
}
