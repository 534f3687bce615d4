//! What the launcher can be told to do, a file each.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use serde_json::Value;

use crate::cluster::{Cluster, Paths};
use crate::process::{Launch, Place, Record};
use crate::rest::Rest;
use crate::supervise::{Client, Request, State};

pub mod backup;
pub mod demo;
pub mod down;
pub mod image;
pub mod logs;
pub mod node;
pub mod process;
pub mod status;
pub mod up;

/// Which cluster a command is about.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its files.
    pub paths: Paths,
}

impl Target {
    /// Reads the cluster's description.
    ///
    /// # Errors
    /// When there is none.
    pub fn cluster(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::load(&self.paths, &self.name)?)
    }

    /// Keeps other commands from changing the cluster until it is dropped.
    async fn lock(&self) -> anyhow::Result<File> {
        let dir = File::open(&self.paths.state)?;
        let waiting = dir.try_clone()?;
        let locked =
            tokio::task::spawn_blocking(move || rustix::fs::flock(&waiting, FlockOperation::LockExclusive));
        locked.await?.with_context(|| format!("could not lock {}", self.paths.state.display()))?;
        Ok(dir)
    }

    /// Connects to the supervisor. If it died and the cluster runs, a new one is started and adopts it.
    ///
    /// # Errors
    /// When the cluster does not run.
    pub async fn supervisor(&self) -> anyhow::Result<Client> {
        self.cluster()?;
        if let Ok(client) = Client::connect(&self.paths.socket()).await {
            return Ok(client);
        }
        if !self.records().iter().any(|(_, record)| record.is_alive()) {
            bail!("the cluster {:?} does not run: start it with `coxswain up`", self.name);
        }
        self.start_supervisor().await
    }

    /// Starts a supervisor and connects to it.
    async fn start_supervisor(&self) -> anyhow::Result<Client> {
        let cgroup = format!("{}/supervisor", crate::cluster::prefix(&self.name));
        crate::cgroups::create(&crate::cgroups::hierarchies()?, &cgroup)?;
        let root = self.paths.root.to_string_lossy().into_owned();
        let args = ["supervise", "--name", &self.name, "--state-dir", &root];
        let log = self.paths.log("supervisor");
        let launch = Launch {
            program: std::env::current_exe()?,
            arg0: None,
            args: args.map(str::to_owned).to_vec(),
            env: vec![
                ("PATH".into(), std::env::var("PATH").unwrap_or_default()),
                ("RUST_BACKTRACE".into(), "1".into()),
            ],
            log: log.clone(),
            cgroup: Some(cgroup),
        };
        let start = move || crate::process::spawn_until_ready(&launch, Place::Host, 0);
        let started = tokio::task::spawn_blocking(start).await?;
        started.with_context(|| format!("the supervisor did not start; {}", crate::steps::tail(&log, 5)))?;
        Ok(Client::connect(&self.paths.socket()).await?)
    }

    /// The processes that were recorded, running or not.
    fn records(&self) -> Vec<(String, Record)> {
        let Ok(entries) = fs::read_dir(self.paths.run.join("pids")) else { return Vec::new() };
        let id = |path: &PathBuf| Some(path.file_stem()?.to_string_lossy().replace('@', "/"));
        let paths = entries.flatten().map(|entry| entry.path());
        paths.filter_map(|path| Some((id(&path)?, Record::read(&path)?))).collect()
    }
}

/// Waits until the supervisor's state is as wanted, or until something says that it will not be.
///
/// # Errors
/// What `check` returns, or that the time is over.
async fn wait_for<T>(
    supervisor: &mut Client,
    patience: Duration,
    mut check: impl FnMut(&State) -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let mut last = State::default();
    let waiting = async {
        let mut state = supervisor.ask(&Request::Status).await?;
        loop {
            if let Some(found) = check(&state)? {
                return Ok(found);
            }
            last = state.clone();
            state = supervisor.ask(&Request::Wait { version: state.version }).await?;
        }
    };
    match tokio::time::timeout(patience, waiting).await {
        Ok(result) => result,
        Err(_) => {
            let pending = last.units.iter().filter(|(_, unit)| unit.phase != crate::supervise::Phase::Ready);
            let said =
                pending.map(|(id, unit)| format!("{id}: {}", unit.message.as_deref().unwrap_or("waiting")));
            bail!("not done after {} s ({})", patience.as_secs(), said.collect::<Vec<_>>().join("; "))
        }
    }
}

/// Whether a Node object is ready, and otherwise why not.
pub fn readiness(node: &Value) -> Result<(), String> {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions.and_then(|list| list.iter().find(|c| c["type"] == "Ready"));
    match ready {
        Some(condition) if condition["status"] == "True" => Ok(()),
        Some(condition) => Err(condition["message"].as_str().unwrap_or("not ready").to_owned()),
        None => Err("it has not said how it is".into()),
    }
}

/// Waits until the API server says of every wanted node that it is ready. `progress` is told who still is not.
///
/// # Errors
/// When the time is over, with the reason of each that is not ready.
pub async fn nodes_ready(
    rest: &Rest,
    wanted: &[String],
    patience: Duration,
    mut progress: impl FnMut(&str),
) -> anyhow::Result<()> {
    let mut missing: std::collections::BTreeMap<String, String> =
        wanted.iter().map(|name| (name.clone(), "it has not registered".to_owned())).collect();
    let waiting = async {
        loop {
            let list = rest.get("/api/v1/nodes").await?;
            let mut see = |node: &Value, missing: &mut std::collections::BTreeMap<String, String>| {
                let name = node["metadata"]["name"].as_str().unwrap_or_default();
                match readiness(node) {
                    Ok(()) => drop(missing.remove(name)),
                    Err(reason) => {
                        missing.entry(name.to_owned()).and_modify(|r| *r = reason);
                    }
                }
                let waiting: Vec<_> = missing.keys().map(String::as_str).collect();
                progress(&format!("waiting for {}", waiting.join(", ")));
                missing.is_empty()
            };
            for node in list["items"].as_array().into_iter().flatten() {
                if see(node, &mut missing) {
                    return anyhow::Ok(());
                }
            }
            let version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
            let path = format!("/api/v1/nodes?watch=true&resourceVersion={version}");
            if rest.watch(&path, |event| see(&event["object"], &mut missing)).await? {
                return Ok(());
            }
        }
    };
    let result = tokio::time::timeout(patience, waiting).await;
    if let Ok(result) = result {
        return result;
    }
    let reasons: Vec<_> = missing.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    bail!("not ready after {} s: {}", patience.as_secs(), reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_it_says_so() {
        let node = |status: &str| {
            serde_json::json!({"status": {"conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": status, "message": "no network"},
            ]}})
        };
        assert_eq!(readiness(&node("True")), Ok(()));
        assert_eq!(readiness(&node("False")), Err("no network".into()));
        assert_eq!(readiness(&node("Unknown")), Err("no network".into()));
        assert!(readiness(&serde_json::json!({})).is_err());
    }
}
