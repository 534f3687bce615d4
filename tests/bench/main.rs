//! The benchmark: start-up, idle cost per process, and the time from apply to Ready.
//!
//! Prints a table of figure, result, budget and verdict. `--check` makes a missed budget an error.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use support::{Cluster, repository};

/// For how long an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(30);
/// Processes that are not ours, and so stand outside the idle budget.
const FOREIGN: [&str; 2] = ["etcd", "containerd"];

struct Row {
    figure: String,
    result: String,
    budget: &'static str,
    met: Option<bool>,
}

fn main() -> ExitCode {
    let check = std::env::args().any(|a| a == "--check");
    let mut rows = Vec::new();

    let began = Instant::now();
    let cluster = Cluster::up("bench", 3);
    rows.push(seconds("coxswain up, to three Ready nodes", began.elapsed(), Some(5.0), "< 5 s"));
    let began = Instant::now();
    cluster.coxswain_ok(&["up", "--nodes", "3"]);
    rows.push(seconds("coxswain up, again", began.elapsed(), None, ""));

    let sample = repository().join("deploy/samples/web.yaml");
    let began = Instant::now();
    cluster.kubectl.ok(&["apply", "-f", &sample.display().to_string()]);
    cluster.kubectl.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=60s"]);
    rows.push(seconds("apply web.yaml, until three pods are Ready", began.elapsed(), None, ""));

    rows.extend(idle(&cluster));
    print(&rows);
    let missed = rows.iter().any(|r| r.met == Some(false));
    if check && missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn seconds(figure: &str, took: Duration, limit: Option<f64>, budget: &'static str) -> Row {
    let met = limit.map(|limit| took.as_secs_f64() < limit);
    Row { figure: figure.into(), result: format!("{:.2} s", took.as_secs_f64()), budget, met }
}

/// Processor time and memory of every process of ours, with the page being served to nobody.
fn idle(cluster: &Cluster) -> Vec<Row> {
    settle();
    let processes: Vec<(String, i64)> = cluster
        .processes()
        .iter()
        .filter_map(|p| Some((p["name"].as_str()?.to_owned(), p["pid"].as_i64()?)))
        .collect();
    let ours = |id: &str| !FOREIGN.iter().any(|foreign| id.ends_with(foreign));
    let before: BTreeMap<_, _> = processes.iter().map(|(id, pid)| (id.clone(), cpu_ticks(*pid))).collect();
    watch(IDLE);
    let mut rows = Vec::new();
    let mut total = 0.0;
    for (id, pid) in &processes {
        // USER_HZ is 100, so ticks per second are percent of a core.
        let percent = cpu_ticks(*pid).saturating_sub(before[id]) as f64 / IDLE.as_secs_f64();
        let memory = resident_mib(*pid);
        if ours(id) {
            total += percent;
        }
        rows.push(Row {
            figure: format!("idle {id}"),
            result: format!("{percent:.2} % of a core, {memory:.1} MiB"),
            budget: if ours(id) { "< 20 MB" } else { "" },
            met: ours(id).then_some(memory * 1.048_576 < 20.0),
        });
    }
    rows.push(Row {
        figure: "idle, all processes of ours".into(),
        result: format!("{total:.2} % of a core"),
        budget: "< 1 %",
        met: Some(total < 1.0),
    });
    rows
}

#[allow(clippy::disallowed_methods, reason = "an idle cluster gives no event to wait for")]
fn settle() {
    std::thread::sleep(Duration::from_secs(15));
}

#[allow(clippy::disallowed_methods, reason = "the time that passes is what is measured")]
fn watch(time: Duration) {
    std::thread::sleep(time);
}

fn cpu_ticks(pid: i64) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0)
}

fn resident_mib(pid: i64) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn print(rows: &[Row]) {
    let width = rows.iter().map(|r| r.figure.len()).max().unwrap_or(0);
    println!("{:width$}  {:34}  {:8}  verdict", "figure", "result", "budget");
    for row in rows {
        let verdict = match row.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        println!("{:width$}  {:34}  {:8}  {verdict}", row.figure, row.result, row.budget);
    }
}
