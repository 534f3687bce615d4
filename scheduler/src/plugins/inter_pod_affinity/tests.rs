use serde_json::{Value, json};

use super::*;
use crate::cluster::Cluster;
use crate::fixtures::{PodFixture, node, pod};

/// Nodes n1 and n2 in zone a, n3 in zone b, n4 in none.
fn world() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, zone) in [("n1", "a"), ("n2", "a"), ("n3", "b")] {
        snapshot.set_node(&node(name).label("zone", zone).build());
    }
    snapshot.set_node(&node("n4").build());
    snapshot
}

fn labelled(name: &str, app: &str) -> PodFixture {
    pod(name).meta("labels", json!({"app": app}))
}

fn term(app: &str, more: Value) -> Value {
    let mut term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}});
    term.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    term
}

fn required(kind: &str, terms: Value) -> Value {
    json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
}

fn preferred(kind: &str, weight: i32, term: Value) -> Value {
    json!({kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term}]}})
}

/// What each node is refused for, in short.
#[track_caller]
fn check(snapshot: &Snapshot, pod: PodFixture, expected: [&str; 4]) {
    let (cluster, plugin, pod) = (Cluster::default(), InterPodAffinity::default(), pod.info());
    let mut cycle = Cycle::new(snapshot, &cluster);
    plugin.pre_filter(&pod, &mut cycle);
    let short = |n: &NodeState| match plugin.filter(&pod, n, &cycle) {
        Ok(()) => "",
        Err(refusal) if refusal == Refusal::for_good(AFFINITY) => "near",
        Err(refusal) if refusal == Refusal::because(ANTI_AFFINITY) => "far",
        Err(refusal) if refusal == Refusal::because(EXISTING) => "existing",
        Err(other) => panic!("{other:?}"),
    };
    let seen: Vec<&str> = snapshot.nodes().iter().map(short).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_pod_goes_where_those_are_that_it_wants_to_be_near() {
    let mut snapshot = world();
    snapshot.set_pod(labelled("db", "db").info(), "n1", false);
    let near = |app: &str| pod("p").set("affinity", required("podAffinity", json!([term(app, json!({}))])));
    check(&snapshot, near("db"), ["", "", "near", "near"]);
    check(&snapshot, near("none"), ["near"; 4]);
    // The first of its kind may be anywhere where there is the label.
    let own = labelled("p", "own").set("affinity", required("podAffinity", json!([term("own", json!({}))])));
    check(&snapshot, own, ["", "", "", "near"]);
}

#[test]
fn all_required_terms_must_speak_of_the_same_pods() {
    let mut snapshot = world();
    let labels = |a: &str, b: &str| json!({"a": a, "b": b});
    snapshot.set_pod(pod("x").meta("labels", labels("1", "2")).info(), "n1", false);
    snapshot.set_pod(pod("y").meta("labels", labels("2", "1")).info(), "n3", false);
    let by = |key: &str, value: &str| json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {key: value}}});
    let both = |x: Value, y: Value| pod("p").set("affinity", required("podAffinity", json!([x, y])));
    check(&snapshot, both(by("a", "1"), by("b", "2")), ["", "", "near", "near"]);
    check(&snapshot, both(by("a", "1"), by("b", "1")), ["near"; 4]);
}

#[test]
fn anti_affinity_holds_both_ways() {
    let mut snapshot = world();
    let far = |name: &str, app: &str| {
        pod(name)
            .meta("labels", json!({"app": "web"}))
            .set("affinity", required("podAntiAffinity", json!([term(app, json!({}))])))
    };
    snapshot.set_pod(far("there", "web").info(), "n1", false);
    check(&snapshot, far("p", "web"), ["far", "far", "", ""]);
    check(&snapshot, labelled("p", "web"), ["existing", "existing", "", ""]);
    check(&snapshot, labelled("p", "other"), ["", "", "", ""]);
    check(&snapshot, far("p", "other"), ["existing", "existing", "", ""]);
    snapshot.remove_pod("there-uid");
    check(&snapshot, far("p", "web"), ["", "", "", ""]);
}

#[test]
fn namespaces_are_chosen_by_name_by_label_or_are_the_pods_own() {
    let mut snapshot = world();
    snapshot.set_namespace("team", Some(&[("team".to_owned(), "x".to_owned())].into()));
    snapshot.set_pod(labelled("db", "db").meta("namespace", json!("team")).info(), "n1", false);
    let near = |more: Value| pod("p").set("affinity", required("podAffinity", json!([term("db", more)])));
    check(&snapshot, near(json!({})), ["near"; 4]);
    check(&snapshot, near(json!({"namespaces": ["team"]})), ["", "", "near", "near"]);
    check(&snapshot, near(json!({"namespaceSelector": {}})), ["", "", "near", "near"]);
    let by = |value: &str| near(json!({"namespaceSelector": {"matchLabels": {"team": value}}}));
    check(&snapshot, by("x"), ["", "", "near", "near"]);
    check(&snapshot, by("y"), ["near"; 4]);
    snapshot.set_namespace("team", Some(&[("team".to_owned(), "y".to_owned())].into()));
    check(&snapshot, by("y"), ["", "", "near", "near"]);
    check(&snapshot, by("x"), ["near"; 4]);
}

#[test]
fn label_keys_narrow_and_widen_a_term() {
    let mut snapshot = world();
    let of = |name: &str, hash: &str| pod(name).meta("labels", json!({"app": "web", "hash": hash}));
    snapshot.set_pod(of("old", "1").info(), "n1", false);
    let far = |more: Value| required("podAntiAffinity", json!([term("web", more)]));
    let keys = |hash: &str, field: &str| of("p", hash).set("affinity", far(json!({field: ["hash"]})));
    check(&snapshot, keys("1", "matchLabelKeys"), ["far", "far", "", ""]);
    check(&snapshot, keys("2", "matchLabelKeys"), ["", "", "", ""]);
    check(&snapshot, keys("1", "mismatchLabelKeys"), ["", "", "", ""]);
    check(&snapshot, keys("2", "mismatchLabelKeys"), ["far", "far", "", ""]);
}

fn scores(plugin: &InterPodAffinity, snapshot: &Snapshot, pod: PodFixture) -> Vec<i64> {
    let (cluster, pod) = (Cluster::default(), pod.info());
    let mut cycle = Cycle::new(snapshot, &cluster);
    if !plugin.pre_score(&pod, &[0, 1, 2, 3], &mut cycle) {
        return Vec::new();
    }
    let mut scores: Vec<i64> = snapshot.nodes().iter().map(|n| plugin.score(&pod, n, &cycle)).collect();
    plugin.normalize(&mut scores, &cycle);
    scores
}

#[test]
fn wishes_of_the_pod_and_of_those_that_are_there_count() {
    let plugin = InterPodAffinity::default();
    let mut snapshot = world();
    assert_eq!(scores(&plugin, &snapshot, pod("p")), [0; 0]);
    snapshot.set_pod(labelled("db", "db").info(), "n3", false);
    let near = pod("p").set("affinity", preferred("podAffinity", 10, term("db", json!({}))));
    assert_eq!(scores(&plugin, &snapshot, near), [0, 0, 100, 0]);
    let far = pod("p").set("affinity", preferred("podAntiAffinity", 10, term("db", json!({}))));
    assert_eq!(scores(&plugin, &snapshot, far), [100, 100, 0, 100]);
    // One that is there had to be near such pods, and would still like to.
    let fan = pod("fan").set("affinity", required("podAffinity", json!([term("web", json!({}))])));
    snapshot.set_pod(fan.info(), "n1", false);
    assert_eq!(scores(&plugin, &snapshot, labelled("p", "web")), [100, 100, 0, 0]);
    let indifferent = InterPodAffinity { hard_weight: 0, ..plugin };
    assert_eq!(scores(&indifferent, &snapshot, labelled("p", "web")), [0; 0]);
}

#[test]
fn wishes_of_those_that_are_there_can_be_ignored() {
    let mut snapshot = world();
    let fan = pod("fan").set("affinity", preferred("podAffinity", 5, term("web", json!({}))));
    snapshot.set_pod(fan.info(), "n1", false);
    let web = || labelled("p", "web");
    assert_eq!(scores(&InterPodAffinity::default(), &snapshot, web()), [100, 100, 0, 0]);
    let ignoring = InterPodAffinity { ignore_preferred: true, ..InterPodAffinity::default() };
    assert_eq!(scores(&ignoring, &snapshot, web()), [0; 0]);
}

#[test]
fn only_events_that_can_matter_wake_the_pod() {
    let plugin = InterPodAffinity::default();
    let near = pod("p").set("affinity", required("podAffinity", json!([term("db", json!({}))]))).info();
    let far = pod("p").set("affinity", required("podAntiAffinity", json!([term("db", json!({}))]))).info();
    let (db, web) = (labelled("db", "db").info(), labelled("web", "web").info());
    assert!(plugin.hint(&near, &Event::PodPlaced(&db)) && !plugin.hint(&near, &Event::PodPlaced(&web)));
    assert!(!plugin.hint(&far, &Event::PodPlaced(&db)));
    let left = |pod| Event::PodLeft { pod, node: None };
    assert!(plugin.hint(&far, &left(&db)) && !plugin.hint(&far, &left(&web)));
    assert!(!plugin.hint(&near, &left(&db)));
    assert!(plugin.hint(&pod("db").meta("labels", json!({"app": "db"})).info(), &left(&far)));
}
