//! Whole clusters with real nodes: how fast they come up and what they cost when nothing happens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use support::{Cluster, repository};

use crate::Options;
use crate::report::Outcome;
use crate::usage::Meter;
use crate::world::Flavor;

const NODES: usize = 3;
/// Until everything that starting a cluster sets off has come to rest.
const SETTLE: Duration = Duration::from_secs(15);
/// For how long an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(30);
/// Processes that are not ours, and so stand outside the idle budget.
const FOREIGN: [&str; 1] = ["containerd"];

fn once(took: Duration, note: &str) -> Outcome {
    Outcome { figure: took.as_secs_f64(), note: note.to_owned(), ..Outcome::default() }
}

/// `up`.
pub fn up(_: &Flavor, _: &Options) -> Result<Outcome> {
    let began = Instant::now();
    let cluster = Cluster::up("bench", NODES);
    let first = began.elapsed();
    let began = Instant::now();
    cluster.coxswain_ok(&["up", "--nodes", &NODES.to_string()]);
    Ok(once(first, &format!("again in {:.2} s", began.elapsed().as_secs_f64())))
}

/// A cluster with the sample page, and how long the page took.
fn with_page() -> (Cluster, Duration) {
    let cluster = Cluster::up("bench", NODES);
    let sample = repository().join("deploy/samples/web.yaml");
    let began = Instant::now();
    cluster.kubectl.ok(&["apply", "-f", &sample.display().to_string()]);
    cluster.kubectl.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=60s"]);
    (cluster, began.elapsed())
}

/// `apply`.
pub fn apply(_: &Flavor, _: &Options) -> Result<Outcome> {
    let (_cluster, took) = with_page();
    Ok(once(took, ""))
}

/// `idle-nodes`.
pub fn idle(_: &Flavor, _: &Options) -> Result<Outcome> {
    let (cluster, _) = with_page();
    crate::wait(SETTLE);
    let process = |p: &serde_json::Value| -> Option<(String, u32)> {
        Some((p["name"].as_str()?.to_owned(), u32::try_from(p["pid"].as_u64()?).ok()?))
    };
    let processes: Vec<_> = cluster.processes().iter().filter_map(process).collect();
    let meter = Meter::start(&processes);
    crate::wait(IDLE);
    let mut usage = meter.read();
    usage.retain(|u| u.name != "bench" && !FOREIGN.iter().any(|foreign| u.name.ends_with(foreign)));
    let percent = usage.iter().map(|u| u.cores * 100.0).sum();
    let largest = usage.iter().max_by_key(|u| u.peak).context("nothing runs")?;
    let note = format!("the largest is {} with {:.1} MB", largest.name, largest.peak as f64 / 1e6);
    Ok(Outcome { figure: percent, usage, note, ..Outcome::default() })
}
