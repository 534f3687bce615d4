//! `coxswain node`: practises failures. Stopping a node cuts its power; starting it boots it from the same disk.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use super::status::probe;
use super::{Target, nodes_ready, readiness, wait_for};
use crate::components::specs;
use crate::rest::Rest;
use crate::steps::{Steps, tail};
use crate::supervise::{Phase, Request, State};

/// What to do with a node.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum NodeCommand {
    /// Cut a node's power: everything on it dies at once, and its link goes down.
    Stop {
        /// The node.
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Boot a node that was stopped, and wait until it is Ready.
    Start {
        /// The node.
        #[arg(value_name = "NODE")]
        node: String,
        /// How many seconds to wait; 0 does not wait.
        #[arg(long, default_value_t = 120, value_name = "SECONDS")]
        timeout: u64,
    },
    /// List the nodes.
    List,
}

/// Does it.
///
/// # Errors
/// When the node is unknown, or does not become ready.
pub async fn run(target: &Target, command: &NodeCommand) -> anyhow::Result<()> {
    match command {
        NodeCommand::Stop { node: name } => {
            known(target, name)?;
            let step = Steps::new().begin(format!("stop {name}"));
            target.supervisor().await?.ask(&Request::Stop { target: name.clone() }).await?;
            step.done("its processes are dead and its link is down");
        }
        NodeCommand::Start { node: name, timeout } => {
            known(target, name)?;
            let steps = Steps::new();
            let step = steps.begin(format!("start {name}"));
            let rest = Rest::admin(&target.cluster()?, &target.paths)?;
            target.supervisor().await?.ask(&Request::Start { target: name.clone() }).await?;
            if *timeout == 0 {
                step.done("");
                return Ok(());
            }
            let patience = Duration::from_secs(*timeout);
            // The Node object may still say what was true before the power was cut: ask the kubelet itself first.
            kubelet_answers(target, name, patience).await?;
            let nodes = [name.clone()];
            nodes_ready(&rest, &nodes, patience, |text| step.note(text)).await?;
            step.done("Ready");
        }
        NodeCommand::List => list(target).await?,
    }
    Ok(())
}

/// Waits until the node's kubelet says of itself that it is well.
async fn kubelet_answers(target: &Target, node: &str, patience: Duration) -> anyhow::Result<()> {
    let id = format!("{node}/kubelet");
    let runs = |state: &State| Ok(state.units.get(&id).filter(|unit| unit.phase == Phase::Ready).map(|_| ()));
    wait_for(&mut target.supervisor().await?, patience, runs).await?;
    let specs = specs(&target.cluster()?, &target.paths);
    let spec = specs.iter().find(|spec| spec.id == id).context("a node has a kubelet")?;
    let deadline = Instant::now() + patience;
    while let Err(reason) = probe(target, spec).await {
        if Instant::now() > deadline {
            bail!("{id} does not answer: {reason}; {}", tail(&spec.log, 15));
        }
        // Nothing tells when a port begins to answer.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn known(target: &Target, name: &str) -> anyhow::Result<()> {
    let cluster = target.cluster()?;
    if cluster.node(name).is_none() {
        let names: Vec<_> = cluster.nodes.iter().map(|n| n.name.as_str()).collect();
        bail!("no node is called {name:?}; there are: {}", names.join(", "));
    }
    Ok(())
}

async fn list(target: &Target) -> anyhow::Result<()> {
    let cluster = target.cluster()?;
    let rest = Rest::admin(&cluster, &target.paths)?;
    let objects = rest.get("/api/v1/nodes").await?;
    println!("{:<12} {:<16} {:<9} NETWORK NAMESPACE", "NAME", "ADDRESS", "STATUS");
    for node in &cluster.nodes {
        let object =
            objects["items"].as_array().and_then(|l| l.iter().find(|o| o["metadata"]["name"] == node.name));
        let status = match object {
            _ if target.paths.stopped(&node.name).exists() => "Stopped",
            Some(object) if readiness(object).is_ok() => "Ready",
            _ => "NotReady",
        };
        println!("{:<12} {:<16} {status:<9} {}", node.name, node.ip, cluster.netns(&node.name));
    }
    Ok(())
}
