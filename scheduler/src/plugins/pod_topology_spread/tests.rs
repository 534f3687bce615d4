use std::collections::BTreeMap;

use api::selector::Selector;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::cluster::Cluster;
use crate::fixtures::{NodeFixture, PodFixture, node, pod};

/// A row of zones: `"a: 2 1 | b: 0"` are two nodes in zone a with two and one matching pods, and one
/// empty node in zone b. A zone named `-` is none.
fn world(text: &str) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut n = 0;
    for part in text.split('|') {
        let (zone, counts) = part.split_once(':').expect("zone: counts");
        for count in counts.split_whitespace() {
            n += 1;
            let name = format!("n{n}");
            let fixture = match zone.trim() {
                "-" => node(&name),
                zone => node(&name).label("zone", zone),
            };
            snapshot.set_node(&fixture.build());
            for i in 0..count.parse::<usize>().expect("a number") {
                snapshot.set_pod(app(&format!("{name}-{i}")).info(), &name, false);
            }
        }
    }
    snapshot
}

fn app(name: &str) -> PodFixture {
    pod(name).meta("labels", json!({"app": "web"}))
}

fn constraint(key: &str, skew: i32, hard: bool) -> Value {
    json!({"maxSkew": skew, "topologyKey": key, "labelSelector": {"matchLabels": {"app": "web"}},
        "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" }})
}

fn with(constraint: Value, more: Value) -> Value {
    let mut constraint = constraint;
    constraint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    constraint
}

fn spread(constraints: &[Value]) -> PodFixture {
    app("p").set("topologySpreadConstraints", json!(constraints))
}

/// The nodes that pass, by number.
#[track_caller]
fn check(snapshot: &Snapshot, pod: PodFixture, expected: &[usize]) {
    let cluster = Cluster::default();
    let (plugin, pod) = (PodTopologySpread::default(), pod.info());
    let mut cycle = Cycle::new(snapshot, &cluster);
    plugin.pre_filter(&pod, &mut cycle);
    let passes = |n: &NodeState| plugin.filter(&pod, n, &cycle).is_ok();
    let seen: Vec<usize> = snapshot.nodes().iter().filter(|n| passes(n)).map(|n| n.place() + 1).collect();
    assert_eq!(seen, expected);
}

/// The first examples of the documentation of topology spread constraints.
#[test]
fn the_documented_examples_hold() {
    let four = || world("a: 2 1 | b: 1 0");
    // Zone a has 3, zone b 1: only zone b may grow.
    check(&four(), spread(&[constraint("zone", 1, true)]), &[3, 4]);
    // And by node as well: only the empty node.
    check(
        &four(),
        spread(&[constraint("zone", 1, true), constraint("kubernetes.io/hostname", 1, true)]),
        &[4],
    );
    // Two constraints that contradict each other: zone b for one, node 2 for the other.
    let three = world("a: 2 0 | b: 1");
    check(&three, spread(&[constraint("zone", 1, true)]), &[3]);
    let conflict = world("a: 2 1 | b: 2");
    check(
        &conflict,
        spread(&[constraint("zone", 1, true), constraint("kubernetes.io/hostname", 1, true)]),
        &[],
    );
    check(&four(), spread(&[constraint("zone", 3, true)]), &[1, 2, 3, 4]);
}

#[test]
fn nodes_without_the_label_are_refused_for_good_and_not_counted() {
    let snapshot = world("a: 1 | b: 1 | -: 0");
    check(&snapshot, spread(&[constraint("zone", 1, true)]), &[1, 2]);
    let cluster = Cluster::default();
    let (plugin, pod) = (PodTopologySpread::default(), spread(&[constraint("zone", 1, true)]).info());
    let mut cycle = Cycle::new(&snapshot, &cluster);
    plugin.pre_filter(&pod, &mut cycle);
    let refused = plugin.filter(&pod, &snapshot.nodes()[2], &cycle).unwrap_err();
    assert_eq!(refused, Refusal::for_good(UNLABELLED));
}

#[test]
fn with_fewer_domains_than_wanted_the_least_is_zero() {
    let two = |n: i32| spread(&[with(constraint("zone", 1, true), json!({"minDomains": n}))]);
    check(&world("a: 1 | b: 1"), two(2), &[1, 2]);
    check(&world("a: 1 | b: 1"), two(3), &[]);
    check(&world("a: 1 | b: 0"), two(3), &[2]);
}

#[test]
fn nodes_that_the_pod_could_not_use_are_not_counted_unless_asked_for() {
    let mut snapshot = world("a: 1 | b: 0");
    snapshot.set_node(&node("n1").label("zone", "a").label("disk", "ssd").build());
    let selecting = |policy: &str| {
        let constraint = with(constraint("zone", 1, true), json!({"nodeAffinityPolicy": policy}));
        spread(&[constraint]).set("nodeSelector", json!({"disk": "ssd"}))
    };
    // Zone b is none of the pod's business.
    check(&snapshot, selecting("Honor"), &[1, 2]);
    check(&snapshot, selecting("Ignore"), &[2]);
    snapshot.set_node(&node("n2").label("zone", "b").taint("k", "v", "NoSchedule").build());
    let taints =
        |policy: &str| spread(&[with(constraint("zone", 1, true), json!({"nodeTaintsPolicy": policy}))]);
    check(&snapshot, taints("Ignore"), &[2]);
    check(&snapshot, taints("Honor"), &[1, 2]);
}

#[test]
fn match_label_keys_tell_revisions_apart() {
    let mut snapshot = world("a: 0 | b: 0");
    let of = |name: &str, revision: &str| pod(name).meta("labels", json!({"app": "web", "hash": revision}));
    snapshot.set_pod(of("old", "1").info(), "n1", false);
    let keys = with(constraint("zone", 1, true), json!({"matchLabelKeys": ["hash"]}));
    let new = of("new", "2").set("topologySpreadConstraints", json!([keys]));
    check(&snapshot, new, &[1, 2]);
    let same = of("same", "1").set("topologySpreadConstraints", json!([keys]));
    check(&snapshot, same, &[2]);
}

#[test]
fn pods_that_leave_and_pods_elsewhere_are_not_counted() {
    let mut snapshot = world("a: 0 | b: 0");
    let leaving = app("leaving").meta("deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    snapshot.set_pod(leaving.info(), "n1", false);
    snapshot.set_pod(app("other").meta("namespace", json!("other")).info(), "n1", false);
    check(&snapshot, spread(&[constraint("zone", 1, true)]), &[1, 2]);
}

#[track_caller]
fn scores(plugin: &PodTopologySpread, snapshot: &Snapshot, cluster: &Cluster, pod: PodFixture) -> Vec<i64> {
    let pod = pod.info();
    let all: Vec<usize> = (0..snapshot.nodes().len()).collect();
    let mut cycle = Cycle::new(snapshot, cluster);
    if !plugin.pre_score(&pod, &all, &mut cycle) {
        return Vec::new();
    }
    let mut scores: Vec<i64> = snapshot.nodes().iter().map(|n| plugin.score(&pod, n, &cycle)).collect();
    plugin.normalize(&mut scores, &cycle);
    scores
}

#[test]
fn wishes_prefer_the_emptier_domain() {
    let (plugin, cluster) = (PodTopologySpread::default(), Cluster::default());
    let by_zone = || spread(&[constraint("zone", 1, false)]);
    assert_eq!(scores(&plugin, &world("a: 3 | b: 0"), &cluster, by_zone()), [0, 100]);
    assert_eq!(scores(&plugin, &world("a: 1 | b: 1"), &cluster, by_zone()), [100, 100]);
    assert_eq!(scores(&plugin, &world("a: 2 | -: 0"), &cluster, by_zone()), [100, 0]);
    let by_node = || spread(&[constraint("kubernetes.io/hostname", 1, false)]);
    assert_eq!(scores(&plugin, &world("a: 2 1 0"), &cluster, by_node()), [0, 33, 100]);
}

#[test]
fn pods_of_an_owner_are_spread_by_default_and_others_are_not() {
    let (plugin, mut cluster) = (PodTopologySpread::default(), Cluster::default());
    assert_eq!(scores(&plugin, &world("-: 2 0"), &cluster, app("p")), [0; 0]);
    cluster.set_service("default", "web", Selector::parse("app=web").ok());
    let seen = scores(&plugin, &world("-: 9 0"), &cluster, app("p"));
    assert!(seen[0] < seen[1], "{seen:?}");
    let listed = PodTopologySpread::with_defaults(vec![]);
    assert_eq!(scores(&listed, &world("-: 9 0"), &cluster, app("p")), [0; 0]);
}

#[test]
fn only_events_that_move_the_skew_wake_the_pod() {
    let (plugin, p) = (PodTopologySpread::default(), spread(&[constraint("zone", 1, true)]).info());
    let (alike, other) = (app("x").info(), pod("y").info());
    assert!(plugin.hint(&p, &Event::PodPlaced(&alike)));
    assert!(!plugin.hint(&p, &Event::PodPlaced(&other)));
    assert!(plugin.hint(&p, &Event::PodLeft { pod: &alike, node: None }));
    let zone = |zone: &str| NodeFixture::state(node("n").label("zone", zone));
    assert!(plugin.hint(&p, &Event::NodeAdded(&zone("a"))));
    assert!(!plugin.hint(&p, &Event::NodeAdded(&node("n").state())));
    assert!(plugin.hint(&p, &Event::NodeUpdated { old: &zone("a"), new: &zone("b") }));
    assert!(!plugin.hint(&p, &Event::NodeUpdated { old: &zone("a"), new: &zone("a") }));
}

proptest! {
    /// Counted naively, pod by pod, the skew never passes what was asked for.
    #[test]
    fn a_placement_never_breaks_the_skew(
        nodes in prop::collection::vec((0usize..3, 0usize..4), 1..8),
        skew in 1i32..3,
        min_domains in 1i32..4,
    ) {
        let text: Vec<String> =
            nodes.iter().map(|(zone, pods)| format!("{}: {pods}", ["a", "b", "c"][*zone])).collect();
        let snapshot = world(&text.join("|"));
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        nodes.iter().for_each(|(zone, pods)| *counts.entry(*zone).or_default() += pods);
        let few = counts.len() < min_domains as usize;
        let least = if few { 0 } else { *counts.values().min().unwrap() };
        let cluster = Cluster::default();
        let (plugin, pod) = (
            PodTopologySpread::default(),
            spread(&[with(constraint("zone", skew, true), json!({"minDomains": min_domains}))]).info(),
        );
        let mut cycle = Cycle::new(&snapshot, &cluster);
        plugin.pre_filter(&pod, &mut cycle);
        for (at, (zone, _)) in nodes.iter().enumerate() {
            let allowed = counts[zone] + 1 - least <= skew as usize;
            prop_assert_eq!(plugin.filter(&pod, &snapshot.nodes()[at], &cycle).is_ok(), allowed);
        }
    }
}
