//! A pod's status as the API shows it, from its spec, what the runtime reports and what waits.

use std::collections::BTreeMap;

use api::conditions;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::state::{Life, Memory, Why};
use super::step::{Waiting, restarts};
use super::view::{Container, PodView, RunState};
use crate::resources::{Qos, init_containers, is_sidecar};

#[cfg(test)]
mod tests;

/// What a status is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The pod, with the status that the API has.
    pub pod: &'a Pod,
    /// What the runtime reports.
    pub view: &'a PodView,
    /// What is remembered.
    pub memory: &'a Memory,
    /// Why containers that are to run do not.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// The node's addresses.
    pub host_ips: &'a [String],
    /// The present.
    pub now: Timestamp,
}

/// The Kubernetes time of an instant: whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Makes a pod's status. Parts that others write (conditions of other types, the nomination) are kept.
pub fn status(input: Input<'_>) -> PodStatus {
    let empty = PodSpec::default();
    let spec = input.pod.spec.as_ref().unwrap_or(&empty);
    let old = input.pod.status.clone().unwrap_or_default();
    let maker = Maker { input, spec, old: &old };
    let inits: Vec<_> = init_containers(spec).iter().map(|c| maker.container(c, true)).collect();
    let mains: Vec<_> = spec.containers.iter().map(|c| maker.container(c, false)).collect();
    let phase = maker.phase(&inits, &mains);
    let ips = maker.pod_ips();
    let (reason, message) = maker.reason();
    let host_ip = input.host_ips.first().cloned();
    let mut new = PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        host_ips: (!input.host_ips.is_empty())
            .then(|| input.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        host_ip,
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        start_time: old.start_time.clone().or_else(|| Some(time(input.now))),
        qos_class: Some(old.qos_class.clone().unwrap_or_else(|| Qos::of(spec).name().to_owned())),
        observed_generation: input.pod.metadata.generation.or(old.observed_generation),
        conditions: old.conditions.clone(),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        container_statuses: (!mains.is_empty()).then_some(mains),
        ..old.clone()
    };
    maker.conditions(&mut new);
    new
}

/// The status of a pod that was never started: its phase is `Failed`, its containers have none.
pub fn rejected(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    PodStatus {
        phase: Some("Failed".into()),
        reason: Some(reason.into()),
        message: Some(message.into()),
        start_time: old.start_time.clone().or_else(|| Some(time(now))),
        qos_class: Some(crate::resources::qos(pod).name().to_owned()),
        observed_generation: pod.metadata.generation.or(old.observed_generation),
        ..old
    }
}

struct Maker<'a> {
    input: Input<'a>,
    spec: &'a PodSpec,
    old: &'a PodStatus,
}

/// How far the containers are, counted.
#[derive(Default)]
struct Count {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
}

impl Maker<'_> {
    fn is_over(&self) -> bool {
        self.input.memory.life.is_over()
    }

    fn old_status(&self, name: &str, init: bool) -> Option<&ContainerStatus> {
        let list = if init { &self.old.init_container_statuses } else { &self.old.container_statuses };
        list.iter().flatten().find(|c| c.name == name)
    }

    fn container(&self, spec: &Spec, init: bool) -> ContainerStatus {
        let old = self.old_status(&spec.name, init);
        let Some(run) = self.input.view.latest(&spec.name) else { return self.unseen(spec, old) };
        let state = self.state(spec, run);
        let before =
            self.input.view.previous(&spec.name).filter(|c| c.state == RunState::Exited).map(terminated);
        let recorded = || old.and_then(|o| o.last_state.clone()).filter(|s| s.terminated.is_some());
        let waiting_after_end = state.waiting.is_some() && run.state == RunState::Exited;
        let last_state = if waiting_after_end { Some(terminated(run)) } else { before.or_else(recorded) };
        let memory = self.input.memory.containers.get(&spec.name);
        let is = |id: Option<&String>| id == Some(&run.id);
        let running = run.state == RunState::Running;
        let started =
            running && (spec.startup_probe.is_none() || is(memory.and_then(|m| m.started.as_ref())));
        let probed = spec.readiness_probe.is_none() || is(memory.and_then(|m| m.ready.as_ref()));
        let finished_init = init && !is_sidecar(spec) && run.state == RunState::Exited && run.exit_code == 0;
        let plain_init = init && !is_sidecar(spec);
        ContainerStatus {
            name: spec.name.clone(),
            ready: if plain_init { finished_init } else { started && probed },
            started: Some(started),
            restart_count: i32::try_from(run.attempt).unwrap_or(i32::MAX),
            image: run.image.clone(),
            image_id: run.image_ref.clone(),
            container_id: Some(format!("containerd://{}", run.id)),
            state: Some(state),
            last_state,
            allocated_resources: spec.resources.as_ref().and_then(|r| r.requests.clone()),
            resources: spec.resources.clone().filter(|r| r.limits.is_some() || r.requests.is_some()),
            ..ContainerStatus::default()
        }
    }

    fn state(&self, spec: &Spec, run: &Container) -> ContainerState {
        let waits = self.input.waiting.get(&spec.name);
        match run.state {
            RunState::Running => ContainerState {
                running: Some(ContainerStateRunning { started_at: run.started_at.map(time) }),
                ..ContainerState::default()
            },
            RunState::Exited if self.is_over() => terminated(run),
            RunState::Exited => match waits {
                Some(why) => waiting(why.clone()),
                None => terminated(run),
            },
            RunState::Created | RunState::Unknown => {
                let creating = || Waiting { reason: "ContainerCreating".into(), message: String::new() };
                waiting(waits.cloned().unwrap_or_else(creating))
            }
        }
    }

    /// A container of which the runtime knows nothing: not started yet, or lost.
    fn unseen(&self, spec: &Spec, old: Option<&ContainerStatus>) -> ContainerStatus {
        let mut status = ContainerStatus {
            name: spec.name.clone(),
            image: spec.image.clone().unwrap_or_default(),
            started: Some(false),
            restart_count: old.map_or(0, |o| o.restart_count),
            last_state: old.and_then(|o| o.last_state.clone()).filter(|s| s.terminated.is_some()),
            allocated_resources: spec.resources.as_ref().and_then(|r| r.requests.clone()),
            resources: spec.resources.clone().filter(|r| r.limits.is_some() || r.requests.is_some()),
            ..ContainerStatus::default()
        };
        if let Some(old) = old.filter(|o| o.container_id.as_deref().is_some_and(|id| !id.is_empty())) {
            let state = old.state.clone().unwrap_or_default();
            let lost = || lost(self.input.now, old.container_id.clone());
            let ended = if state.terminated.is_some() { state } else { lost() };
            status.image_id.clone_from(&old.image_id);
            status.container_id.clone_from(&old.container_id);
            if self.is_over() {
                status.ready = old.ready && ended.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
                status.image.clone_from(&old.image);
                status.state = Some(ended);
                return status;
            }
            status.container_id = None;
            status.image_id.clear();
            status.last_state = Some(ended);
        }
        let creating = || Waiting { reason: "ContainerCreating".into(), message: String::new() };
        let why = self.input.waiting.get(&spec.name).cloned();
        let over = || (self.is_over() || self.ending()).then(|| self.stopped_waiting(old)).flatten();
        status.state = Some(waiting(why.or_else(over).unwrap_or_else(creating)));
        status
    }

    fn ending(&self) -> bool {
        self.input.memory.life != Life::Active
    }

    /// What a container showed that will now never start.
    fn stopped_waiting(&self, old: Option<&ContainerStatus>) -> Option<Waiting> {
        let state = old?.state.as_ref()?.waiting.as_ref()?;
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        Some(Waiting { reason: text(&state.reason), message: text(&state.message) })
    }

    fn count(statuses: &[ContainerStatus]) -> Count {
        let mut count = Count::default();
        for status in statuses {
            let state = status.state.as_ref();
            let end = |s: Option<&ContainerState>| s.and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
            if state.is_some_and(|s| s.running.is_some()) {
                count.running += 1;
            } else if let Some(code) = end(state) {
                count.stopped += 1;
                count.succeeded += usize::from(code == 0);
            } else if end(status.last_state.as_ref()).is_some() {
                count.stopped += 1;
            } else {
                count.waiting += 1;
            }
        }
        count
    }

    fn is_initialised(&self, inits: &[ContainerStatus], mains: &[ContainerStatus]) -> bool {
        let begun = mains.iter().any(|c| {
            let state = c.state.as_ref();
            c.container_id.is_some() || state.is_some_and(|s| s.running.is_some() || s.terminated.is_some())
        });
        begun || self.incomplete(inits).is_empty()
    }

    /// Names of the init containers that have not done their part.
    fn incomplete<'b>(&self, inits: &'b [ContainerStatus]) -> Vec<&'b str> {
        let specs = init_containers(self.spec);
        let done = |status: &ContainerStatus, spec: &Spec| match is_sidecar(spec) {
            true => status.started == Some(true),
            false => {
                status.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0)
            }
        };
        inits
            .iter()
            .zip(specs)
            .filter(|(status, spec)| !done(status, spec))
            .map(|(s, _)| s.name.as_str())
            .collect()
    }

    fn phase(&self, inits: &[ContainerStatus], mains: &[ContainerStatus]) -> &'static str {
        // A terminal phase is for ever.
        match self.old.phase.as_deref() {
            Some("Succeeded") => return "Succeeded",
            Some("Failed") => return "Failed",
            _ => {}
        }
        let computed = self.computed_phase(inits, mains);
        let over = self.is_over();
        match computed {
            _ if over && self.ended_failed() => "Failed",
            // While something still stops, the pod is not at its end.
            "Succeeded" | "Failed" if !over => {
                if inits.iter().chain(mains).any(|c| c.container_id.is_some()) {
                    "Running"
                } else {
                    "Pending"
                }
            }
            other => other,
        }
    }

    fn ended_failed(&self) -> bool {
        self.input.memory.life.termination().is_some_and(|t| match t.why {
            Why::Failed { .. } => true,
            Why::Deleted | Why::Gone | Why::Completed => false,
        })
    }

    fn computed_phase(&self, inits: &[ContainerStatus], mains: &[ContainerStatus]) -> &'static str {
        let policy = self.spec.restart_policy.as_deref().unwrap_or("Always");
        let exit =
            |s: &ContainerStatus| s.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
        let plain = inits.iter().zip(init_containers(self.spec)).filter(|(_, spec)| !is_sidecar(spec));
        let init_failed = plain.clone().any(|(status, _)| exit(status).is_some_and(|code| code != 0));
        let initialised = self.is_initialised(inits, mains);
        if init_failed && !initialised && policy == "Never" {
            return "Failed";
        }
        let count = Self::count(mains);
        if self.is_over() {
            let all_well = count.stopped == mains.len() && count.succeeded == count.stopped;
            return if all_well && !mains.is_empty() { "Succeeded" } else { "Failed" };
        }
        if !initialised || count.waiting > 0 {
            return "Pending";
        }
        if count.running > 0 || mains.iter().any(|c| exit(c).is_none_or(|code| restarts(policy, code))) {
            return "Running";
        }
        if count.succeeded == count.stopped { "Succeeded" } else { "Failed" }
    }

    fn pod_ips(&self) -> Vec<String> {
        let recorded = || {
            let all = self.old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect::<Vec<_>>();
            if all.is_empty() { self.old.pod_ip.clone().into_iter().collect() } else { all }
        };
        if self.spec.host_network == Some(true) {
            return if self.input.view.sandbox().is_some() {
                self.input.host_ips.to_vec()
            } else {
                recorded()
            };
        }
        match self.input.view.sandbox() {
            Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
            Some(_) | None => recorded(),
        }
    }

    fn reason(&self) -> (Option<String>, Option<String>) {
        let end = self.input.memory.life.termination().map(|t| &t.why);
        match end {
            Some(Why::Failed { reason, message }) => (Some(reason.clone()), Some(message.clone())),
            Some(Why::Deleted | Why::Gone | Why::Completed) | None => {
                (self.old.reason.clone(), self.old.message.clone())
            }
        }
    }

    fn conditions(&self, new: &mut PodStatus) {
        let phase = new.phase.clone().unwrap_or_default();
        let inits = new.init_container_statuses.clone().unwrap_or_default();
        let mains = new.container_statuses.clone().unwrap_or_default();
        let network = self
            .input
            .view
            .sandbox()
            .is_some_and(|s| !s.ips.is_empty() || self.spec.host_network == Some(true));
        let yes = || (true, String::new(), String::new());
        let incomplete = self.incomplete(&inits);
        let initialised = match phase.as_str() {
            "Succeeded" => (true, "PodCompleted".into(), String::new()),
            _ if self.is_initialised(&inits, &mains) => yes(),
            _ => {
                let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
                (false, "ContainersNotInitialized".into(), message)
            }
        };
        let containers_ready = self.containers_ready(&phase, &inits, &mains);
        let ready = self.pod_ready(&containers_ready);
        self.set(new, "PodReadyToStartContainers", (network, String::new(), String::new()));
        self.set(new, "Initialized", initialised);
        self.set(new, "Ready", ready);
        self.set(new, "ContainersReady", containers_ready);
        self.set(new, "PodScheduled", yes());
    }

    fn containers_ready(
        &self,
        phase: &str,
        inits: &[ContainerStatus],
        mains: &[ContainerStatus],
    ) -> (bool, String, String) {
        match phase {
            "Succeeded" => return (false, "PodCompleted".into(), String::new()),
            "Failed" => return (false, "PodFailed".into(), String::new()),
            _ => {}
        }
        let sidecars =
            inits.iter().zip(init_containers(self.spec)).filter(|(_, c)| is_sidecar(c)).map(|(s, _)| s);
        let unready: Vec<_> = sidecars.chain(mains).filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
        if unready.is_empty() {
            (true, String::new(), String::new())
        } else {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            (false, "ContainersNotReady".into(), message)
        }
    }

    fn pod_ready(&self, containers: &(bool, String, String)) -> (bool, String, String) {
        if !containers.0 {
            return containers.clone();
        }
        let problems = self.spec.readiness_gates.iter().flatten().filter_map(|gate| {
            let kind = &gate.condition_type;
            match conditions::find(&self.old.conditions, kind) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist."))
                }
                Some(c) if c.status == "True" => None,
                Some(c) => Some(format!(
                    "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                    c.status
                )),
            }
        });
        let problems: Vec<_> = problems.collect();
        if problems.is_empty() {
            containers.clone()
        } else {
            (false, "ReadinessGatesNotReady".into(), problems.join(", "))
        }
    }

    fn set(&self, new: &mut PodStatus, type_: &str, (status, reason, message): (bool, String, String)) {
        let status = if status { "True" } else { "False" };
        let before = conditions::find(&self.old.conditions, type_);
        let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        let text = |t: String| (!t.is_empty()).then_some(t);
        let condition = PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: text(reason),
            message: text(message),
            last_transition_time: since.or_else(|| Some(time(self.input.now))),
            observed_generation: self.input.pod.metadata.generation,
            ..PodCondition::default()
        };
        conditions::set(&mut new.conditions, condition);
    }
}

fn waiting(why: Waiting) -> ContainerState {
    let state = ContainerStateWaiting {
        reason: Some(why.reason),
        message: (!why.message.is_empty()).then_some(why.message),
    };
    ContainerState { waiting: Some(state), ..ContainerState::default() }
}

fn terminated(run: &Container) -> ContainerState {
    let reason = match (run.reason.as_str(), run.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (given, _) => given,
    };
    let state = ContainerStateTerminated {
        exit_code: run.exit_code,
        reason: Some(reason.to_owned()),
        message: (!run.message.is_empty()).then(|| run.message.clone()),
        started_at: run.started_at.map(time),
        finished_at: run.finished_at.map(time),
        container_id: Some(format!("containerd://{}", run.id)),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(state), ..ContainerState::default() }
}

fn lost(now: Timestamp, id: Option<String>) -> ContainerState {
    let state = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        finished_at: Some(time(now)),
        container_id: id,
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(state), ..ContainerState::default() }
}
