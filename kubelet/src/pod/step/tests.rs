use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::pod::state::{ContainerMemory, Doomed};
use crate::pod::view::Sandbox;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

const NOW: i64 = 1000;

/// What the world looks like before a step.
struct World {
    pod: Pod,
    gone: bool,
    view: PodView,
    memory: Memory,
}

fn world(spec: Value) -> World {
    let mut whole =
        json!({"containers": [{"name": "web", "image": "web:1"}], "terminationGracePeriodSeconds": 30});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": whole}))
    .unwrap();
    let memory = Memory { volumes: Work::Done, ..Memory::default() };
    World { pod, gone: false, view: PodView::default(), memory }
}

impl World {
    fn sandbox(mut self, id: &str, ready: bool, attempt: u32) -> Self {
        let sandbox = Sandbox {
            id: id.into(),
            ready,
            attempt,
            created_at: at(attempt.into()),
            ips: vec!["10.0.0.1".into()],
        };
        self.view.sandboxes.insert(0, sandbox);
        self
    }

    fn run(mut self, name: &str, attempt: u32, state: RunState, code: i32) -> Self {
        let newest = self.view.sandboxes.first().map(|s| s.id.clone()).unwrap_or_default();
        let spec = crate::resources::all_containers(self.pod.spec.as_ref().unwrap()).find(|c| c.name == name);
        let hash = spec.map(definition_hash).unwrap_or_default();
        let run = Container {
            id: format!("{name}{attempt}"),
            name: name.into(),
            attempt,
            sandbox_id: newest,
            state,
            created_at: at(NOW - 20),
            started_at: (state != RunState::Created).then(|| at(NOW - 20)),
            finished_at: (state == RunState::Exited).then(|| at(NOW - 5)),
            exit_code: code,
            reason: String::new(),
            message: String::new(),
            image: "web:1".into(),
            image_ref: "sha256:1".into(),
            annotations: HashMap::from([(HASH_ANNOTATION.to_owned(), hash)]),
        };
        self.view.containers.insert(0, run);
        self
    }

    fn running(self, name: &str) -> Self {
        self.run(name, 0, RunState::Running, 0)
    }

    fn deleting(mut self, grace: i64) -> Self {
        self.pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOW)));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self
    }

    fn memory(mut self, change: impl FnOnce(&mut Memory)) -> Self {
        change(&mut self.memory);
        self
    }

    fn life(self, make: fn(Termination) -> Life, why: Why, grace: u64) -> Self {
        let end = Termination { why, grace: Duration::from_secs(grace), since: at(NOW) };
        self.memory(|m| m.life = make(end))
    }

    fn plan(&self) -> Plan {
        let (pod, view, memory) = (&self.pod, &self.view, &self.memory);
        step(Input { pod, gone: self.gone, view, memory, now: at(NOW) })
    }

    /// What is to be done, one word for each action.
    #[track_caller]
    fn check(self, expected: &str) {
        let plan = self.plan();
        let mut words: Vec<_> = plan.life.iter().map(|life| life_word(life).to_owned()).collect();
        words.extend(plan.actions.iter().map(word));
        words.extend(plan.waiting.iter().map(|(name, why)| format!("{name}={}", why.reason)));
        words.extend(plan.wake.map(|at| format!("wake+{}", at.duration_since(self::at(NOW)).as_secs())));
        assert_eq!(words.join(" "), expected);
    }
}

fn life_word(life: &Life) -> &'static str {
    match life {
        Life::Active => "active",
        Life::Terminating(_) => "terminating",
        Life::TearingDown(_) => "tearing-down",
        Life::Ended(_) => "ended",
        Life::Removing(_) => "removing",
        Life::Gone(_) => "gone",
    }
}

fn word(action: &Action) -> String {
    match action {
        Action::Mount => "mount".into(),
        Action::CreateSandbox { attempt } => format!("sandbox({attempt})"),
        Action::StopSandbox { id } => format!("stop-sandbox({id})"),
        Action::RemoveSandbox { id } => format!("remove-sandbox({id})"),
        Action::Start { name, attempt, .. } => format!("start({name},{attempt})"),
        Action::CancelStart { name } => format!("cancel({name})"),
        Action::Kill { id, grace, .. } => format!("kill({id},{})", grace.as_secs()),
        Action::RemoveContainer { id } => format!("remove({id})"),
        Action::TearDown => "tear-down".into(),
        Action::Remove => "remove-all".into(),
        Action::AnnounceBackoff { name, .. } => format!("announce({name})"),
    }
}

#[test]
fn a_new_pod_gets_volumes_then_a_sandbox_then_its_containers() {
    world(json!({})).memory(|m| m.volumes = Work::Idle).check("mount web=ContainerCreating");
    world(json!({})).check("sandbox(0) web=ContainerCreating");
    world(json!({})).sandbox("s", true, 0).check("start(web,0) web=ContainerCreating");
    world(json!({})).sandbox("s", true, 0).running("web").check("");
}

#[test]
fn what_is_under_way_is_not_done_twice() {
    world(json!({})).memory(|m| m.sandbox = Work::Doing).check("web=ContainerCreating");
    world(json!({}))
        .sandbox("s", true, 0)
        .memory(|m| m.container("web").op = ContainerOp::Starting)
        .check("web=ContainerCreating");
    // The runtime shows the container before its start is reported.
    world(json!({}))
        .sandbox("s", true, 0)
        .run("web", 0, RunState::Created, 0)
        .memory(|m| m.container("web").op = ContainerOp::Starting)
        .check("web=ContainerCreating");
}

#[test]
fn a_start_that_was_interrupted_is_cleared_away() {
    world(json!({}))
        .sandbox("s", true, 0)
        .run("web", 0, RunState::Created, 0)
        .check("remove(web0) web=ContainerCreating");
}

#[test]
fn the_restart_policy_decides_about_ended_containers() {
    let ended = |policy: &str, code| {
        world(json!({"restartPolicy": policy})).sandbox("s", true, 0).run("web", 0, RunState::Exited, code)
    };
    ended("Always", 0).check("start(web,1)");
    ended("OnFailure", 1).check("start(web,1)");
    ended("OnFailure", 0).check("terminating");
    ended("Never", 1).check("terminating");
}

#[test]
fn a_crash_loop_waits_longer_and_longer() {
    let crashed = |attempt, delay: Option<u64>| {
        world(json!({})).sandbox("s", true, 0).run("web", attempt, RunState::Exited, 1).memory(|m| {
            m.container("web").backoff = delay.map(|d| Backoff(Duration::from_secs(d)));
        })
    };
    // It ended five seconds ago.
    crashed(1, Some(10)).check("announce(web) web=CrashLoopBackOff wake+5");
    crashed(1, Some(40))
        .memory(|m| m.container("web").announced = Some("web1".into()))
        .check("web=CrashLoopBackOff wake+35");
    crashed(1, Some(5)).check("start(web,2)");
    // A kubelet that saw none of the crashes counts them.
    crashed(3, None).check("announce(web) web=CrashLoopBackOff wake+35");
    let plan = crashed(1, Some(10)).plan();
    assert_eq!(plan.waiting["web"].message, "back-off 10s restarting failed container=web pod=p_n(u)");
}

#[test]
fn a_long_run_forgets_earlier_crashes() {
    let mut run =
        world(json!({})).sandbox("s", true, 0).run("web", 7, RunState::Exited, 1).view.containers.remove(0);
    run.started_at = Some(at(NOW - 700));
    assert_eq!(gate(Some(Backoff(Backoff::MAX)), &run, at(NOW)), Gate::Go(Backoff::FIRST));
}

#[test]
fn init_containers_run_one_after_the_other() {
    let pod = || world(json!({"initContainers": [{"name": "a"}, {"name": "b"}]})).sandbox("s", true, 0);
    pod().check("start(a,0) a=PodInitializing b=PodInitializing web=PodInitializing");
    pod().running("a").check("b=PodInitializing web=PodInitializing");
    pod().run("a", 0, RunState::Exited, 0).check("start(b,0) b=PodInitializing web=PodInitializing");
    pod().run("a", 0, RunState::Exited, 1).check("start(a,1) b=PodInitializing web=PodInitializing");
    let both = || pod().run("a", 0, RunState::Exited, 0).run("b", 0, RunState::Exited, 0);
    both().check("start(web,0) web=PodInitializing");
    both().running("web").check("");
    // Once the pod's containers run, the init containers' records are not needed any more.
    pod().running("web").check("a=PodInitializing b=PodInitializing");
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    world(json!({"restartPolicy": "Never", "initContainers": [{"name": "a"}]}))
        .sandbox("s", true, 0)
        .run("a", 0, RunState::Exited, 1)
        .check("terminating");
}

#[test]
fn sidecars_start_first_and_restart_always() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [
        {"name": "side", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["true"]}}}]});
    let pod = || world(spec.clone()).sandbox("s", true, 0);
    pod().check("start(side,0) side=PodInitializing web=PodInitializing");
    pod().running("side").check("web=PodInitializing");
    pod()
        .running("side")
        .memory(|m| m.container("side").started = Some("side0".into()))
        .check("start(web,0) web=PodInitializing");
    pod().run("side", 0, RunState::Exited, 0).running("web").check("start(side,1)");
    pod().running("side").run("web", 0, RunState::Exited, 0).check("terminating");
}

#[test]
fn a_run_that_its_probe_gave_up_on_is_replaced() {
    let doomed = |id: &str| {
        let id = id.to_owned();
        world(json!({})).sandbox("s", true, 0).running("web").memory(|m| {
            let memory = ContainerMemory {
                doomed: Some(Doomed { id, message: String::new(), grace: None }),
                ..ContainerMemory::default()
            };
            m.containers.insert("web".into(), memory);
        })
    };
    doomed("web0").check("kill(web0,30)");
    doomed("an-earlier-one").check("");
}

#[test]
fn a_new_image_replaces_the_container() {
    let mut world = world(json!({})).sandbox("s", true, 0).running("web");
    world.pod.spec.as_mut().unwrap().containers[0].image = Some("web:2".into());
    world.check("kill(web0,30)");
}

#[test]
fn a_broken_sandbox_is_replaced_after_its_containers_stopped() {
    world(json!({})).sandbox("s", false, 0).running("web").check("kill(web0,30)");
    world(json!({})).sandbox("s", false, 0).run("web", 0, RunState::Exited, 137).check("sandbox(1)");
    world(json!({}))
        .sandbox("s", false, 0)
        .run("web", 0, RunState::Exited, 137)
        .sandbox("t", true, 1)
        .check("start(web,1)");
}

#[test]
fn of_two_sandboxes_the_newer_one_stays() {
    world(json!({})).sandbox("s", true, 0).sandbox("t", true, 1).running("web").check("stop-sandbox(s)");
    world(json!({})).sandbox("s", false, 0).sandbox("t", true, 1).running("web").check("remove-sandbox(s)");
}

#[test]
fn old_runs_are_removed_but_for_the_last() {
    world(json!({}))
        .sandbox("s", true, 0)
        .run("web", 0, RunState::Exited, 1)
        .run("web", 1, RunState::Exited, 1)
        .run("web", 2, RunState::Running, 0)
        .check("remove(web0)");
}

#[test]
fn a_lost_record_does_not_set_the_restart_count_back() {
    let mut world = world(json!({})).sandbox("s", true, 0);
    world.pod.status =
        serde_json::from_value(json!({"containerStatuses": [{"name": "web", "restartCount": 4,
        "containerID": "containerd://x", "image": "", "imageID": "", "ready": true}]}))
        .unwrap();
    world.check("start(web,5) web=ContainerCreating");
}

#[test]
fn deletion_stops_everything_then_gives_all_back() {
    let end = |make: fn(Termination) -> Life| world(json!({})).deleting(10).life(make, Why::Deleted, 10);
    world(json!({})).sandbox("s", true, 0).running("web").deleting(10).check("terminating");
    end(Life::Terminating).sandbox("s", true, 0).running("web").check("kill(web0,10)");
    let stopping = |grace| {
        let op = ContainerOp::Stopping { id: "web0".into(), grace: Duration::from_secs(grace) };
        end(Life::Terminating).sandbox("s", true, 0).running("web").memory(|m| m.container("web").op = op)
    };
    stopping(10).check("");
    stopping(30).check("kill(web0,10)");
    end(Life::Terminating).sandbox("s", true, 0).run("web", 0, RunState::Exited, 0).check("tearing-down");
    end(Life::TearingDown).check("tear-down");
    end(Life::TearingDown).memory(|m| m.release = Work::Doing).check("");
    end(Life::TearingDown).memory(|m| m.release = Work::Done).check("ended");
    end(Life::Ended).check("removing");
    end(Life::Removing).check("remove-all");
    end(Life::Removing).memory(|m| m.release = Work::Done).check("gone");
    end(Life::Gone).check("");
}

#[test]
fn a_pod_that_ends_waits_for_what_is_starting() {
    world(json!({}))
        .deleting(10)
        .life(Life::Terminating, Why::Deleted, 10)
        .sandbox("s", true, 0)
        .memory(|m| m.container("web").op = ContainerOp::Starting)
        .check("cancel(web)");
}

#[test]
fn less_patience_is_passed_on() {
    world(json!({})).deleting(1).life(Life::Terminating, Why::Deleted, 30).check("terminating");
}

#[test]
fn sidecars_stop_after_the_others_in_reverse() {
    let spec = json!({"initContainers": [{"name": "a", "restartPolicy": "Always"}, {"name": "b", "restartPolicy": "Always"}]});
    let pod =
        || world(spec.clone()).deleting(9).life(Life::Terminating, Why::Deleted, 9).sandbox("s", true, 0);
    pod().running("a").running("b").running("web").check("kill(web0,9)");
    pod().running("a").running("b").check("kill(b0,9)");
    pod().running("a").check("kill(a0,9)");
}

#[test]
fn a_finished_pod_is_kept_until_it_is_deleted() {
    let ended = || world(json!({})).life(Life::Ended, Why::Completed, 1);
    ended().check("");
    ended().deleting(1).check("ended");
    let mut gone = ended();
    gone.gone = true;
    gone.check("ended");
}

#[test]
fn a_pod_without_an_object_is_ended() {
    let mut world = world(json!({})).sandbox("s", true, 0).running("web");
    world.gone = true;
    world.check("terminating");
}

#[test]
fn a_pod_that_is_over_in_the_api_is_never_run_again() {
    let mut world = world(json!({}));
    world.pod.status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
    world.check("terminating");
}

#[test]
fn the_deadline_ends_a_pod() {
    let pod = |start: i64| {
        let mut world = world(json!({"activeDeadlineSeconds": 60})).sandbox("s", true, 0).running("web");
        world.pod.status = serde_json::from_value(json!({"startTime": at(start)})).unwrap();
        world
    };
    pod(NOW - 50).check("wake+10");
    pod(NOW - 60).check("terminating");
}

#[test]
fn failures_wait_for_their_time() {
    let trouble = |until, reason: &str| Trouble {
        reason: reason.into(),
        message: "no".into(),
        at: at(NOW - 1),
        until: at(until),
        failures: 1,
    };
    world(json!({}))
        .memory(|m| m.volumes = Work::Failed(trouble(NOW + 3, "x")))
        .check("web=ContainerCreating wake+3");
    world(json!({}))
        .memory(|m| m.volumes = Work::Failed(trouble(NOW, "x")))
        .check("mount web=ContainerCreating");
    let start = |until, reason: &str| {
        let trouble = trouble(until, reason);
        world(json!({})).sandbox("s", true, 0).memory(|m| m.container("web").trouble = Some(trouble))
    };
    start(NOW + 9, "CreateContainerConfigError").check("web=CreateContainerConfigError wake+9");
    start(NOW + 9, "ErrImagePull").check("web=ErrImagePull wake+4");
    let mut later = start(NOW + 9, "ErrImagePull");
    later.memory.container("web").trouble.as_mut().unwrap().at = at(NOW - 5);
    later.check("web=ImagePullBackOff wake+9");
}

proptest! {
    /// Whatever the runtime reports, nothing is started that runs, and nothing twice.
    #[test]
    fn no_container_is_started_while_it_may_run(
        runs in proptest::collection::vec((0u32..3, 0usize..4, -1i32..2), 0..4),
        ready in proptest::collection::vec(any::<bool>(), 0..3),
        policy in 0usize..3,
        deleting in any::<bool>(),
    ) {
        let states = [RunState::Created, RunState::Running, RunState::Exited, RunState::Unknown];
        let policy = ["Always", "OnFailure", "Never"][policy];
        let mut world = world(json!({ "restartPolicy": policy }));
        for (number, ready) in ready.iter().enumerate() {
            world = world.sandbox(&format!("s{number}"), *ready, number as u32);
        }
        for (attempt, state, code) in runs {
            world = world.run("web", attempt, states[state], code);
        }
        if deleting {
            world = world.deleting(1);
        }
        let plan = world.plan();
        let starts = plan.actions.iter().filter(|a| matches!(a, Action::Start { .. })).count();
        prop_assert!(starts <= 1);
        let alive = world.view.latest("web").is_some_and(Container::is_alive);
        prop_assert!(starts == 0 || (!alive && !deleting && world.view.sandbox().is_some()));
    }
}
