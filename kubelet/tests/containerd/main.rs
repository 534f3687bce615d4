//! A pod's worker on a real containerd, with no API server in reach: what runs goes on running.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::sync::Arc;

use component::tasks::Tasks;
use k8s_openapi::api::core::v1::Pod;
use kubelet::context::Ctx;
use kubelet::pleg;
use kubelet::pod::view::{PodView, RunState, observe};
use kubelet::pod::worker::{Command, Exit, Wakers, Worker};
use serde_json::{Value, json};
use support::{IMAGE, Node, eventually, privileged};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod support;

fn pod(uid: &str, spec: Value) -> Arc<Pod> {
    let mut whole =
        json!({"terminationGracePeriodSeconds": 1, "dnsPolicy": "Default", "enableServiceLinks": false});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let pod = json!({"metadata": {"name": "web", "namespace": "default", "uid": uid}, "spec": whole});
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// A kubelet of one pod.
struct Kubelet {
    ctx: Ctx,
    uid: String,
    commands: watch::Sender<Command>,
    tasks: Tasks,
    token: CancellationToken,
    exit: tokio::sync::oneshot::Receiver<Exit>,
}

impl Kubelet {
    fn start(node: &Node, pod: &Arc<Pod>) -> Self {
        let tasks = Tasks::new("test");
        let ctx = node.context(&tasks);
        let uid = pod.metadata.uid.clone().unwrap();
        let (commands, receiver) = watch::channel(Command { pod: pod.clone(), gone: false });
        let (token, wakers) = (CancellationToken::new(), Wakers::default());
        let (runtime, waker) = (node.runtime.clone(), wakers.runtime.clone());
        let changed = move |_: &pleg::Owner| waker.notify_one();
        tasks.spawn("pleg", pleg::run(runtime, pleg::Listing::default(), changed, || true, token.clone()));
        let (sender, exit) = tokio::sync::oneshot::channel();
        let worker = Worker::new(ctx.clone(), uid.clone(), receiver, wakers);
        let stop = token.clone();
        tasks.spawn("worker", async move {
            let _ = sender.send(Box::pin(worker.run(stop)).await);
        });
        Self { ctx, uid, commands, tasks, token, exit }
    }

    async fn view(&self) -> PodView {
        observe(&self.ctx.runtime, &self.uid, &PodView::default()).await.unwrap()
    }

    async fn running(&self, name: &str) -> String {
        eventually(&format!("{name} runs"), || async {
            self.view().await.latest(name).is_some_and(|c| c.state == RunState::Running)
        })
        .await;
        self.view().await.latest(name).unwrap().id.clone()
    }

    /// Ends the kubelet, not the pod.
    async fn crash(self) {
        drop(self.tasks);
    }

    /// Ends the pod, as when its object was deleted by force.
    async fn delete(self) {
        self.commands.send_modify(|c| c.gone = true);
        assert_eq!(self.exit.await.unwrap(), Exit::Gone);
        assert!(observe(&self.ctx.runtime, &self.uid, &PodView::default()).await.unwrap().is_empty());
        assert!(!self.ctx.pod_dir(&self.uid).exists(), "the pod's directory is gone");
        self.token.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_survives_its_kubelet_and_leaves_nothing_behind() {
    if !privileged() {
        return;
    }
    let node = Node::start().await;
    let pod = pod(
        "5b1c9a3e-0001",
        json!({
        "containers": [{"name": "c", "image": IMAGE, "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo $(A) > /mem/f; exec sleep 100000"], "env": [{"name": "A", "value": "1"}],
            "volumeMounts": [{"name": "mem", "mountPath": "/mem"}, {"name": "dir", "mountPath": "/d", "subPath": "a/b"}]}],
        "volumes": [{"name": "mem", "emptyDir": {"medium": "Memory"}}, {"name": "dir", "emptyDir": {}}]}),
    );
    let first = Kubelet::start(&node, &pod);
    let id = first.running("c").await;
    let file = first.ctx.pod_dir(&first.uid).join("volumes/kubernetes.io~empty-dir/mem/f");
    eventually("the container wrote", || async { std::fs::read_to_string(&file).is_ok_and(|t| t == "1\n") })
        .await;
    assert!(node.has_cgroup(&first.uid));
    first.crash().await;
    let second = Kubelet::start(&node, &pod);
    // Give a kubelet that would start a second run the time to do so.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let view = second.view().await;
    assert_eq!(
        view.containers.iter().map(|c| (c.id.as_str(), c.state)).collect::<Vec<_>>(),
        [(id.as_str(), RunState::Running)]
    );
    assert_eq!(view.sandboxes.len(), 1);
    second.delete().await;
    assert!(!node.has_cgroup("5b1c9a3e-0001"));
    assert_eq!(std::fs::read_dir(node.path("logs")).unwrap().count(), 0, "the logs are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_restart_with_a_delay_and_init_containers_come_first() {
    if !privileged() {
        return;
    }
    let node = Node::start().await;
    let pod = pod(
        "5b1c9a3e-0002",
        json!({
        "initContainers": [{"name": "init", "image": IMAGE, "imagePullPolicy": "Never", "command": ["true"]}],
        "containers": [{"name": "c", "image": IMAGE, "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo why > /dev/termination-log; exit 7"]}]}),
    );
    let kubelet = Kubelet::start(&node, &pod);
    let ended = |view: &PodView, attempt| {
        view.latest("c").is_some_and(|c| c.attempt == attempt && c.state == RunState::Exited)
    };
    eventually("the first restart", || async { ended(&kubelet.view().await, 1) }).await;
    let view = kubelet.view().await;
    let (c, init) = (view.latest("c").unwrap(), view.latest("init").unwrap());
    assert_eq!(c.exit_code, 7);
    assert_eq!((init.exit_code, init.attempt), (0, 0));
    let first = view.previous("c").unwrap();
    assert!(init.finished_at <= first.started_at);
    let words = kubelet.ctx.pod_dir(&kubelet.uid).join("containers/c/1");
    assert_eq!(std::fs::read_to_string(words).unwrap(), "why\n");
    eventually("the second restart", || async { ended(&kubelet.view().await, 2) }).await;
    let view = kubelet.view().await;
    let gap =
        view.latest("c").unwrap().created_at.duration_since(view.previous("c").unwrap().finished_at.unwrap());
    assert!((10..14).contains(&gap.as_secs()), "the second restart waits ten seconds, not {gap:?}");
    kubelet.delete().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_killed_from_outside_runs_again() {
    if !privileged() {
        return;
    }
    let node = Node::start().await;
    let pod = pod(
        "5b1c9a3e-0003",
        json!({"containers": [{"name": "c", "image": IMAGE, "imagePullPolicy": "Never",
        "command": ["sleep", "100000"]}]}),
    );
    let kubelet = Kubelet::start(&node, &pod);
    let id = kubelet.running("c").await;
    node.runtime.stop_container(&id, std::time::Duration::ZERO).await.unwrap();
    eventually("another run", || async {
        kubelet.view().await.latest("c").is_some_and(|c| c.id != id && c.state == RunState::Running)
    })
    .await;
    assert_eq!(kubelet.view().await.latest("c").unwrap().attempt, 1);
    kubelet.delete().await;
}
