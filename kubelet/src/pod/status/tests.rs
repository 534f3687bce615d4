use serde_json::{Value, json};

use super::*;
use crate::pod::state::Termination;
use crate::pod::view::Sandbox;

struct Case {
    pod: Pod,
    view: PodView,
    memory: Memory,
    waiting: BTreeMap<String, Waiting>,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn case(spec: Value) -> Case {
    let mut whole = json!({"containers": [{"name": "web", "image": "web:1"}]});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let pod = serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": whole}),
    );
    let view = PodView::default();
    Case { pod: pod.unwrap(), view, memory: Memory::default(), waiting: BTreeMap::new() }
}

impl Case {
    fn sandbox(mut self) -> Self {
        let sandbox = Sandbox {
            id: "s".into(),
            ready: true,
            attempt: 0,
            created_at: at(0),
            ips: vec!["10.0.0.1".into()],
        };
        self.view.sandboxes.push(sandbox);
        self
    }

    fn run(mut self, name: &str, attempt: u32, state: RunState, code: i32) -> Self {
        self.view.containers.insert(
            0,
            Container {
                id: format!("{name}{attempt}"),
                name: name.into(),
                attempt,
                sandbox_id: "s".into(),
                state,
                created_at: at(1),
                started_at: Some(at(2)),
                finished_at: (state == RunState::Exited).then(|| at(3)),
                exit_code: code,
                reason: String::new(),
                message: String::new(),
                image: "web:1".into(),
                image_ref: "sha256:1".into(),
                annotations: Default::default(),
            },
        );
        self
    }

    fn waits(mut self, name: &str, reason: &str) -> Self {
        self.waiting.insert(name.into(), Waiting { reason: reason.into(), message: "m".into() });
        self
    }

    fn over(mut self, why: Why) -> Self {
        self.memory.life = Life::Ended(Termination { why, grace: std::time::Duration::ZERO, since: at(4) });
        self
    }

    fn old(mut self, status: Value) -> Self {
        self.pod.status = serde_json::from_value(status).unwrap();
        self
    }

    fn status(&self) -> PodStatus {
        status(Input {
            pod: &self.pod,
            view: &self.view,
            memory: &self.memory,
            waiting: &self.waiting,
            host_ips: &["192.0.2.1".to_owned()],
            now: at(10),
        })
    }

    /// Phase, true conditions, and each container's state in words.
    #[track_caller]
    fn check(self, phase: &str, conditions: &str, containers: &str) {
        let status = self.status();
        assert_eq!(status.phase.as_deref(), Some(phase));
        let short = [
            ("PodReadyToStartContainers", "Net"),
            ("Initialized", "Init"),
            ("ContainersReady", "Containers"),
            ("Ready", "Ready"),
        ];
        let on: Vec<_> = short
            .iter()
            .filter(|(c, _)| api::conditions::is_true(&status.conditions, c))
            .map(|(_, s)| *s)
            .collect();
        assert_eq!(on.join(" "), conditions);
        let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        assert_eq!(all.map(words).collect::<Vec<_>>().join(" "), containers);
    }
}

fn state_word(state: &ContainerState) -> String {
    if let Some(waiting) = &state.waiting {
        waiting.reason.clone().unwrap_or_default()
    } else if let Some(end) = &state.terminated {
        format!("{}({})", end.reason.clone().unwrap_or_default(), end.exit_code)
    } else {
        "running".into()
    }
}

fn words(status: &ContainerStatus) -> String {
    let state = state_word(status.state.as_ref().unwrap());
    let last = status.last_state.as_ref().map(|s| format!("<{}", state_word(s))).unwrap_or_default();
    let ready = if status.ready { "+" } else { "" };
    format!("{}:{state}{last}#{}{ready}", status.name, status.restart_count)
}

#[test]
fn a_pod_comes_up_step_by_step() {
    case(json!({})).check("Pending", "Init", "web:ContainerCreating#0");
    case(json!({})).sandbox().check("Pending", "Net Init", "web:ContainerCreating#0");
    case(json!({})).sandbox().run("web", 0, RunState::Running, 0).check(
        "Running",
        "Net Init Containers Ready",
        "web:running#0+",
    );
    case(json!({})).sandbox().waits("web", "ErrImagePull").check("Pending", "Net Init", "web:ErrImagePull#0");
}

#[test]
fn readiness_and_startup_probes_hold_readiness_back() {
    let probe = json!({"exec": {"command": ["true"]}});
    let ready = || {
        case(json!({"containers": [{"name": "web", "readinessProbe": probe}]})).sandbox().run(
            "web",
            0,
            RunState::Running,
            0,
        )
    };
    ready().check("Running", "Net Init", "web:running#0");
    let mut passed = ready();
    passed.memory.container("web").ready = Some("web0".into());
    passed.check("Running", "Net Init Containers Ready", "web:running#0+");
    let mut of_an_earlier_run = ready();
    of_an_earlier_run.memory.container("web").ready = Some("other".into());
    of_an_earlier_run.check("Running", "Net Init", "web:running#0");
    let startup = case(json!({"containers": [{"name": "web", "startupProbe": probe}]})).sandbox().run(
        "web",
        0,
        RunState::Running,
        0,
    );
    assert_eq!(startup.status().container_statuses.unwrap()[0].started, Some(false));
    startup.check("Running", "Net Init", "web:running#0");
}

#[test]
fn a_crashing_container_waits_and_shows_its_last_end() {
    case(json!({})).sandbox().run("web", 3, RunState::Exited, 1).waits("web", "CrashLoopBackOff").check(
        "Running",
        "Net Init",
        "web:CrashLoopBackOff<Error(1)#3",
    );
    case(json!({})).sandbox().run("web", 3, RunState::Exited, 1).run("web", 4, RunState::Running, 0).check(
        "Running",
        "Net Init Containers Ready",
        "web:running<Error(1)#4+",
    );
}

#[test]
fn init_containers_count_until_they_are_done() {
    let pod = || case(json!({"restartPolicy": "Never", "initContainers": [{"name": "a"}]})).sandbox();
    pod().run("a", 0, RunState::Running, 0).waits("web", "PodInitializing").check(
        "Pending",
        "Net",
        "a:running#0 web:PodInitializing#0",
    );
    pod().run("a", 0, RunState::Exited, 0).waits("web", "PodInitializing").check(
        "Pending",
        "Net Init",
        "a:Completed(0)#0+ web:PodInitializing#0",
    );
    pod().run("a", 0, RunState::Exited, 1).over(Why::Completed).check(
        "Failed",
        "Net",
        "a:Error(1)#0 web:ContainerCreating#0",
    );
    let message = pod().run("a", 0, RunState::Running, 0).status();
    let init = api::conditions::find(&message.conditions, "Initialized").unwrap();
    assert_eq!(init.message.as_deref(), Some("containers with incomplete status: [a]"));
}

#[test]
fn phases_at_the_end_follow_policy_and_codes() {
    let ended = |policy: &str, code| {
        case(json!({"restartPolicy": policy})).sandbox().run("web", 0, RunState::Exited, code)
    };
    ended("Never", 0).over(Why::Completed).check("Succeeded", "Net Init", "web:Completed(0)#0");
    ended("Never", 1).over(Why::Completed).check("Failed", "Net Init", "web:Error(1)#0");
    ended("OnFailure", 1).check("Running", "Net Init", "web:Error(1)#0");
    ended("Always", 0).check("Running", "Net Init", "web:Completed(0)#0");
    ended("Always", 0).over(Why::Deleted).check("Succeeded", "Net Init", "web:Completed(0)#0");
    ended("Always", 137).over(Why::Deleted).check("Failed", "Net Init", "web:Error(137)#0");
    // Not before everything has stopped.
    let two = case(
        json!({"restartPolicy": "Never", "initContainers": [{"name": "side", "restartPolicy": "Always"}]}),
    );
    two.sandbox().run("side", 0, RunState::Running, 0).run("web", 0, RunState::Exited, 0).check(
        "Running",
        "Net Init",
        "side:running#0+ web:Completed(0)#0",
    );
}

#[test]
fn a_container_that_was_lost_is_said_to_be() {
    let old = json!({"phase": "Running", "containerStatuses": [{"name": "web", "containerID": "containerd://x", "image": "web:1",
        "imageID": "i", "ready": true, "restartCount": 2, "state": {"running": {}}}]});
    case(json!({})).old(old).over(Why::Deleted).check("Failed", "Init", "web:ContainerStatusUnknown(137)#2");
}

#[test]
fn others_conditions_and_first_times_are_kept() {
    let old = json!({"startTime": "2020-01-01T00:00:00Z", "conditions": [
        {"type": "example.com/gate", "status": "False"},
        {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]});
    let gated = case(json!({"readinessGates": [{"conditionType": "example.com/gate"}]}))
        .old(old)
        .sandbox()
        .run("web", 0, RunState::Running, 0);
    let status = gated.status();
    let ready = api::conditions::find(&status.conditions, "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("ReadinessGatesNotReady")));
    assert_eq!(
        ready.message.as_deref(),
        Some("the status of pod readiness gate \"example.com/gate\" is not \"True\", but False")
    );
    assert_eq!(ready.last_transition_time.as_ref().map(|t| t.0), Some(at(10)));
    assert!(api::conditions::find(&status.conditions, "example.com/gate").is_some());
    assert_eq!(status.start_time.unwrap().0.to_string(), "2020-01-01T00:00:00Z");
}

#[test]
fn a_second_look_changes_nothing() {
    let mut case = case(json!({})).sandbox().run("web", 0, RunState::Running, 0);
    let first = case.status();
    case.pod.status = Some(first.clone());
    assert_eq!(case.status(), first);
}

#[test]
fn the_nodes_verdict_is_the_pods_reason() {
    let why = Why::Failed { reason: "DeadlineExceeded".into(), message: "too long".into() };
    let status = case(json!({})).sandbox().run("web", 0, RunState::Exited, 137).over(why).status();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
    let refused = rejected(&Pod::default(), "OutOfcpu", "no", at(1));
    assert_eq!((refused.phase.as_deref(), refused.container_statuses), (Some("Failed"), None));
}
