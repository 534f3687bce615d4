//! The pod lifecycle event generator: notices what changed in the runtime, and for which pod.
//!
//! The runtime's own event stream tells when to look: CRI's where the runtime has it, else that of
//! containerd's event service. A runtime with neither is listed every second, while there are pods.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use k8s_cri::v1 as cri;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::runtime::{POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL, Runtime, RuntimeError};

mod containerd;

/// How often a runtime without events is listed.
const POLL: Duration = Duration::from_secs(1);
/// How often one with events is listed all the same, in case that one was lost.
const RECHECK: Duration = Duration::from_secs(60);
/// After an event the runtime's own lists follow within moments; these are looked at in turn.
const SETTLE: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(200), Duration::from_secs(1)];

/// Whose sandbox or container it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The pod's uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Owner {
    fn of(labels: &HashMap<String, String>) -> Option<Self> {
        let get = |label: &str| labels.get(label).cloned();
        Some(Self {
            uid: get(POD_UID_LABEL)?,
            namespace: get(POD_NAMESPACE_LABEL).unwrap_or_default(),
            name: get(POD_NAME_LABEL).unwrap_or_default(),
        })
    }
}

/// The state of everything in the runtime, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing(HashMap<String, (Owner, i32)>);

impl Listing {
    /// From the runtime's lists; what is not of a pod is left out.
    pub fn new(sandboxes: &[cri::PodSandbox], containers: &[cri::Container]) -> Self {
        let sandboxes = sandboxes.iter().map(|s| (&s.id, &s.labels, s.state));
        let containers = containers.iter().map(|c| (&c.id, &c.labels, c.state));
        let of_pod = |(id, labels, state): (&String, &HashMap<String, String>, i32)| {
            Owner::of(labels).map(|owner| (id.clone(), (owner, state)))
        };
        Self(sandboxes.chain(containers).filter_map(of_pod).collect())
    }

    /// The pods of which something is there.
    pub fn owners(&self) -> HashSet<Owner> {
        self.0.values().map(|(owner, _)| owner.clone()).collect()
    }

    /// The pods of which something is not as it was.
    pub fn changed(&self, before: &Self) -> HashSet<Owner> {
        let new = self.0.iter().filter(|(id, now)| before.0.get(*id) != Some(now));
        let gone = before.0.iter().filter(|(id, _)| !self.0.contains_key(*id));
        new.chain(gone).map(|(_, (owner, _))| owner.clone()).collect()
    }
}

/// Lists everything once.
pub async fn list(runtime: &Runtime) -> Result<Listing, RuntimeError> {
    let (sandboxes, containers) = tokio::try_join!(runtime.sandboxes(&[]), runtime.containers(&[]))?;
    Ok(Listing::new(&sandboxes, &containers))
}

/// How the runtime tells that something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Cri,
    Containerd,
    Polling,
}

/// Watches the runtime until `token` says otherwise. `changed` hears which pods to look at; `present`
/// says whether there are pods at all.
pub async fn run(
    runtime: Runtime,
    mut known: Listing,
    changed: impl Fn(&Owner) + Send,
    present: impl Fn() -> bool + Send,
    token: CancellationToken,
) {
    let (sender, mut events) = mpsc::channel::<()>(1);
    let mut source = Source::Cri;
    let mut stream = Box::pin(listen(runtime.clone(), source, sender.clone()));
    let mut broken = false;
    let mut settle = 0;
    let mut wait = RECHECK;
    loop {
        let deadline = Instant::now() + wait;
        tokio::select! {
            () = token.cancelled() => return,
            ended = &mut stream => {
                let next = match (source, ended) {
                    (Source::Cri, Err(error)) if error.is_unimplemented() => Source::Containerd,
                    (Source::Containerd, Err(error)) if error.is_unimplemented() => Source::Polling,
                    (same, outcome) => {
                        if let (Err(error), false) = (&outcome, std::mem::replace(&mut broken, true)) {
                            tracing::warn!(%error, "the runtime's event stream broke; trying again");
                        }
                        tokio::select! {
                            () = token.cancelled() => return,
                            () = tokio::time::sleep(POLL) => {}
                        }
                        same
                    }
                };
                if next != source {
                    tracing::info!(from = ?source, to = ?next, "source of runtime events");
                }
                source = next;
                stream = Box::pin(listen(runtime.clone(), source, sender.clone()));
                // What happened while nobody listened.
                wait = Duration::ZERO;
                settle = SETTLE.len();
            }
            Some(()) = events.recv() => {
                settle = 0;
                wait = SETTLE[0];
                continue_settling(&mut settle);
            }
            () = tokio::time::sleep_until(deadline) => {
                if source != Source::Polling || present() {
                    match list(&runtime).await {
                        Ok(now) => {
                            broken = false;
                            now.changed(&known).iter().for_each(&changed);
                            known = now;
                        }
                        Err(error) => tracing::warn!(%error, "the runtime cannot be listed"),
                    }
                }
                wait = match SETTLE.get(settle) {
                    Some(next) => *next,
                    None if source == Source::Polling => POLL,
                    None => RECHECK,
                };
                continue_settling(&mut settle);
            }
        }
    }
}

fn continue_settling(settle: &mut usize) {
    *settle = (*settle + 1).min(SETTLE.len() + 1);
}

/// Listens to a source; returns when it ends.
async fn listen(runtime: Runtime, source: Source, sender: mpsc::Sender<()>) -> Result<(), RuntimeError> {
    // One waiting wake-up stands for any number of events.
    let wake = || {
        let _ = sender.try_send(());
    };
    match source {
        Source::Cri => {
            let mut stream =
                runtime.service().get_container_events(cri::GetEventsRequest {}).await?.into_inner();
            while stream.message().await?.is_some() {
                wake();
            }
            Ok(())
        }
        Source::Containerd => containerd::listen(&runtime, wake).await,
        Source::Polling => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, uid: &str, state: i32) -> cri::Container {
        let labels = [(POD_UID_LABEL.to_owned(), uid.to_owned())].into();
        cri::Container { id: id.into(), labels, state, ..Default::default() }
    }

    #[track_caller]
    fn check(before: &[cri::Container], after: &[cri::Container], expected: &[&str]) {
        let (before, after) = (Listing::new(&[], before), Listing::new(&[], after));
        let mut uids: Vec<_> = after.changed(&before).into_iter().map(|o| o.uid).collect();
        uids.sort();
        assert_eq!(uids, expected);
    }

    #[test]
    fn pods_whose_containers_changed_are_told() {
        let (a, b) = (container("1", "a", 1), container("2", "b", 1));
        check(&[], &[a.clone(), b.clone()], &["a", "b"]);
        check(&[a.clone(), b.clone()], &[a.clone(), b.clone()], &[]);
        check(&[a.clone(), b.clone()], &[container("1", "a", 2), b.clone()], &["a"]);
        check(&[a.clone(), b], &[a], &["b"]);
        let foreign = cri::Container { id: "3".into(), ..Default::default() };
        check(&[], &[foreign], &[]);
    }
}
