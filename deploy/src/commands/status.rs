//! `coxswain status`: every process, its health, memory and log, and every node.

use std::time::Duration;

use serde::Serialize;

use super::{Target, readiness};
use crate::cluster::Cluster;
use crate::components::{MACHINE, Probe, Spec, specs};
use crate::process::Record;
use crate::rest::{Rest, chain, healthy_on_node};
use crate::supervise::{Phase, Request, UnitState};

/// How to print it.
#[derive(clap::Args, Clone, Debug)]
pub struct StatusArgs {
    /// The form: a table, or JSON.
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    pub output: String,
}

/// A process as `status` shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    name: String,
    pid: Option<i32>,
    /// Seconds since it was started.
    uptime: Option<u64>,
    /// Resident bytes.
    memory: Option<u64>,
    restarts: u32,
    health: String,
    log: String,
}

/// A node as `status` shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    name: String,
    address: String,
    status: String,
    network_namespace: String,
    /// The first process of its namespaces, for `nsenter -a -t`.
    pid: Option<i32>,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    cluster: String,
    server: String,
    processes: Vec<Process>,
    nodes: Vec<Node>,
    kubeconfig: String,
    certificates: String,
    logs: String,
}

/// Prints it.
///
/// # Errors
/// When the cluster does not run, or something in it is not as it should be.
pub async fn run(target: &Target, args: &StatusArgs) -> anyhow::Result<()> {
    let cluster = target.cluster()?;
    let state = target.supervisor().await?.ask(&Request::Status).await?;
    let mut processes = Vec::new();
    for spec in specs(&cluster, &target.paths) {
        let unit = state.units.get(&spec.id).cloned().unwrap_or_default();
        processes.push(examine(target, &spec, &unit).await);
    }
    if let Some(record) = Record::read(&target.paths.pid("supervisor")) {
        processes.push(supervisor(target, &record));
    }
    let report = Report {
        cluster: cluster.name.clone(),
        server: format!("https://127.0.0.1:{}", cluster.ports.api),
        nodes: nodes(target, &cluster).await,
        processes,
        kubeconfig: target.paths.kubeconfig("admin").display().to_string(),
        certificates: target.paths.pki("").display().to_string(),
        logs: target.paths.state.join("logs").display().to_string(),
    };
    match args.output.as_str() {
        "json" => println!("{}", serde_json::to_string_pretty(&report)?),
        _ => print(&report),
    }
    Ok(())
}

async fn examine(target: &Target, spec: &Spec, unit: &UnitState) -> Process {
    let record =
        Record::read(&target.paths.pid(&spec.id)).filter(|r| Some(r.pid) == unit.pid && r.is_alive());
    let health = match (unit.phase, &record) {
        (Phase::Ready, Some(_)) => match probe(target, spec).await {
            Ok(()) => "ok".to_owned(),
            Err(reason) => reason,
        },
        (Phase::Stopped, _) => "stopped".into(),
        (Phase::Waiting, _) => format!("waits for {}", spec.after.join(", ")),
        (Phase::Ready | Phase::Failed, None) | (Phase::Failed, _) => {
            format!("died: {}", unit.message.as_deref().unwrap_or("just now"))
        }
        (Phase::Starting, _) => unit.message.clone().unwrap_or_else(|| "starting".into()),
    };
    Process {
        name: spec.id.clone(),
        pid: record.as_ref().map(|r| r.pid),
        uptime: record.as_ref().and_then(Record::age),
        memory: record.as_ref().and_then(Record::memory),
        restarts: unit.restarts,
        health,
        log: spec.log.display().to_string(),
    }
}

fn supervisor(target: &Target, record: &Record) -> Process {
    Process {
        name: "supervisor".into(),
        pid: Some(record.pid),
        uptime: record.age(),
        memory: record.memory(),
        restarts: 0,
        health: "ok".into(),
        log: target.paths.log("supervisor").display().to_string(),
    }
}

/// Asks a process that runs whether it does its work.
pub(super) async fn probe(target: &Target, spec: &Spec) -> Result<(), String> {
    match &spec.probe {
        Probe::Running => Ok(()),
        Probe::Https { port, path, ca, client } => {
            let rest = Rest::new(&target.paths, *port, ca, client).map_err(|e| chain(&e))?;
            let asked = tokio::time::timeout(Duration::from_secs(3), rest.healthy(path)).await;
            asked.unwrap_or_else(|_| Err("no answer".into()))
        }
        Probe::Containerd => {
            let node = spec.node.as_deref().unwrap_or_default();
            let socket = target.paths.containerd_socket(node);
            tokio::net::UnixStream::connect(&socket).await.map(drop).map_err(|e| e.to_string())
        }
        Probe::NodeHttp { port } => {
            let node = spec.node.as_deref().unwrap_or_default();
            let machine =
                Record::read(&target.paths.pid(&format!("{node}/{MACHINE}"))).ok_or("no machine")?;
            let port = *port;
            let asked =
                tokio::task::spawn_blocking(move || healthy_on_node(machine.pid, port, "/healthz")).await;
            asked.unwrap_or_else(|e| Err(e.to_string()))
        }
    }
}

async fn nodes(target: &Target, cluster: &Cluster) -> Vec<Node> {
    let objects = match Rest::admin(cluster, &target.paths) {
        Ok(rest) => rest.get("/api/v1/nodes").await,
        Err(error) => Err(error),
    };
    let status = |name: &str| {
        if target.paths.stopped(name).exists() {
            return "Stopped".to_owned();
        }
        let objects = match &objects {
            Ok(objects) => objects,
            Err(error) => return format!("Unknown: {}", chain(error)),
        };
        let object =
            objects["items"].as_array().and_then(|l| l.iter().find(|o| o["metadata"]["name"] == name));
        match object.map(readiness) {
            Some(Ok(())) => "Ready".into(),
            Some(Err(reason)) => format!("NotReady: {reason}"),
            None => "not registered".into(),
        }
    };
    let machine =
        |name: &str| Record::read(&target.paths.pid(&format!("{name}/{MACHINE}"))).filter(Record::is_alive);
    let show = |node: &crate::cluster::Node| Node {
        name: node.name.clone(),
        address: node.ip.to_string(),
        status: status(&node.name),
        network_namespace: cluster.netns(&node.name),
        pid: machine(&node.name).map(|record| record.pid),
    };
    cluster.nodes.iter().map(show).collect()
}

fn print(report: &Report) {
    println!("cluster {} at {}", report.cluster, report.server);
    println!("\n{:<26} {:>7} {:>8} {:>8} {:>8}  HEALTH", "PROCESS", "PID", "UPTIME", "MEMORY", "RESTARTS");
    let dash = || "-".to_owned();
    for process in &report.processes {
        println!(
            "{:<26} {:>7} {:>8} {:>8} {:>8}  {}",
            process.name,
            process.pid.map_or_else(dash, |pid| pid.to_string()),
            process.uptime.map_or_else(dash, age),
            process.memory.map_or_else(dash, |bytes| format!("{:.1}M", bytes as f64 / f64::from(1 << 20))),
            process.restarts,
            process.health
        );
    }
    println!("\n{:<26} {:>7} {:<16} {:<20} STATUS", "NODE", "PID", "ADDRESS", "NETWORK NAMESPACE");
    for node in &report.nodes {
        let pid = node.pid.map_or_else(dash, |pid| pid.to_string());
        println!(
            "{:<26} {pid:>7} {:<16} {:<20} {}",
            node.name, node.address, node.network_namespace, node.status
        );
    }
    println!("\nkubeconfig    {}", report.kubeconfig);
    println!("certificates  {}", report.certificates);
    println!("logs          {}   (coxswain logs COMPONENT -f)", report.logs);
}

/// A time for people, in the largest unit that fits.
fn age(seconds: u64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d")] {
            assert_eq!(age(seconds), text);
        }
    }
}
