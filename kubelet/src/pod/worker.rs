//! The task that owns a pod's life: observes, steps, acts, and reports the status.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::meta::MetaExt;
use client::EventType::{Normal, Warning};
use component::tasks::{AbortOnDrop, Tasks};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::container::TERMINATION_POLICY_ANNOTATION;
use super::ops::{self, StartError};
use super::state::{ContainerOp, Doomed, Life, Memory, Termination, Trouble, Why, Work, retry_at};
use super::status;
use super::step::{self, Action, Plan, pod_label, step};
use super::view::{PodView, RunState, observe};
use crate::context::Ctx;
use crate::prober::{Probed, Prober};
use crate::probes::Purpose;
use crate::resources::all_containers;

/// What a worker is told of its pod.
#[derive(Clone, Debug)]
pub struct Command {
    /// The pod as the API has it, or had it last.
    pub pod: Arc<Pod>,
    /// Whether the API object is gone.
    pub gone: bool,
}

/// How a worker ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing of the pod is left on the node.
    Gone,
    /// Something panicked; a new worker must take the pod over.
    Crashed,
    /// The kubelet shuts down.
    ShutDown,
}

/// The end of an act.
enum Done {
    Mounted(Result<(), String>),
    Refreshed(Result<bool, String>),
    Sandbox(Result<String, String>),
    Removed(String, Result<(), String>),
    Started(String, Result<String, StartError>),
    Killed(String, String),
    Released(Result<(), String>),
}

/// Where a pod's worker is waked from.
#[derive(Clone, Debug, Default)]
pub struct Wakers {
    /// The runtime reports a change.
    pub runtime: Arc<Notify>,
    /// A ConfigMap or Secret that the pod refers to has changed.
    pub objects: Arc<Notify>,
}

/// A pod's worker.
pub struct Worker {
    ctx: Ctx,
    uid: String,
    commands: watch::Receiver<Command>,
    wakers: Wakers,
    tasks: Tasks,
    sender: mpsc::Sender<Done>,
    done: mpsc::Receiver<Done>,
    probe_sender: mpsc::Sender<Probed>,
    probed: mpsc::Receiver<Probed>,
    view: PodView,
    memory: Memory,
    /// The status that was made last, over which the next one is made.
    status: Option<PodStatus>,
    cancels: HashMap<String, CancellationToken>,
    probes: HashMap<(String, Purpose), (String, AbortOnDrop)>,
    /// How often work of a name has failed in a row.
    failures: HashMap<String, u32>,
    stale: bool,
    first: bool,
    observe_failures: u32,
    observe_at: Option<Timestamp>,
    wake: Option<Timestamp>,
}

impl Worker {
    /// A worker for the pod that `commands` tells of.
    pub fn new(ctx: Ctx, uid: String, commands: watch::Receiver<Command>, wakers: Wakers) -> Self {
        let (sender, done) = mpsc::channel(64);
        let (probe_sender, probed) = mpsc::channel(16);
        Self {
            ctx,
            uid,
            commands,
            wakers,
            tasks: Tasks::new("pod"),
            sender,
            done,
            probe_sender,
            probed,
            view: PodView::default(),
            memory: Memory::default(),
            status: None,
            cancels: HashMap::new(),
            probes: HashMap::new(),
            failures: HashMap::new(),
            stale: true,
            first: true,
            observe_failures: 0,
            observe_at: None,
            wake: None,
        }
    }

    /// The same for a pod that the node refuses: it ends before it began.
    pub fn refused(mut self, reason: String, message: String) -> Self {
        let why = Why::Failed { reason, message };
        let since = self.ctx.clock.now();
        self.memory.life = Life::Terminating(Termination { why, grace: Duration::from_secs(1), since });
        self
    }

    /// Works until nothing of the pod is left, or `token` says that the kubelet ends.
    pub async fn run(mut self, token: CancellationToken) -> Exit {
        let pod = self.pod();
        self.refer(&pod);
        let exit = loop {
            if self.stale {
                self.observe().await;
            }
            if !self.stale {
                self.advance();
            }
            if matches!(self.memory.life, Life::Gone(_)) {
                break Exit::Gone;
            }
            if let Some(exit) = self.wait(&token).await {
                break exit;
            }
        };
        let pod = self.pod();
        self.ctx.objects.forget(pod.namespace(), &self.uid, &self.wakers.objects);
        exit
    }

    fn refer(&self, pod: &Pod) {
        if !self.commands.borrow().gone {
            self.ctx.objects.refer(pod.namespace(), &self.uid, pod, &self.wakers.objects);
        }
    }

    /// The pod with the status that was made here last, and the conditions that others wrote.
    fn pod(&self) -> Arc<Pod> {
        let pod = self.commands.borrow().pod.clone();
        let Some(own) = &self.status else { return pod };
        let known = pod.status.clone().unwrap_or_default();
        let mut pod = Pod::clone(&pod);
        pod.status = Some(crate::report::over(own, &known));
        Arc::new(pod)
    }

    fn pod_ips(&self, pod: &Pod) -> Vec<String> {
        if pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true)) {
            return self.ctx.host_ips.clone();
        }
        self.view.sandbox().map(|s| s.ips.clone()).unwrap_or_default()
    }

    /// Where containers are reached from the node.
    fn host(&self, pod: &Pod) -> String {
        self.pod_ips(pod).into_iter().next().unwrap_or_else(|| "127.0.0.1".into())
    }

    async fn observe(&mut self) {
        let now = self.ctx.clock.now();
        if self.observe_at.is_some_and(|at| at > now) {
            return;
        }
        match observe(&self.ctx.runtime, &self.uid, &self.view).await {
            Ok(mut view) => {
                self.read_last_words(&mut view);
                self.view = view;
                self.stale = false;
                self.observe_failures = 0;
                self.observe_at = None;
                if std::mem::take(&mut self.first) {
                    self.recall();
                }
            }
            Err(error) => {
                tracing::warn!(uid = self.uid, %error, "the runtime does not answer; trying again");
                let (first, max) = (Duration::from_millis(500), Duration::from_secs(10));
                self.observe_at = Some(retry_at(now, self.observe_failures, first, max));
                self.observe_failures += 1;
            }
        }
    }

    /// Completes the runtime's report of runs that have ended since the last one.
    fn read_last_words(&self, view: &mut PodView) {
        let pod = self.commands.borrow().pod.clone();
        let dir = self.ctx.pod_dir(&self.uid);
        let logs = super::sandbox::log_directory(&self.ctx.node.log_root, &pod);
        let known = |id: &str| self.view.containers.iter().any(|c| c.id == id && c.state == RunState::Exited);
        for run in view.containers.iter_mut().filter(|c| c.state == RunState::Exited && !known(&c.id)) {
            let policy = run.annotations.get(TERMINATION_POLICY_ANNOTATION).map(String::as_str);
            let from_log = policy == Some("FallbackToLogsOnError") && run.exit_code != 0;
            let log = std::path::Path::new(&logs).join(&run.name).join(format!("{}.log", run.attempt));
            let words = ops::message(&dir, &log, &run.name, run.attempt, from_log);
            if !words.is_empty() {
                run.message = words;
            }
        }
    }

    /// What an earlier kubelet knew of runs that still go on.
    fn recall(&mut self) {
        let pod = self.commands.borrow().pod.clone();
        let Some(status) = &pod.status else { return };
        let lists = [&status.container_statuses, &status.init_container_statuses];
        for known in lists.into_iter().flatten().flatten() {
            let Some(run) = self.view.latest(&known.name).filter(|r| r.state == RunState::Running) else {
                continue;
            };
            if known.container_id.as_deref() == Some(&format!("containerd://{}", run.id)) {
                let memory = self.memory.containers.entry(known.name.clone()).or_default();
                memory.started = (known.started == Some(true)).then(|| run.id.clone());
                memory.ready = known.ready.then(|| run.id.clone());
            }
        }
        // Volumes of a pod that runs already were set up; setting up again is idempotent and restores
        // what is refreshed, so nothing is remembered of them here.
    }

    /// Steps until there is nothing more to decide, then reports.
    fn advance(&mut self) {
        let plan = loop {
            let now = self.ctx.clock.now();
            let pod = self.pod();
            let gone = self.commands.borrow().gone;
            let input = step::Input { pod: &pod, gone, view: &self.view, memory: &self.memory, now };
            let mut plan = step(input);
            match plan.life.take() {
                Some(life) => self.begin(&pod, life),
                None => break plan,
            }
            if matches!(self.memory.life, Life::Gone(_)) {
                return;
            }
        };
        let pod = self.pod();
        self.wake = plan.wake;
        for action in &plan.actions {
            self.act(&pod, action);
        }
        self.probe(&pod);
        self.report(&plan);
    }

    fn begin(&mut self, pod: &Arc<Pod>, life: Life) {
        tracing::info!(pod = %pod_label(pod), "{life}");
        self.memory.release = Work::Idle;
        if let (Life::Terminating(end), Life::Active) = (&life, &self.memory.life) {
            match &end.why {
                Why::Failed { reason, message } => {
                    self.ctx.pod_event(pod, Normal, reason, message.clone());
                }
                Why::Deleted | Why::Gone | Why::Completed => {}
            }
        }
        // The status must be complete before the records that it is made from go.
        if let Life::Removing(_) = life {
            self.report(&Plan::default());
        }
        self.memory.life = life;
        if let Life::Gone(end) = &self.memory.life {
            match end.why {
                Why::Deleted => {
                    let pod = self.commands.borrow().pod.clone();
                    self.ctx.reporter.delete(&pod, self.status.clone().unwrap_or_default());
                }
                Why::Gone => self.ctx.reporter.forget(&self.uid),
                Why::Completed | Why::Failed { .. } => {}
            }
        }
    }

    /// Makes the status and wishes for it, unless it is as it was.
    fn report(&mut self, plan: &Plan) {
        let (pod, gone) = {
            let c = self.commands.borrow();
            (c.pod.clone(), c.gone)
        };
        if gone || matches!(self.memory.life, Life::Removing(_) | Life::Gone(_)) {
            return;
        }
        let merged = self.pod();
        if let (Some(Why::Failed { reason, message }), true) =
            (self.memory.life.termination().map(|t| &t.why), self.view.is_empty() && self.never_started(&pod))
        {
            let new = status::rejected(&merged, reason, message, self.ctx.clock.now());
            return self.wish(&pod, new);
        }
        let new = status::status(status::Input {
            pod: &merged,
            view: &self.view,
            memory: &self.memory,
            waiting: &plan.waiting,
            host_ips: &self.ctx.host_ips,
            now: self.ctx.clock.now(),
        });
        self.wish(&pod, new);
    }

    fn wish(&mut self, pod: &Arc<Pod>, new: PodStatus) {
        if self.status.as_ref() != Some(&new) {
            self.status = Some(new.clone());
            self.ctx.reporter.report(pod, new);
        }
    }

    /// Whether the API shows that no container of the pod ever started.
    fn never_started(&self, pod: &Pod) -> bool {
        pod.status
            .as_ref()
            .is_none_or(|s| s.container_statuses.is_none() && s.init_container_statuses.is_none())
    }

    fn spawn(&self, name: String, work: impl Future<Output = Done> + Send + 'static) {
        let sender = self.sender.clone();
        self.tasks.spawn(name, async move {
            // The worker may have ended meanwhile; then nobody waits for this.
            let _ = sender.send(work.await).await;
        });
    }

    fn act(&mut self, pod: &Arc<Pod>, action: &Action) {
        let (ctx, subject) = (self.ctx.clone(), pod.clone());
        tracing::debug!(pod = %pod_label(pod), ?action, "acting");
        match action.clone() {
            Action::Mount => {
                self.memory.volumes = Work::Doing;
                let ips = self.pod_ips(pod);
                self.spawn(
                    "mount".into(),
                    async move { Done::Mounted(ops::mount(&ctx, &subject, ips).await) },
                );
            }
            Action::CreateSandbox { attempt } => {
                if attempt > 0 {
                    let message = "Pod sandbox changed, it will be killed and re-created.";
                    ctx.pod_event(pod, Normal, "SandboxChanged", message);
                }
                self.memory.sandbox = Work::Doing;
                let old: Vec<_> = self.view.sandboxes.iter().map(|s| s.id.clone()).collect();
                self.spawn("sandbox".into(), async move {
                    for id in old {
                        if let Err(error) = ctx.runtime.stop_sandbox(&id).await {
                            return Done::Sandbox(Err(error.to_string()));
                        }
                    }
                    Done::Sandbox(ops::create_sandbox(&ctx, &subject, attempt).await)
                });
            }
            Action::StopSandbox { id } => {
                self.remove(id, move |id| async move { ctx.runtime.stop_sandbox(&id).await })
            }
            Action::RemoveSandbox { id } => {
                self.remove(id, move |id| async move { ctx.runtime.remove_sandbox(&id).await })
            }
            Action::RemoveContainer { id } => {
                self.remove(id, move |id| async move { ctx.runtime.remove_container(&id).await })
            }
            Action::Start { name, attempt, sandbox, backoff } => {
                let memory = self.memory.container(&name);
                memory.backoff = backoff.or(memory.backoff);
                memory.op = ContainerOp::Starting;
                self.start(pod, name, attempt, &sandbox);
            }
            Action::CancelStart { name } => {
                if let Some(token) = self.cancels.get(&name) {
                    token.cancel();
                }
            }
            Action::Kill { name, id, grace, message } => self.kill(pod, name, id, grace, message),
            Action::TearDown => {
                self.memory.release = Work::Doing;
                let sandboxes: Vec<_> = self.view.sandboxes.iter().map(|s| s.id.clone()).collect();
                let uid = self.uid.clone();
                self.spawn("tear down".into(), async move {
                    Done::Released(ops::tear_down(&ctx, &uid, &sandboxes).await)
                });
            }
            Action::Remove => {
                self.memory.release = Work::Doing;
                let sandboxes: Vec<_> = self.view.sandboxes.iter().map(|s| s.id.clone()).collect();
                let containers: Vec<_> = self.view.containers.iter().map(|c| c.id.clone()).collect();
                self.spawn("remove".into(), async move {
                    Done::Released(ops::remove(&ctx, &subject, &containers, &sandboxes).await)
                });
            }
            Action::AnnounceBackoff { name, id } => {
                let message =
                    format!("Back-off restarting failed container {name} in pod {}", pod_label(pod));
                ctx.container_event(pod, &name, Warning, "BackOff", message);
                self.memory.container(&name).announced = Some(id);
            }
        }
    }

    fn remove<F>(&mut self, id: String, work: impl FnOnce(String) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), crate::runtime::RuntimeError>> + Send + 'static,
    {
        self.memory.removing.insert(id.clone(), Work::Doing);
        self.spawn(format!("remove {id}"), async move {
            let result = work(id.clone()).await.map_err(|e| e.to_string());
            Done::Removed(id, result)
        });
    }

    fn start(&mut self, pod: &Arc<Pod>, name: String, attempt: u32, sandbox: &str) {
        let number = self.view.sandboxes.iter().find(|s| s.id == sandbox).map_or(0, |s| s.attempt);
        let spec = pod.spec.iter().flat_map(all_containers).find(|c| c.name == name).cloned();
        let token = CancellationToken::new();
        self.cancels.insert(name.clone(), token.clone());
        let start = ops::Start {
            pod: pod.clone(),
            container: spec.unwrap_or_default(),
            attempt,
            sandbox: (sandbox.to_owned(), number),
            pod_ips: self.pod_ips(pod),
            token,
        };
        let ctx = self.ctx.clone();
        self.spawn(format!("start {name}"), async move {
            let result = Box::pin(ops::start(&ctx, &start)).await;
            Done::Started(name, result)
        });
    }

    fn kill(&mut self, pod: &Arc<Pod>, name: String, id: String, grace: Duration, message: String) {
        self.ctx.container_event(pod, &name, Normal, "Killing", message);
        self.memory.container(&name).op = ContainerOp::Stopping { id: id.clone(), grace };
        let (ctx, pod, host) = (self.ctx.clone(), pod.clone(), self.host(pod));
        self.spawn(format!("stop {name}"), async move {
            ops::kill(&ctx, &pod, &name, &id, &host, grace).await;
            Done::Killed(name, id)
        });
    }

    fn trouble(
        &self,
        reason: &str,
        message: String,
        failures: u32,
        first: Duration,
        max: Duration,
    ) -> Trouble {
        let now = self.ctx.clock.now();
        let until = retry_at(now, failures, first, max);
        Trouble { reason: reason.into(), message, at: now, until, failures: failures + 1 }
    }

    /// What has become of work of a name that is done again until it succeeds.
    fn work(&mut self, what: &str, result: Result<(), String>, (first, max): (u64, u64)) -> Work {
        match result {
            Ok(()) => {
                self.failures.remove(what);
                Work::Done
            }
            Err(message) => {
                tracing::warn!(uid = self.uid, %message, what, "failed; trying again");
                let failures = self.failures.get(what).copied().unwrap_or(0);
                self.failures.insert(what.to_owned(), failures + 1);
                let (first, max) = (Duration::from_millis(first), Duration::from_millis(max));
                Work::Failed(self.trouble(what, message, failures, first, max))
            }
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Mounted(result) => self.memory.volumes = self.work("mount", result, (500, 122_000)),
            Done::Refreshed(Ok(false)) => {}
            Done::Refreshed(Ok(true)) => tracing::info!(uid = self.uid, "volumes brought up to date"),
            Done::Refreshed(Err(message)) => {
                tracing::warn!(uid = self.uid, %message, "volumes not brought up to date");
            }
            Done::Sandbox(result) => {
                self.ctx.meters.started_pods.inc_by(u64::from(result.is_ok()));
                self.memory.sandbox = self.work("sandbox", result.map(|_| ()), (300, 10_000));
                self.stale = true;
            }
            Done::Removed(id, result) => {
                match self.work(&id, result, (1000, 60_000)) {
                    failed @ Work::Failed(_) => self.memory.removing.insert(id, failed),
                    Work::Idle | Work::Doing | Work::Done => self.memory.removing.remove(&id),
                };
                self.stale = true;
            }
            Done::Started(name, result) => self.started(&name, result),
            Done::Killed(name, id) => {
                let memory = self.memory.container(&name);
                if matches!(&memory.op, ContainerOp::Stopping { id: stopping, .. } if *stopping == id) {
                    memory.op = ContainerOp::Idle;
                }
                self.stale = true;
            }
            Done::Released(result) => {
                self.memory.release = self.work("release", result, (200, 30_000));
                self.stale = true;
            }
        }
    }

    fn started(&mut self, name: &str, result: Result<String, StartError>) {
        self.stale = true;
        self.cancels.remove(name);
        match &result {
            Ok(_) => self.ctx.meters.started_containers.inc(),
            Err(_) => self.ctx.meters.started_containers_errors.inc(),
        };
        let failures = self.memory.container(name).trouble.as_ref().map_or(0, |t| t.failures);
        let trouble = result.err().map(|error| {
            tracing::info!(
                uid = self.uid,
                container = name,
                reason = error.reason,
                message = error.message,
                "container not started"
            );
            let (first, max) = match error.reason {
                // The delay of a run that began is that of the crash loop.
                "RunContainerError" | "PostStartHookError" | "ContainerCreating" => {
                    (Duration::ZERO, Duration::ZERO)
                }
                "CreateContainerConfigError" => (Duration::from_secs(2), Duration::from_secs(10)),
                _ => (Duration::from_secs(10), Duration::from_secs(300)),
            };
            self.trouble(error.reason, error.message, failures, first, max)
        });
        let memory = self.memory.container(name);
        memory.op = ContainerOp::Idle;
        memory.trouble = trouble;
    }

    fn learn(&mut self, result: Probed) {
        let Probed { name, id, purpose, success } = result;
        let name = name.as_str();
        let pod = self.commands.borrow().pod.clone();
        let spec = pod.spec.iter().flat_map(all_containers).find(|c| c.name == name);
        let grace = spec.and_then(|c| purpose.of(c)).and_then(|p| p.termination_grace_period_seconds);
        let grace = grace.and_then(|g| u64::try_from(g).ok()).map(|g| Duration::from_secs(g.max(1)));
        let memory = self.memory.container(name);
        match (purpose, success) {
            (Purpose::Readiness, true) => memory.ready = Some(id),
            (Purpose::Readiness, false) => memory.ready = None,
            (Purpose::Startup, true) => memory.started = Some(id),
            (Purpose::Liveness, true) => {}
            (Purpose::Startup | Purpose::Liveness, false) => {
                let which = purpose.name().to_lowercase();
                let message = format!("Container {name} failed {which} probe, will be restarted");
                memory.doomed = Some(Doomed { id, message, grace });
            }
        }
    }

    /// Starts the probes that are due, and ends those whose run is over.
    fn probe(&mut self, pod: &Arc<Pod>) {
        let mut wanted = Vec::new();
        for container in pod.spec.iter().flat_map(all_containers) {
            let Some(run) = self.view.latest(&container.name).filter(|r| r.state == RunState::Running) else {
                continue;
            };
            let memory = self.memory.containers.get(&container.name);
            let passed = memory.is_some_and(|m| m.started.as_deref() == Some(run.id.as_str()));
            let starting = container.startup_probe.is_some() && !passed;
            // A run that is being stopped is not asked again whether it is alive.
            let stopping = memory.is_some_and(|m| matches!(m.op, ContainerOp::Stopping { .. }));
            let purposes: &[Purpose] = match (&self.memory.life, starting) {
                (Life::Active, _) if stopping => &[Purpose::Readiness],
                (Life::Active, true) => &[Purpose::Startup],
                (Life::Active, false) => &[Purpose::Liveness, Purpose::Readiness],
                (_, _) => &[Purpose::Readiness],
            };
            for purpose in purposes.iter().filter(|p| p.of(container).is_some()) {
                wanted.push((container.clone(), *purpose, run.id.clone(), run.started_at));
            }
        }
        self.probes.retain(|(name, purpose), (id, _)| {
            wanted.iter().any(|(c, p, i, _)| c.name == *name && p == purpose && i == id)
        });
        for (container, purpose, id, since) in wanted {
            let key = (container.name.clone(), purpose);
            if self.probes.contains_key(&key) {
                continue;
            }
            let prober = Prober {
                ctx: self.ctx.clone(),
                pod: pod.clone(),
                host: self.host(pod),
                ready: self.memory.containers.get(&container.name).is_some_and(|m| m.ready.is_some()),
                container,
                purpose,
                id: id.clone(),
                since: since.unwrap_or_else(|| self.ctx.clock.now()),
            };
            let work = prober.run(self.probe_sender.clone());
            let handle = self.tasks.spawn(format!("{} probe", purpose.name()), work);
            self.probes.insert(key, (id, AbortOnDrop(handle)));
        }
    }

    /// Waits for something to happen.
    async fn wait(&mut self, token: &CancellationToken) -> Option<Exit> {
        let next = if self.stale { self.observe_at } else { self.wake };
        let delay = next.map(|at| at.duration_since(self.ctx.clock.now()));
        let delay = delay.map(|d| Duration::try_from(d).unwrap_or_default() + Duration::from_millis(1));
        let timer = async {
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = token.cancelled() => return Some(Exit::ShutDown),
            task = self.tasks.failed() => {
                tracing::error!(uid = self.uid, task, "a pod's task panicked; its worker begins anew");
                return Some(Exit::Crashed);
            }
            changed = self.commands.changed() => {
                if changed.is_err() {
                    return Some(Exit::ShutDown);
                }
                let pod = self.commands.borrow_and_update().pod.clone();
                self.refer(&pod);
                self.refresh_volumes();
            }
            () = self.wakers.runtime.notified() => self.stale = true,
            () = self.wakers.objects.notified() => {
                self.hurry();
                self.refresh_volumes();
            }
            Some(done) = self.done.recv() => {
                self.finish(done);
            }
            Some(result) = self.probed.recv() => self.learn(result),
            () = timer => {}
        }
        None
    }

    /// What failed for want of an object is tried again at once.
    fn hurry(&mut self) {
        let now = self.ctx.clock.now();
        if let Work::Failed(trouble) = &mut self.memory.volumes {
            trouble.until = now;
        }
        for memory in self.memory.containers.values_mut() {
            if let Some(trouble) =
                memory.trouble.as_mut().filter(|t| t.reason == "CreateContainerConfigError")
            {
                trouble.until = now;
            }
        }
    }

    fn refresh_volumes(&self) {
        if self.memory.volumes != Work::Done || self.memory.life != Life::Active {
            return;
        }
        let pod = self.pod();
        let from_api = |v: &k8s_openapi::api::core::v1::Volume| {
            v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some()
        };
        if pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(from_api) {
            let (ctx, ips) = (self.ctx.clone(), self.pod_ips(&pod));
            self.spawn("refresh volumes".into(), async move {
                Done::Refreshed(ops::refresh(&ctx, &pod, ips).await)
            });
        }
    }
}
