//! `coxswain backup` and `coxswain restore`: the cluster's state as one file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use component::clock::Clock;

use super::{Target, wait_for};
use crate::cluster::Cluster;
use crate::components::{Store, store_flags};
use crate::host;
use crate::steps::Steps;
use crate::supervise::{Client, Phase, Request};

/// For how long processes are waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where to, or from.
#[derive(clap::Args, Clone, Debug)]
pub struct FileArgs {
    /// The file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Writes the state of the running cluster to a file.
///
/// # Errors
/// When the store does not answer, or the file cannot be written.
pub async fn backup(target: &Target, args: &FileArgs) -> anyhow::Result<()> {
    let cluster = target.cluster()?;
    let steps = Steps::new();
    let step = steps.begin("backup");
    let mut flags = vec!["backup".to_owned()];
    for flag in store_flags(&cluster, &target.paths) {
        let flag = flag.replacen("--etcd-servers", "--endpoints", 1).replacen("--etcd-cafile", "--cacert", 1);
        flags.push(flag.replacen("--etcd-certfile", "--cert", 1).replacen("--etcd-keyfile", "--key", 1));
    }
    flags.push(text(&std::path::absolute(&args.file)?));
    run(cluster.bin_dir.join("etcd-lite"), flags).await.context("could not back the state up")?;
    let size = std::fs::metadata(&args.file)?.len();
    step.done(format!("{} bytes in {}", size, args.file.display()));
    Ok(())
}

/// Replaces the state of the cluster by that of a file. What was there is kept beside it.
///
/// etcd 3.4's tool cannot move revisions beyond those that were given since the backup, as etcd-lite does: clients outside
/// the cluster that watch it have to begin anew by themselves there.
///
/// # Errors
/// When the file is no backup of the same store, etcd-lite or etcd; the cluster goes on with what it had then.
pub async fn restore(target: &Target, args: &FileArgs) -> anyhow::Result<()> {
    let cluster = target.cluster()?;
    let (Some(store), Some(data)) = (cluster.store.process(), cluster.store.data_dir(&target.paths)) else {
        bail!("the state lies in an etcd that somebody else runs: restore it there");
    };
    let file = std::path::absolute(&args.file)?;
    let steps = Steps::new();
    let _lock = target.lock().await?;
    let mut supervisor = target.supervisor().await?;

    let step = steps.begin("reading the file");
    let fresh = data.with_extension("restoring");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)?;
    }
    unpack(&cluster, &file, &fresh).await?;
    step.done(String::new());

    let step = steps.begin("the state");
    let halted = ["kube-apiserver", store];
    for id in halted {
        supervisor.ask(&Request::Stop { target: id.into() }).await?;
    }
    let swapped = match stopped(&mut supervisor, &halted).await {
        Ok(()) => swap(&data, &fresh),
        Err(error) => Err(error),
    };
    for id in halted.iter().rev() {
        supervisor.ask(&Request::Start { target: (*id).into() }).await?;
    }
    step.done(format!("what was there is kept in {}", swapped?.display()));

    // Whoever has seen what is no more begins anew.
    let step = steps.begin("processes");
    let state = supervisor.ask(&Request::Status).await?;
    let watching = ["kube-scheduler", "kube-controller-manager", "kubelet", "kube-proxy"];
    for (id, unit) in &state.units {
        if unit.phase != Phase::Stopped && watching.iter().any(|name| id.ends_with(name)) {
            supervisor.ask(&Request::Restart { target: id.clone() }).await?;
        }
    }
    let count = wait_for(&mut supervisor, PATIENCE, |state| {
        let ready = state.units.values().all(|unit| matches!(unit.phase, Phase::Ready | Phase::Stopped));
        Ok(ready.then_some(state.units.len()))
    });
    step.done(format!("{} processes", count.await?));
    Ok(())
}

async fn stopped(supervisor: &mut Client, ids: &[&str]) -> anyhow::Result<()> {
    wait_for(supervisor, PATIENCE, |state| {
        let is = |id: &&str| state.units.get(*id).is_some_and(|unit| unit.phase == Phase::Stopped);
        Ok(ids.iter().all(is).then_some(()))
    })
    .await
}

/// Puts a folder in the place of another one; returns where that is then.
fn swap(data: &Path, fresh: &Path) -> anyhow::Result<PathBuf> {
    let old = data.with_extension(format!("before-{}", Clock::system().now().as_second()));
    if data.exists() {
        std::fs::rename(data, &old)?;
    }
    std::fs::rename(fresh, data)?;
    Ok(old)
}

/// Makes a data directory from a file.
async fn unpack(cluster: &Cluster, file: &Path, data: &Path) -> anyhow::Result<()> {
    let (program, args) = match cluster.store {
        Store::Lite => {
            // No revision may mean two things, so the new ones lie beyond all that were given since, of which a store that
            // cannot be read any more tells nothing. They follow the milliseconds, which no store outruns for long.
            let beyond = Clock::system().now().as_millisecond();
            let args = vec![
                "restore".to_owned(),
                format!("--revision-at-least={beyond}"),
                "--mark-compacted".into(),
                format!("--data-dir={}", text(data)),
                text(file),
            ];
            (cluster.bin_dir.join("etcd-lite"), args)
        }
        Store::Etcd | Store::External { .. } => {
            let peer = format!("https://127.0.0.1:{}", cluster.ports.etcd_peer);
            let program = host::find_program("etcdctl").context(
                "etcdctl is not installed (Debian package etcd-client); it restores what etcd has saved",
            )?;
            let args = vec![
                "snapshot".into(),
                "restore".into(),
                text(file),
                format!("--data-dir={}", text(data)),
                "--name=default".into(),
                format!("--initial-cluster=default={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
            ];
            (program, args)
        }
    };
    run(program, args).await.with_context(|| format!("could not restore {}", file.display()))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

async fn run(program: PathBuf, args: Vec<String>) -> anyhow::Result<()> {
    let command = tokio::process::Command::new(&program)
        .args(args)
        .env("ETCDCTL_API", "3")
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .with_context(|| format!("could not start {}", program.display()))?;
    if command.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&command.stderr);
    bail!("{} said: {}", program.display(), said.lines().last().unwrap_or("nothing"))
}
