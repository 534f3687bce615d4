use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fixtures::{NodeFixture, PodFixture, node, pod};

struct World {
    core: Core,
    now: Instant,
}

fn world() -> World {
    World { core: Core::new(1, vec![Profile::default()]), now: Instant::now() }
}

impl World {
    fn node(&mut self, node: NodeFixture) {
        self.core.set_node(&node.build(), self.now);
    }

    fn pod(&mut self, pod: PodFixture) {
        self.core.set_pod(&pod.build(), self.now);
    }

    fn step(&mut self) -> Option<Step> {
        self.core.step(self.now, || "now".into())
    }

    fn pass(&mut self, seconds: u64) {
        self.now += std::time::Duration::from_secs(seconds);
    }

    #[track_caller]
    fn bind(&mut self) -> (Queued, Arc<str>) {
        match self.step() {
            Some(Step::Bind { queued, node }) => (*queued, node),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_assumed_pod_counts_until_the_api_shows_it() {
    let mut w = world();
    w.node(node("n").cpu("1"));
    w.pod(pod("a").cpu("1"));
    w.pod(pod("b").cpu("1"));
    let (_, node) = w.bind();
    assert!(
        matches!(w.step(), Some(Step::Fail { message, .. }) if message == "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
    );
    // An older state of the pod arrives: it is not queued a second time.
    w.pod(pod("a").cpu("1").phase("Pending"));
    w.pass(60);
    assert!(w.step().is_none());
    w.pod(pod("a").cpu("1").on(&node));
    assert!(!w.core.snapshot().pod("a-uid").unwrap().assumed);
    w.core.remove_pod("a-uid", w.now);
    assert_eq!(w.bind().0.pod.key(), "default/b");
}

#[test]
fn a_binding_that_failed_gives_the_room_back() {
    let mut w = world();
    w.node(node("n").cpu("1"));
    w.pod(pod("a").cpu("1"));
    let (queued, _) = w.bind();
    w.pod(pod("b").cpu("1"));
    assert!(matches!(w.step(), Some(Step::Fail { .. })));
    w.core.not_bound(queued, true, w.now);
    assert!(w.step().is_none(), "both are in backoff");
    w.pass(1);
    assert_eq!(w.bind().0.pod.key(), "default/a");
}

#[test]
fn a_pod_that_goes_while_it_is_bound_is_not_retried() {
    let mut w = world();
    w.node(node("n"));
    w.pod(pod("a"));
    let (queued, _) = w.bind();
    w.core.remove_pod("a-uid", w.now);
    w.core.not_bound(queued, true, w.now);
    w.pass(60);
    assert!(w.step().is_none());
}

#[test]
fn pods_that_are_over_or_somebody_elses_are_ignored() {
    let mut w = world();
    w.node(node("n").cpu("1"));
    w.pod(pod("other").set("schedulerName", json!("mine")));
    w.pod(pod("going").meta("deletionTimestamp", json!("2026-01-01T00:00:00Z")));
    w.pod(pod("done").cpu("1").on("n").phase("Succeeded"));
    assert!(w.step().is_none());
    assert_eq!(w.core.snapshot().pods(), 0);
    w.pod(pod("runs").cpu("1").on("n"));
    w.pod(pod("waits").cpu("1"));
    assert!(matches!(w.step(), Some(Step::Fail { .. })));
    w.pod(pod("runs").cpu("1").on("n").phase("Failed"));
    w.pass(1);
    assert_eq!(w.bind().0.pod.key(), "default/waits");
}

#[test]
fn the_last_decision_is_kept() {
    let mut w = world();
    w.pod(pod("a"));
    w.step();
    assert_eq!(w.core.explain("default/a").unwrap()["message"], "no nodes available to schedule pods");
    w.pass(1);
    w.node(node("n"));
    w.bind();
    let shown = w.core.explain("default/a").unwrap();
    assert_eq!(shown["message"], "Successfully assigned default/a to n");
    assert_eq!(shown["nodes"][0]["chosen"], true);
}

#[derive(Clone, Debug)]
enum Act {
    Pod { name: u8, cpu: u8, port: bool },
    Step,
    Bound { which: u8, ok: bool },
    Delete { name: u8 },
    Node { name: u8, cpu: u8 },
    RemoveNode { name: u8 },
    Pass { seconds: u8 },
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0u8..20, 0u8..5, any::<bool>()).prop_map(|(name, cpu, port)| Act::Pod { name, cpu, port }),
        6 => Just(Act::Step),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(which, ok)| Act::Bound { which, ok }),
        2 => (0u8..20).prop_map(|name| Act::Delete { name }),
        1 => (0u8..4, 1u8..9).prop_map(|(name, cpu)| Act::Node { name, cpu }),
        1 => (0u8..4).prop_map(|name| Act::RemoveNode { name }),
        1 => (0u8..12).prop_map(|seconds| Act::Pass { seconds }),
    ]
}

proptest! {
    #[test]
    fn a_decision_never_overcommits_a_node(acts in proptest::collection::vec(any_act(), 1..120)) {
        let mut w = world();
        let mut in_flight: Vec<(Queued, Arc<str>)> = Vec::new();
        let (mut alive, mut generation) = (std::collections::BTreeMap::<u8, String>::new(), 0);
        for act in acts {
            match act {
                Act::Pod { name, cpu, port } => {
                    if alive.contains_key(&name) {
                        continue;
                    }
                    generation += 1;
                    let uid = format!("{name}-{generation}");
                    alive.insert(name, uid.clone());
                    let fixture = pod(&format!("p{name}")).cpu(&cpu.to_string()).meta("uid", json!(uid));
                    w.pod(if port { fixture.port("", 80, "TCP") } else { fixture });
                }
                Act::Step => {
                    if let Some(Step::Bind { queued, node }) = w.step() {
                        let state = w.core.snapshot().node(&node).unwrap();
                        // A pod that asks for none may join a node that has shrunk below what it gave.
                        let none = queued.pod.request.stated.cpu == 0;
                        prop_assert!(none || state.requested.cpu <= state.allocatable.cpu, "{state:?}");
                        prop_assert!(state.requested.pods <= state.allocatable.pods);
                        let mut free = state.clone();
                        queued.pod.ports.iter().for_each(|p| free.rest.ports.remove(p));
                        prop_assert!(!queued.pod.ports.iter().any(|p| free.rest.ports.conflicts(p)));
                        in_flight.push((*queued, node));
                    }
                }
                Act::Bound { which, ok } => {
                    if in_flight.is_empty() {
                        continue;
                    }
                    let (queued, node) = in_flight.remove(usize::from(which) % in_flight.len());
                    if !alive.values().any(|uid| **uid == *queued.pod.uid) {
                        w.core.not_bound(queued, false, w.now);
                    } else if ok {
                        let mut bound = queued.pod.pod.as_ref().clone();
                        bound.spec.as_mut().unwrap().node_name = Some(node.to_string());
                        w.core.set_pod(&Arc::new(bound), w.now);
                    } else {
                        w.core.not_bound(queued, true, w.now);
                    }
                }
                Act::Delete { name } => {
                    if let Some(uid) = alive.remove(&name) {
                        w.core.remove_pod(&uid, w.now);
                    }
                }
                Act::Node { name, cpu } => {
                    let fixture = node(&format!("n{name}")).cpu(&cpu.to_string());
                    w.node(fixture.allocatable("pods", "5"));
                }
                Act::RemoveNode { name } => w.core.remove_node(&format!("n{name}"), w.now),
                Act::Pass { seconds } => w.pass(seconds.into()),
            }
        }
        // What is counted is what is there, neither more nor less.
        for (name, uid) in &alive {
            if w.core.snapshot().pod(uid).is_some() {
                w.core.remove_pod(uid, w.now);
            } else {
                prop_assert!(w.core.queue.remove(uid).is_some(), "p{name} is lost");
            }
        }
        prop_assert_eq!(w.core.snapshot().pods(), 0);
        prop_assert_eq!(w.core.depth(), Depth::default());
        for state in w.core.snapshot().nodes() {
            prop_assert_eq!(&state.requested, &crate::resources::Resources::default());
        }
    }
}

#[test]
fn a_pod_that_preempts_waits_for_its_victims_and_then_takes_their_room() {
    let mut w = world();
    w.node(node("n").cpu("2"));
    w.pod(pod("low").cpu("2").priority(1).on("n"));
    w.pod(pod("high").cpu("2").priority(10));
    let Some(Step::Fail { message, preemption: Some(preemption), .. }) = w.step() else {
        panic!("room is made")
    };
    assert_eq!(message, "0/1 nodes are available: 1 Insufficient cpu.");
    assert_eq!((&*preemption.node, preemption.victims.len()), ("n", 1));
    // While the victim goes, nobody of lower or equal priority gets in ahead.
    w.pod(pod("other").cpu("1").priority(5));
    w.core.remove_pod("low-uid", w.now);
    let Some(Step::Fail { message, .. }) = w.step() else { panic!("the room is spoken for") };
    assert!(message.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{message}");
    w.pass(1);
    assert_eq!(w.bind().0.pod.key(), "default/high");
}

#[test]
fn a_victim_that_cannot_be_deleted_leaves_nothing_spoken_for() {
    let mut w = world();
    w.node(node("n").cpu("2"));
    w.pod(pod("low").cpu("2").priority(1).on("n"));
    w.pod(pod("high").cpu("2").priority(10));
    assert!(matches!(w.step(), Some(Step::Fail { preemption: Some(_), .. })));
    w.core.not_preempted("high-uid", w.now);
    w.pass(1);
    assert!(matches!(w.step(), Some(Step::Fail { preemption: Some(_), .. })), "it is tried again");
}

#[test]
fn each_profile_decides_about_its_own_pods() {
    let packing = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:
  - schedulerName: default-scheduler
  - schedulerName: packing
    pluginConfig:
      - {name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated}}}
    plugins: {score: {disabled: [{name: '*'}], enabled: [{name: NodeResourcesFit}]}}";
    let profiles = crate::config::parse(packing).unwrap().profiles;
    let mut w = World { core: Core::new(1, profiles), now: Instant::now() };
    w.node(node("empty"));
    w.node(node("half"));
    w.pod(pod("there").cpu("2").on("half"));
    w.pod(pod("a").cpu("1"));
    assert_eq!(&*w.bind().1, "empty");
    w.pod(pod("b").cpu("1").set("schedulerName", json!("packing")));
    assert_eq!(&*w.bind().1, "half");
    w.pod(pod("c").set("schedulerName", json!("nobody")));
    assert!(w.step().is_none());
}

#[test]
fn the_taint_itself_is_named_to_those_who_ask_why() {
    let mut w = world();
    w.node(node("n").taint("secret", "value", "NoSchedule"));
    w.pod(pod("p"));
    let Some(Step::Fail { message, .. }) = w.step() else { panic!("it is refused") };
    assert_eq!(
        message,
        "0/1 nodes are available: 1 node(s) had untolerated taint(s). \
         preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    let shown = w.core.explain("default/p").unwrap();
    assert_eq!(shown["nodes"][0]["reasons"][0], "node(s) had untolerated taint(s) {secret: value}");
}

proptest! {
    /// Whatever comes in whatever order: nobody is near whom it, or who, refuses to be near.
    #[test]
    fn a_placement_never_breaks_anti_affinity(
        pods in proptest::collection::vec((0u8..3, proptest::option::of(0u8..3), any::<bool>()), 1..25),
    ) {
        let mut w = world();
        for i in 0..6 {
            w.node(node(&format!("n{i}")).label("zone", ["a", "b", "c"][i % 3]));
        }
        for (i, (app, away_from, by_zone)) in pods.iter().enumerate() {
            let mut fixture = pod(&format!("p{i}")).meta("labels", json!({"app": app.to_string()}));
            if let Some(other) = away_from {
                let key = if *by_zone { "zone" } else { "kubernetes.io/hostname" };
                fixture = fixture.set("affinity", json!({"podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": key, "labelSelector": {"matchLabels": {"app": other.to_string()}}}]}}));
            }
            w.pod(fixture);
        }
        let mut placed: Vec<(usize, usize)> = Vec::new();
        while let Some(step) = w.step() {
            if let Step::Bind { queued, node } = step {
                let name = api::meta::MetaExt::name(&*queued.pod.pod)[1..].parse::<usize>().unwrap();
                placed.push((name, node[1..].parse::<usize>().unwrap()));
            }
        }
        for (a, on_a) in &placed {
            let (_, Some(away_from), by_zone) = pods[*a] else { continue };
            for (b, on_b) in placed.iter().filter(|(b, _)| b != a) {
                let near = if by_zone { on_a % 3 == on_b % 3 } else { on_a == on_b };
                prop_assert!(!(near && pods[*b].0 == away_from), "p{a} on n{on_a}, p{b} on n{on_b}");
            }
        }
    }
}
