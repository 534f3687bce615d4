use rand::SeedableRng;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{PodFixture, node, pod};
use crate::profile::Profile;
use crate::schedule::{Nominated, Scheduler};
use crate::snapshot::Snapshot;

#[derive(Default)]
struct World {
    snapshot: Snapshot,
    cluster: Cluster,
    nominated: Nominated,
}

impl World {
    /// Nodes of four CPUs and what runs there: `"n1: a=0*2 b=5*1"` are pods a of priority 0 and b of
    /// priority 5, of two CPUs and of one. Earlier pods began earlier.
    fn new(nodes: &[&str]) -> Self {
        let mut world = Self::default();
        for line in nodes {
            let (name, pods) = line.split_once(':').expect("node: pods");
            world.snapshot.set_node(&node(name).build());
            for (age, text) in pods.split_whitespace().enumerate() {
                let (of, rest) = text.split_once('=').expect("name=priority*cpu");
                let (priority, cpu) = rest.split_once('*').expect("priority*cpu");
                let fixture = pod(of)
                    .cpu(cpu)
                    .priority(priority.parse().expect("a priority"))
                    .meta("labels", json!({"app": of}))
                    .status("startTime", json!(format!("2026-01-01T00:00:{age:02}Z")));
                world.snapshot.set_pod(fixture.info(), name, false);
            }
        }
        world
    }

    fn budget(mut self, app: &str, allowed: i32) -> Self {
        let budget = json!({"spec": {"selector": {"matchLabels": {"app": app}}},
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
        let budget = serde_json::from_value(budget).expect("a budget");
        self.cluster.set_budget("default", app, Some(&budget));
        self
    }

    fn preempt(&self, pod: PodFixture) -> Outcome {
        let (profile, pod) = (Profile::default(), pod.info());
        let mut scheduler = Scheduler::new(SmallRng::seed_from_u64(1));
        let diagnosis = scheduler
            .decide(&pod, &profile, &self.snapshot, &self.cluster, &self.nominated)
            .expect_err("there is no room");
        let search = Search::again(&pod, &profile, &self.snapshot, &self.cluster, &self.nominated);
        DefaultPreemption::default().preempt(&search, &diagnosis, &mut scheduler.rng)
    }
}

/// `"n1: a b"`, or the message.
#[track_caller]
fn check(world: &World, pod: PodFixture, expected: &str) {
    let seen = match world.preempt(pod) {
        Outcome::Ineligible(why) | Outcome::Impossible(why) => why,
        Outcome::Nominated { node, victims, .. } => {
            let names: Vec<_> =
                victims.iter().map(|v| api::meta::MetaExt::name(&*v.pod).to_owned()).collect();
            format!("{node}: {}", names.join(" "))
        }
    };
    assert_eq!(seen, expected);
}

#[test]
fn as_few_and_as_unimportant_pods_as_possible_make_room() {
    let world = World::new(&["n1: a=1*2 b=2*2", "n2: c=1*1 d=1*1 e=3*2"]);
    check(&world, pod("p").cpu("2").priority(10), "n1: a");
    check(&world, pod("p").cpu("3").priority(10), "n1: b a");
    // The lower of the highest priorities goes before the number of victims.
    check(&World::new(&["n1: a=5*4", "n2: b=1*2 c=1*2"]), pod("p").cpu("4").priority(10), "n2: b c");
    // Then the smaller sum, which fewer victims always have; then the younger.
    check(&World::new(&["n1: a=1*2 b=1*2", "n2: c=1*4"]), pod("p").cpu("4").priority(10), "n2: c");
    check(&World::new(&["n1: a=1*4", "n2: x=20*1 c=1*3"]), pod("p").cpu("3").priority(10), "n2: c");
}

#[test]
fn the_more_important_stay_when_there_is_room_for_them() {
    let world = World::new(&["n1: old=1*1 young=1*1 high=5*2"]);
    check(&world, pod("p").cpu("1").priority(10), "n1: young");
    check(&world, pod("p").cpu("2").priority(10), "n1: old young");
}

#[test]
fn budgets_are_kept_where_that_can_be() {
    let nodes = ["n1: a=1*4", "n2: b=5*4"];
    check(&World::new(&nodes), pod("p").cpu("4").priority(10), "n1: a");
    check(&World::new(&nodes).budget("a", 0), pod("p").cpu("4").priority(10), "n2: b");
    check(&World::new(&nodes).budget("a", 1), pod("p").cpu("4").priority(10), "n1: a");
    check(&World::new(&nodes).budget("a", 0).budget("b", 0), pod("p").cpu("4").priority(10), "n1: a");
    // On one node, those whose budget is spent are the first to be spared.
    let one = World::new(&["n1: a=5*2 b=5*2"]).budget("b", 0);
    check(&one, pod("p").cpu("2").priority(10), "n1: a");
}

#[test]
fn where_it_cannot_help_it_says_so() {
    let world = World::new(&["n1: a=10*4", "n2: b=11*4"]);
    let none = "0/2 nodes are available: 2 No preemption victims found for incoming pod.";
    check(&world, pod("p").cpu("1").priority(10), none);
    check(
        &world,
        pod("p").cpu("9").priority(99),
        "0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
    );
    let mut world = World::new(&["n1: a=1*3 b=20*1"]);
    world.snapshot.set_node(&node("n2").taint("k", "v", "NoSchedule").build());
    check(
        &world,
        pod("p").cpu("4").priority(10),
        "0/2 nodes are available: 1 Insufficient cpu, 1 Preemption is not helpful for scheduling.",
    );
}

#[test]
fn a_pod_that_never_preempts_says_so() {
    let world = World::new(&["n1: a=1*4"]);
    let never = pod("p").cpu("1").priority(10).set("preemptionPolicy", json!("Never"));
    check(&world, never, "not eligible due to preemptionPolicy=Never.");
}

#[test]
fn a_victim_that_is_leaving_is_waited_for() {
    let mut world = World::new(&["n1: a=1*4", "n2: b=1*4"]);
    let conditions = json!([{"type": "DisruptionTarget", "status": "True", "reason": DISRUPTED}]);
    let leaving = pod("a").cpu("4").priority(1).meta("deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    world.snapshot.set_pod(leaving.status("conditions", conditions).info(), "n1", false);
    let p = || pod("p").cpu("4").priority(10);
    world.nominated.set(p().info(), "n1");
    check(&world, p(), "not eligible due to a terminating pod on the nominated node.");
}

#[test]
fn room_that_was_made_for_an_equal_is_not_taken_twice() {
    let mut world = World::new(&["n1: a=1*2", "n2: b=5*2"]);
    world.nominated.set(pod("first").cpu("4").priority(10).info(), "n1");
    check(&world, pod("p").cpu("4").priority(10), "n2: b");
    // One that is more important takes it, and the other has to look again.
    let Outcome::Nominated { node, displaced, .. } = world.preempt(pod("q").cpu("4").priority(20)) else {
        panic!("there is room to be made")
    };
    assert_eq!((&*node, displaced.len()), ("n1", 1));
}

#[test]
fn anti_affinity_is_a_reason_to_preempt() {
    let mut world = World::new(&["n1: a=1*1"]);
    world.snapshot.set_pod(pod("c").cpu("1").priority(1).info(), "n1", false);
    let far: Value = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}}]}});
    check(&world, pod("p").priority(10).set("affinity", far), "n1: a");
}
