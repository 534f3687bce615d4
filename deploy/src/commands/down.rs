//! `coxswain down`: leaves the host as it was, whatever is left of the cluster.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::time::Instant;

use super::Target;
use crate::cluster::prefix;
use crate::journal::{Change, Journal};
use crate::rest::chain;
use crate::steps::{Steps, seconds};
use crate::supervise::{Client, Request};
use crate::{cgroups, kubeconfig, network};

/// How long processes may take to die: longer than the kernel needs, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes the cluster down. A cluster that does not exist is no error.
///
/// # Errors
/// With everything that could not be undone; what could be was. May be run again.
pub async fn run(target: &Target) -> anyhow::Result<()> {
    if !target.paths.state.exists() {
        eprintln!("there is no cluster {:?} in {}", target.name, target.paths.root.display());
        return Ok(());
    }
    let steps = Steps::new();
    let lock = target.lock().await?;
    let changes = Journal::open(&target.paths.journal())?.latest_first()?;
    let step = steps.begin("processes");
    let killed = stop_processes(target).await?;
    step.done(killed);

    let step = steps.begin("the host's settings");
    let mut problems = Vec::new();
    for change in &changes {
        step.note(format!("{change:?}"));
        if let Err(error) = undo(change).await {
            problems.push(format!("{change:?}: {error:#}"));
        }
    }
    if !problems.is_empty() {
        bail!(
            "{} of {} changes to the host could not be undone:\n  - {}\nrun `coxswain down` again once that is solved",
            problems.len(),
            changes.len(),
            problems.join("\n  - ")
        );
    }
    step.done(format!("{} changes undone", changes.len()));

    let step = steps.begin("files");
    remove_tree(&target.paths.state)?;
    remove_if_empty(&target.paths.root)?;
    drop(lock);
    step.done(target.paths.state.display());
    eprintln!("the cluster {:?} is gone after {}", target.name, seconds(steps.elapsed()));
    Ok(())
}

/// Ends all processes: by the supervisor, or by what is written down about each.
async fn stop_processes(target: &Target) -> anyhow::Result<String> {
    let supervisor =
        target.records().into_iter().find(|(id, _)| id == "supervisor").and_then(|(_, r)| r.open());
    let mut gracefully = false;
    if let Ok(mut client) = Client::connect(&target.paths.socket()).await {
        let asked = tokio::time::timeout(PATIENCE, client.ask(&Request::Shutdown)).await;
        gracefully = matches!(asked, Ok(Ok(_)));
        if let Ok(Err(error)) = asked {
            tracing::warn!(
                error = chain(&error),
                "the supervisor does not shut down; its processes are killed"
            );
        }
    }
    if let Some(supervisor) = supervisor {
        if !gracefully {
            supervisor.signal(Signal::KILL)?;
        }
        let ended = tokio::time::timeout(PATIENCE, supervisor.wait()).await;
        ended.context("the supervisor does not end")??;
    }
    // What the supervisor did not know of, or everything if there was none.
    let mut killed = 0;
    for (_, record) in target.records() {
        if let Some(process) = record.open() {
            process.signal(Signal::KILL)?;
            killed += 1;
        }
    }
    let cgroup = prefix(&target.name);
    killed += kill_members(&cgroup).await?;
    reaped(target).await;
    Ok(if killed == 0 { "all ended".into() } else { format!("{killed} stragglers killed") })
}

/// Waits until those who inherited the dead have reaped them, so that no list of processes shows one of ours. A machine
/// whose first process never does that keeps them, and nothing can be done about it.
async fn reaped(target: &Target) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let dead: Vec<_> = target.records().into_iter().filter(|(_, r)| !r.is_alive()).map(|(_, r)| r).collect();
    while dead.iter().any(crate::process::Record::is_zombie) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Kills what is in the cluster's cgroups until nothing is. Returns how many there were.
async fn kill_members(cgroup: &str) -> anyhow::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    let mut most = 0;
    loop {
        let members = match cgroups::members(cgroup) {
            Ok(members) => members,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(most),
            Err(e) => return Err(e.into()),
        };
        if members.is_empty() {
            return Ok(most);
        }
        most = most.max(members.len());
        if Instant::now() > deadline {
            bail!("the processes {members:?} do not die");
        }
        for pid in members {
            crate::process::kill(pid);
        }
        // The kernel tells nobody when a v1 group has become empty.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Undoes one change. One that was never made, or is undone already, is no error.
async fn undo(change: &Change) -> anyhow::Result<()> {
    match change {
        Change::Route { destination, metric } => network::remove_route(destination, *metric)?,
        Change::NetnsDirectory => network::remove_netns_directory()?,
        Change::Namespace { name } => network::remove_namespace(name)?,
        Change::Link { name } => network::remove_link(name)?,
        Change::Cgroup { path } => cgroups::remove(path, PATIENCE).await?,
        Change::CgroupControllers { names } => cgroups::withdraw(names)?,
        Change::Sysctl { key, before } => fs::write(Path::new("/proc/sys").join(key), before)?,
        Change::NftTable { name } => network::remove_table(name)?,
        Change::Context { file, name, previous, created } => {
            kubeconfig::uninstall(file, name, previous.as_deref(), *created).await?;
        }
        Change::Tree { path } => remove_tree(path)?,
        Change::Directory { path } => remove_if_empty(path)?,
    }
    Ok(())
}

/// Removes a directory of ours with all in it. Refuses while something is mounted below: it might be somebody's data.
fn remove_tree(path: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let below = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .find(|target| Path::new(target).starts_with(path));
    if let Some(mount) = below {
        bail!("{mount} is mounted: unmount it first");
    }
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("could not remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove_if_empty(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir(path) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(e).with_context(|| format!("could not remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
