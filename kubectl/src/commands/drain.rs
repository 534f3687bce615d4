//! `kubectl drain`: cordons a node and evicts its pods.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::change::DryRun;
use super::cordon::{self, Nodes};
use crate::error::{Error, Result};
use crate::output::{println, warn};
use crate::resource::targets::{Filter, Found, Target, items, list, narrowed};
use crate::session::{Call, Session};

const RETRY: Duration = Duration::from_secs(5);

/// Drain node in preparation for maintenance
#[derive(Args, Debug)]
pub struct Drain {
    #[command(flatten)]
    nodes: Nodes,
    /// Ignore DaemonSet-managed pods
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Continue even if there are pods using emptyDir
    #[arg(long)]
    delete_emptydir_data: bool,
    /// Continue even if there are pods that do not declare a controller
    #[arg(long)]
    force: bool,
    /// Force drain to use delete, even if eviction is supported
    #[arg(long)]
    disable_eviction: bool,
    /// Period of time in seconds given to each pod; negative means the pod's own
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Label selector to filter pods on the node
    #[arg(long, default_value = "", hide_default_value = true)]
    pod_selector: String,
    /// The length of time to wait before giving up; zero means infinite
    #[arg(long, default_value = "0", value_parser = crate::cli::timeout)]
    timeout: Duration,
}

/// What becomes of a pod.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Evict,
    /// It goes, and this is said.
    EvictAnyway(&'static str),
    /// It stays, and this is said.
    Leave(&'static str),
    /// The drain does not begin.
    Refuse(&'static str),
    Skip,
}

impl Drain {
    fn judge(&self, pod: &Value) -> Verdict {
        let meta = &pod["metadata"];
        if meta["annotations"]["kubernetes.io/config.mirror"].is_string() {
            return Verdict::Skip;
        }
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let mut owners = meta["ownerReferences"].as_array().into_iter().flatten();
        let owner = owners.find(|o| o["controller"] == true);
        if owner.is_some_and(|o| o["kind"] == "DaemonSet") && !ended {
            return match self.ignore_daemonsets {
                true => Verdict::Leave("ignoring DaemonSet-managed Pods"),
                false => Verdict::Refuse(
                    "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)",
                ),
            };
        }
        let mut volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        if !ended && volumes.any(|v| v["emptyDir"].is_object()) && !self.delete_emptydir_data {
            return Verdict::Refuse(
                "cannot delete Pods with local storage (use --delete-emptydir-data to override)",
            );
        }
        if owner.is_none() && !ended {
            return match self.force {
                true => Verdict::EvictAnyway("deleting Pods that declare no controller"),
                false => {
                    Verdict::Refuse("cannot delete Pods that declare no controller (use --force to override)")
                }
            };
        }
        Verdict::Evict
    }

    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let (found, mut errors) = self.nodes.found(session).await?;
        for node in &found {
            cordon::set(session, node, true, self.nodes.dry_run).await?;
        }
        for node in found {
            if let Err(e) = self.drain(session, &node).await {
                let name = node.target.name.as_deref().unwrap_or_default();
                warn(format!(
                    "error: unable to drain node {name:?} due to error: {}, continuing command...",
                    e.report()
                ));
                errors.push(e);
            }
        }
        Error::from_list(errors)
    }

    async fn drain(&self, session: &Session, node: &Found) -> Result<()> {
        let name = node.target.name.as_deref().unwrap_or_default();
        let pods = Target {
            resource: session.resource("pods").await?,
            name: None,
            namespace: String::new(),
            document: None,
        };
        let filter = Filter { labels: self.pod_selector.clone(), fields: format!("spec.nodeName={name}") };
        let mut victims = Vec::new();
        let mut said: Vec<(&'static str, Vec<String>, bool)> = Vec::new();
        for pod in items(&list(session, &pods, &filter).await?) {
            let key = format!(
                "{}/{}",
                pod["metadata"]["namespace"].as_str().unwrap_or_default(),
                super::exec::name(&pod)
            );
            let mut say = |why, fatal| match said.iter_mut().find(|(w, ..)| *w == why) {
                Some((_, keys, _)) => keys.push(key.clone()),
                None => said.push((why, vec![key.clone()], fatal)),
            };
            match self.judge(&pod) {
                Verdict::Evict => victims.push(pod),
                Verdict::EvictAnyway(why) => {
                    say(why, false);
                    victims.push(pod);
                }
                Verdict::Leave(why) => say(why, false),
                Verdict::Refuse(why) => say(why, true),
                Verdict::Skip => {}
            }
        }
        let line = |(why, keys, _): &(&str, Vec<String>, bool)| format!("{why}: {}", keys.join(", "));
        let fatal: Vec<String> = said.iter().filter(|s| s.2).map(line).collect();
        if !fatal.is_empty() {
            return Err(Error::message(fatal.join("; ")));
        }
        let warnings: Vec<String> = said.iter().map(line).collect();
        if !warnings.is_empty() {
            warn(format!("Warning: {}", warnings.join("; ")));
        }
        let all = futures::future::try_join_all(
            victims.iter().map(|pod| self.evict(session, narrowed(&pods, pod), pod)),
        );
        match self.timeout.is_zero() {
            true => all.await?,
            false => tokio::time::timeout(self.timeout, all)
                .await
                .map_err(|_| Error::message(format!("global timeout reached: {:?}", self.timeout)))??,
        };
        println(format!("node/{name} drained{}", self.nodes.dry_run.suffix()))
    }

    /// Evicts a pod, as often as a disruption budget makes it try, and waits until it is gone.
    async fn evict(&self, session: &Session, target: Target, pod: &Value) -> Result<()> {
        let name = target.name.clone().unwrap_or_default();
        let verb = if self.disable_eviction { "deleting" } else { "evicting" };
        warn(format!("{verb} pod {}/{name}{}", target.namespace, self.nodes.dry_run.suffix()));
        if self.nodes.dry_run == DryRun::Client {
            return Ok(());
        }
        let mut options = json!({});
        if self.grace_period >= 0 {
            options["gracePeriodSeconds"] = json!(self.grace_period);
        }
        if self.nodes.dry_run == DryRun::Server {
            options["dryRun"] = json!(["All"]);
        }
        loop {
            let call = match self.disable_eviction {
                true => Call::delete(target.path(), &options),
                false => Call::post(
                    format!("{}/eviction", target.path()),
                    &json!({"apiVersion": "policy/v1", "kind": "Eviction",
                        "metadata": {"name": name, "namespace": target.namespace}, "deleteOptions": options}),
                ),
            };
            match session.json(&call).await {
                Ok(_) => break,
                Err(e) if e.is_not_found() => break,
                Err(e) if e.code() == 429 => {
                    warn(format!(
                        "error when evicting pods/{name:?} -n {:?} (will retry after 5s): {}",
                        target.namespace,
                        e.report()
                    ));
                    tokio::time::sleep(RETRY).await;
                }
                Err(e) => return Err(e.when("evicting", &format!("pods/{name}"))),
            }
        }
        if self.nodes.dry_run == DryRun::None {
            let uid = pod["metadata"]["uid"].clone();
            crate::watch::until(session, &target, None, |o| {
                Ok(o.is_none_or(|o| o["metadata"]["uid"] != uid).then_some(()))
            })
            .await?;
            println(format!("pod/{name} {}", if self.disable_eviction { "deleted" } else { "evicted" }))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        drain: Drain,
    }

    #[track_caller]
    fn check(args: &[&str], pod: Value, want: Verdict) {
        let line = Line::try_parse_from(["drain", "n"].iter().chain(args)).unwrap();
        assert_eq!(line.drain.judge(&pod), want);
    }

    #[test]
    fn pods_that_would_be_lost_stop_the_drain() {
        let owned =
            |kind: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "controller": true}]}});
        check(&[], owned("ReplicaSet"), Verdict::Evict);
        check(
            &["--ignore-daemonsets"],
            owned("DaemonSet"),
            Verdict::Leave("ignoring DaemonSet-managed Pods"),
        );
        assert!(matches!(
            Line::try_parse_from(["drain", "n"]).unwrap().drain.judge(&owned("DaemonSet")),
            Verdict::Refuse(_)
        ));
        check(&["--force"], json!({}), Verdict::EvictAnyway("deleting Pods that declare no controller"));
        check(&[], json!({"status": {"phase": "Succeeded"}}), Verdict::Evict);
    }
}
