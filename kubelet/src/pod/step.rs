//! The decision at the heart of the kubelet: from a pod's spec, what the runtime reports of it and what
//! is remembered, to what is to be done next.

use std::collections::BTreeMap;
use std::time::Duration;

use api::meta::MetaExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, Pod, PodSpec};

use super::container::definition_hash;
use super::state::{Backoff, ContainerOp, Life, Memory, Termination, Trouble, Why, Work, go_duration};
use super::view::{Container, PodView, RunState};
use crate::resources::{init_containers, is_sidecar};

#[cfg(test)]
mod tests;

/// The annotation under which a container's definition is remembered.
pub const HASH_ANNOTATION: &str = "io.kubernetes.container.hash";

/// How long a failed pull shows its error before it shows that it waits.
const SHOW_PULL_ERROR: SignedDuration = SignedDuration::from_secs(5);

/// One thing to do. The worker does it beside its loop and reports the end.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Set up the pod's directories, cgroup and volumes.
    Mount,
    /// Make a sandbox.
    CreateSandbox {
        /// Its number.
        attempt: u32,
    },
    /// Stop a sandbox that a newer one has replaced.
    StopSandbox {
        /// Which one.
        id: String,
    },
    /// Remove a stopped sandbox in which nothing is kept.
    RemoveSandbox {
        /// Which one.
        id: String,
    },
    /// See to the image, make the container and start it.
    Start {
        /// The container's name.
        name: String,
        /// The number of the run.
        attempt: u32,
        /// The sandbox to start it in.
        sandbox: String,
        /// The delay to keep after this run.
        backoff: Option<Backoff>,
    },
    /// Give up starting a container, because the pod ends.
    CancelStart {
        /// The container's name.
        name: String,
    },
    /// Run the preStop hook, then stop the container.
    Kill {
        /// The container's name.
        name: String,
        /// Which run.
        id: String,
        /// How long it may take.
        grace: Duration,
        /// What the Killing event says.
        message: String,
    },
    /// Remove the record of an ended run.
    RemoveContainer {
        /// Which run.
        id: String,
    },
    /// Stop the sandboxes, unmount the volumes, remove the cgroup.
    TearDown,
    /// Remove every record: containers, sandboxes, logs, the pod's directory.
    Remove,
    /// Say that a container is in a crash loop.
    AnnounceBackoff {
        /// The container's name.
        name: String,
        /// The run that ended.
        id: String,
    },
}

/// Why a container is not running, for its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Such as `CrashLoopBackOff`.
    pub reason: String,
    /// For people; may be empty.
    pub message: String,
}

/// What a step decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do now, all at once.
    pub actions: Vec<Action>,
    /// A new part of the pod's life begins; step again at once.
    pub life: Option<Life>,
    /// When to look again though nothing has happened.
    pub wake: Option<Timestamp>,
    /// Why containers that are to run do not.
    pub waiting: BTreeMap<String, Waiting>,
}

/// What a step decides from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The pod as the API has it, or had it last.
    pub pod: &'a Pod,
    /// Whether the API object is gone.
    pub gone: bool,
    /// What the runtime reports.
    pub view: &'a PodView,
    /// What is remembered.
    pub memory: &'a Memory,
    /// The present.
    pub now: Timestamp,
}

/// Decides what to do next.
pub fn step(input: Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &input.pod.spec else { return plan };
    let stepper = Stepper { input, spec };
    match &input.memory.life {
        Life::Active => stepper.active(&mut plan),
        Life::Terminating(end) => stepper.terminating(&mut plan, end),
        Life::TearingDown(end) => stepper.tearing_down(&mut plan, end),
        Life::Ended(end) => stepper.ended(&mut plan, end),
        Life::Removing(end) => stepper.removing(&mut plan, end),
        Life::Gone(_) => {}
    }
    plan
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn waits(&mut self, name: &str, reason: &str, message: impl Into<String>) {
        self.waiting.insert(name.to_owned(), Waiting { reason: reason.into(), message: message.into() });
    }
}

/// How long a pod's containers may take to stop, once its end has begun: at least a second.
pub fn grace_of(pod: &Pod) -> Duration {
    let asked = pod.metadata.deletion_grace_period_seconds;
    let own = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    Duration::from_secs(u64::try_from(asked.or(own).unwrap_or(30)).unwrap_or(0).max(1))
}

/// Whether the restart policy wants another run after one that ended with this code.
pub fn restarts(policy: &str, exit_code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

fn policy(spec: &PodSpec) -> &str {
    spec.restart_policy.as_deref().unwrap_or("Always")
}

/// The policy that holds for one container: sidecars always restart, init containers at least on failure.
fn policy_of<'a>(spec: &'a PodSpec, container: &Spec, init: bool) -> &'a str {
    match (is_sidecar(container), init, policy(spec)) {
        (true, true, _) => "Always",
        (false, true, "Never") => "Never",
        (false, true, _) => "OnFailure",
        (_, false, own) => own,
    }
}

/// Whether the containers have come to an end that the restart policy accepts.
fn is_finished(spec: &PodSpec, view: &PodView) -> bool {
    let exit = |name: &str| view.latest(name).filter(|c| c.state == RunState::Exited).map(|c| c.exit_code);
    let main = |c: &Spec| exit(&c.name).is_some_and(|code| !restarts(policy(spec), code));
    let init_failed =
        |c: &Spec| !is_sidecar(c) && policy(spec) == "Never" && exit(&c.name).is_some_and(|code| code != 0);
    let begun = spec.containers.iter().any(|c| view.latest(&c.name).is_some());
    (!begun && init_containers(spec).iter().any(init_failed)) || spec.containers.iter().all(main)
}

/// When a pod's `activeDeadlineSeconds` run out.
fn deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    start.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Whether an ended container may run again.
#[derive(Debug, PartialEq)]
pub enum Gate {
    /// Now; the delay is for the run after this one.
    Go(Backoff),
    /// Then, because of a delay of this length.
    Wait(Timestamp, Duration),
}

/// Whether an ended run may be followed by the next.
pub fn gate(remembered: Option<Backoff>, run: &Container, now: Timestamp) -> Gate {
    let finished = run.finished_at.unwrap_or(run.created_at);
    let lasted = run.started_at.map(|started| finished.duration_since(started));
    let known = remembered.or_else(|| Backoff::after_restarts(run.attempt));
    match known.filter(|_| lasted.is_none_or(|l| l < Backoff::RESET)) {
        None => Gate::Go(Backoff::FIRST),
        Some(delay) => {
            let span = SignedDuration::try_from(delay.0).unwrap_or(SignedDuration::MAX);
            let until = finished.checked_add(span).unwrap_or(Timestamp::MAX);
            if until > now { Gate::Wait(until, delay.0) } else { Gate::Go(delay.next()) }
        }
    }
}

struct Stepper<'a> {
    input: Input<'a>,
    spec: &'a PodSpec,
}

impl<'a> Stepper<'a> {
    fn begin(&self, plan: &mut Plan, why: Why) {
        let grace = grace_of(self.input.pod);
        plan.life = Some(Life::Terminating(Termination { why, grace, since: self.input.now }));
    }

    /// The reason for the pod's end, if there is one.
    fn end(&self) -> Option<Why> {
        let phase = self.input.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if self.input.gone {
            Some(Why::Gone)
        } else if self.input.pod.is_deleting() {
            Some(Why::Deleted)
        } else if matches!(phase, Some("Succeeded" | "Failed")) {
            Some(Why::Completed)
        } else if deadline(self.input.pod).is_some_and(|d| d <= self.input.now) {
            let message = "Pod was active on the node longer than the specified deadline".into();
            Some(Why::Failed { reason: "DeadlineExceeded".into(), message })
        } else if is_finished(self.spec, self.input.view) && !self.input.memory.is_busy() {
            Some(Why::Completed)
        } else {
            None
        }
    }

    fn active(&self, plan: &mut Plan) {
        if let Some(why) = self.end() {
            return self.begin(plan, why);
        }
        if let Some(at) = deadline(self.input.pod) {
            plan.wake_at(at);
        }
        self.default_waiting(plan);
        self.collect_garbage(plan);
        if !self.volumes_ready(plan) {
            return;
        }
        let Some(sandbox) = self.sandbox_ready(plan) else { return };
        if self.initialised(plan, &sandbox) {
            for container in &self.spec.containers {
                self.keep(plan, container, false, &sandbox);
            }
        }
    }

    /// What a container that has not been started shows.
    fn default_waiting(&self, plan: &mut Plan) {
        let reason =
            if init_containers(self.spec).is_empty() { "ContainerCreating" } else { "PodInitializing" };
        for container in crate::resources::all_containers(self.spec) {
            if self.input.view.latest(&container.name).is_none_or(|c| c.state == RunState::Created) {
                plan.waits(&container.name, reason, "");
            }
        }
    }

    /// Ended runs beyond the last two, and stopped sandboxes in which nothing is kept.
    fn collect_garbage(&self, plan: &mut Plan) {
        let view = self.input.view;
        let mut seen = BTreeMap::<&str, usize>::new();
        for run in &view.containers {
            let newer = seen.entry(run.name.as_str()).or_default();
            // The newest run is the present one; one more is kept for `logs --previous`.
            if *newer >= 2 && run.state == RunState::Exited {
                self.remove(plan, &run.id, Action::RemoveContainer { id: run.id.clone() });
            }
            *newer += 1;
        }
        for (index, sandbox) in view.sandboxes.iter().enumerate().skip(1) {
            let inhabited = view.containers.iter().any(|c| c.sandbox_id == sandbox.id);
            if sandbox.ready && index > 0 {
                self.remove(plan, &sandbox.id, Action::StopSandbox { id: sandbox.id.clone() });
            } else if !inhabited {
                self.remove(plan, &sandbox.id, Action::RemoveSandbox { id: sandbox.id.clone() });
            }
        }
    }

    fn remove(&self, plan: &mut Plan, id: &str, action: Action) {
        match self.input.memory.removing.get(id) {
            None | Some(Work::Idle | Work::Done) => plan.actions.push(action),
            Some(Work::Doing) => {}
            Some(Work::Failed(trouble)) => {
                if self.due(plan, trouble) {
                    plan.actions.push(action);
                }
            }
        }
    }

    fn due(&self, plan: &mut Plan, trouble: &Trouble) -> bool {
        if trouble.until <= self.input.now {
            return true;
        }
        plan.wake_at(trouble.until);
        false
    }

    fn volumes_ready(&self, plan: &mut Plan) -> bool {
        match &self.input.memory.volumes {
            Work::Done => return true,
            Work::Doing => {}
            Work::Idle => plan.actions.push(Action::Mount),
            Work::Failed(trouble) => {
                if self.due(plan, trouble) {
                    plan.actions.push(Action::Mount);
                }
            }
        }
        false
    }

    /// The sandbox to work in; makes one where none is ready.
    fn sandbox_ready(&self, plan: &mut Plan) -> Option<String> {
        let Input { view, memory, .. } = self.input;
        if let Some(sandbox) = view.sandbox() {
            return Some(sandbox.id.clone());
        }
        // What still runs in a broken sandbox has lost its network and must go first.
        let mut blocked = false;
        for run in view.containers.iter().filter(|c| c.is_alive()) {
            blocked = true;
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.kill(plan, run, grace_of(self.input.pod), message);
        }
        if blocked || memory.containers.values().any(|c| c.op != ContainerOp::Idle) {
            return None;
        }
        match &memory.sandbox {
            Work::Doing => return None,
            Work::Failed(trouble) if !self.due(plan, trouble) => return None,
            Work::Idle | Work::Done | Work::Failed(_) => {}
        }
        let attempt = view.sandboxes.first().map_or(0, |s| s.attempt + 1);
        plan.actions.push(Action::CreateSandbox { attempt });
        None
    }

    /// Runs the init containers in order; whether the pod's containers may start.
    fn initialised(&self, plan: &mut Plan, sandbox: &str) -> bool {
        let view = self.input.view;
        let begun = self.spec.containers.iter().any(|c| view.latest_in(&c.name, sandbox).is_some());
        for container in init_containers(self.spec) {
            let run = view.latest_in(&container.name, sandbox);
            if is_sidecar(container) {
                self.keep(plan, container, true, sandbox);
                if !begun && !run.is_some_and(|r| self.is_started(container, r)) {
                    return false;
                }
            } else if !begun {
                let done = run.is_some_and(|r| r.state == RunState::Exited && r.exit_code == 0);
                if !done {
                    self.keep(plan, container, true, sandbox);
                    return false;
                }
            }
        }
        true
    }

    /// Whether a run has passed its startup probe.
    fn is_started(&self, container: &Spec, run: &Container) -> bool {
        let passed = || {
            let memory = self.input.memory.containers.get(&container.name);
            memory.is_some_and(|m| m.started.as_deref() == Some(run.id.as_str()))
        };
        run.state == RunState::Running && (container.startup_probe.is_none() || passed())
    }

    /// Keeps a container running as its restart policy wants.
    fn keep(&self, plan: &mut Plan, container: &Spec, init: bool, sandbox: &str) {
        let name = container.name.as_str();
        let memory = self.input.memory.containers.get(name);
        match self.input.memory.op(name) {
            ContainerOp::Starting | ContainerOp::Stopping { .. } => return self.show_trouble(plan, name),
            ContainerOp::Idle => {}
        }
        let Some(run) = self.input.view.latest(name) else {
            return self.start(plan, name, self.first_attempt(name), sandbox, None);
        };
        let in_this_sandbox = run.sandbox_id == sandbox;
        match run.state {
            RunState::Running => {
                let doomed = memory.and_then(|m| m.doomed.as_ref()).filter(|d| d.id == run.id);
                if let Some(doomed) = doomed {
                    let grace = doomed.grace.unwrap_or_else(|| grace_of(self.input.pod));
                    self.kill(plan, run, grace, doomed.message.clone());
                } else if !init && definition_changed(container, run) {
                    let message = format!("Container {name} definition changed, will be restarted");
                    self.kill(plan, run, grace_of(self.input.pod), message);
                }
            }
            RunState::Unknown => {
                let message = format!("Container {name} is in an unknown state, will be restarted");
                self.kill(plan, run, grace_of(self.input.pod), message);
            }
            // Nobody is starting it: its maker was interrupted.
            RunState::Created => self.remove(plan, &run.id, Action::RemoveContainer { id: run.id.clone() }),
            RunState::Exited if !in_this_sandbox && init => {
                self.start(plan, name, run.attempt + 1, sandbox, None);
            }
            RunState::Exited if restarts(policy_of(self.spec, container, init), run.exit_code) => {
                self.restart(plan, run, sandbox);
            }
            RunState::Exited => {}
        }
    }

    fn restart(&self, plan: &mut Plan, run: &Container, sandbox: &str) {
        let memory = self.input.memory.containers.get(&run.name);
        match gate(memory.and_then(|m| m.backoff), run, self.input.now) {
            Gate::Go(next) => self.start(plan, &run.name, run.attempt + 1, sandbox, Some(next)),
            Gate::Wait(until, delay) => {
                plan.wake_at(until);
                let (name, delay) = (&run.name, go_duration(delay));
                let message = format!(
                    "back-off {delay} restarting failed container={name} pod={}",
                    pod_label(self.input.pod)
                );
                plan.waits(name, "CrashLoopBackOff", message);
                if memory.is_none_or(|m| m.announced.as_deref() != Some(run.id.as_str())) {
                    plan.actions.push(Action::AnnounceBackoff { name: name.clone(), id: run.id.clone() });
                }
            }
        }
    }

    /// The number of a run of which the runtime has no predecessor: one more than the API knows of.
    fn first_attempt(&self, name: &str) -> u32 {
        let status = self.input.pod.status.as_ref();
        let lists = status.into_iter().flat_map(|s| [&s.container_statuses, &s.init_container_statuses]);
        let known = lists.flatten().flatten().find(|c| c.name == name);
        let ran = known.filter(|c| c.container_id.as_deref().is_some_and(|id| !id.is_empty()));
        ran.and_then(|c| u32::try_from(c.restart_count).ok()).map_or(0, |n| n + 1)
    }

    fn show_trouble(&self, plan: &mut Plan, name: &str) {
        let trouble = self.input.memory.containers.get(name).and_then(|m| m.trouble.as_ref());
        let Some(trouble) = trouble else { return };
        if trouble.reason != "ErrImagePull" {
            return plan.waits(name, &trouble.reason, trouble.message.clone());
        }
        // The error is shown for a moment, then that the next try waits.
        let turn = trouble.at.checked_add(SHOW_PULL_ERROR).unwrap_or(Timestamp::MAX);
        if turn <= self.input.now {
            let image = crate::resources::all_containers(self.spec).find(|c| c.name == name);
            let image = image.and_then(|c| c.image.as_deref()).unwrap_or_default();
            let message = format!("Back-off pulling image {image:?}: ErrImagePull: {}", trouble.message);
            plan.waits(name, "ImagePullBackOff", message);
        } else {
            plan.wake_at(turn);
            plan.waits(name, &trouble.reason, trouble.message.clone());
        }
    }

    fn start(&self, plan: &mut Plan, name: &str, attempt: u32, sandbox: &str, backoff: Option<Backoff>) {
        self.show_trouble(plan, name);
        let trouble = self.input.memory.containers.get(name).and_then(|m| m.trouble.as_ref());
        if trouble.is_some_and(|t| !self.due(plan, t)) {
            return;
        }
        let (name, sandbox) = (name.to_owned(), sandbox.to_owned());
        plan.actions.push(Action::Start { name, attempt, sandbox, backoff });
    }

    /// Kills a run, unless that is under way with no more patience than is asked for.
    fn kill(&self, plan: &mut Plan, run: &Container, grace: Duration, message: String) {
        let enough = |before: Duration| before <= grace;
        match self.input.memory.op(&run.name) {
            ContainerOp::Stopping { id, grace } if *id == run.id && enough(*grace) => {}
            ContainerOp::Starting => {}
            ContainerOp::Idle | ContainerOp::Stopping { .. } => {
                let (name, id) = (run.name.clone(), run.id.clone());
                plan.actions.push(Action::Kill { name, id, grace, message });
            }
        }
    }

    /// The end, as far as it must be revised: deletion of a pod that ends for another reason, less patience.
    fn revised(&self, end: &Termination) -> Option<Termination> {
        let why = match (&end.why, self.input.gone, self.input.pod.is_deleting()) {
            (Why::Gone, _, _) => Why::Gone,
            (_, true, _) => Why::Gone,
            (Why::Completed | Why::Failed { .. }, false, true) => Why::Deleted,
            (same, false, _) => same.clone(),
        };
        let grace = end.grace.min(grace_of(self.input.pod));
        let revised = Termination { why, grace, since: end.since };
        (revised != *end).then_some(revised)
    }

    fn terminating(&self, plan: &mut Plan, end: &Termination) {
        if let Some(revised) = self.revised(end) {
            plan.life = Some(Life::Terminating(revised));
            return;
        }
        let Input { view, memory, now, .. } = self.input;
        for (name, memory) in &memory.containers {
            if memory.op == ContainerOp::Starting {
                plan.actions.push(Action::CancelStart { name: name.clone() });
            }
        }
        let spent = Duration::try_from(now.duration_since(end.since)).unwrap_or_default();
        let grace =
            end.grace.saturating_sub(Duration::from_secs(spent.as_secs())).max(Duration::from_secs(1));
        let sidecar_rank = |name: &str| {
            init_containers(self.spec).iter().position(|c| c.name == name && is_sidecar(c)).map(|i| i + 1)
        };
        let alive: Vec<_> = view.containers.iter().filter(|c| c.is_alive()).collect();
        // Sidecars outlive the others and stop one by one, the last one first.
        let turn = alive.iter().map(|c| sidecar_rank(&c.name).unwrap_or(usize::MAX)).max();
        for run in &alive {
            if sidecar_rank(&run.name).unwrap_or(usize::MAX) == turn.unwrap_or_default() {
                // A call that is under way keeps the time itself; only less patience asks for another.
                let patience = match memory.op(&run.name) {
                    ContainerOp::Stopping { grace: before, .. } if *before <= end.grace => *before,
                    ContainerOp::Idle | ContainerOp::Starting | ContainerOp::Stopping { .. } => grace,
                };
                self.kill(plan, run, patience, format!("Stopping container {}", run.name));
            }
        }
        if alive.is_empty() && !memory.is_busy() {
            plan.life = Some(Life::TearingDown(end.clone()));
        }
    }

    fn release(&self, plan: &mut Plan, action: Action, next: Life) {
        match &self.input.memory.release {
            Work::Doing => {}
            Work::Done => plan.life = Some(next),
            Work::Idle => plan.actions.push(action),
            Work::Failed(trouble) => {
                if self.due(plan, trouble) {
                    plan.actions.push(action);
                }
            }
        }
    }

    fn tearing_down(&self, plan: &mut Plan, end: &Termination) {
        if let Some(revised) = self.revised(end) {
            plan.life = Some(Life::TearingDown(revised));
            return;
        }
        self.release(plan, Action::TearDown, Life::Ended(end.clone()));
    }

    fn ended(&self, plan: &mut Plan, end: &Termination) {
        if let Some(revised) = self.revised(end) {
            plan.life = Some(Life::Ended(revised));
            return;
        }
        match end.why {
            Why::Deleted | Why::Gone => plan.life = Some(Life::Removing(end.clone())),
            Why::Completed | Why::Failed { .. } => {}
        }
    }

    fn removing(&self, plan: &mut Plan, end: &Termination) {
        self.release(plan, Action::Remove, Life::Gone(end.clone()));
    }
}

fn definition_changed(container: &Spec, run: &Container) -> bool {
    run.annotations.get(HASH_ANNOTATION).is_some_and(|hash| *hash != definition_hash(container))
}

/// `name_namespace(uid)`, as messages name a pod.
pub fn pod_label(pod: &Pod) -> String {
    format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid())
}
