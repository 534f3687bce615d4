use serde_json::{Value, json};

use super::*;
use crate::cluster::Cluster;
use crate::fixtures::{PodFixture, node, pod};
use crate::snapshot::Snapshot;

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the fixture is one")
}

fn claim(cluster: &mut Cluster, name: &str, class: &str, more: Value) {
    let mut claim = json!({"metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
    merge(&mut claim, &more);
    cluster.volumes.set_claim(&format!("default/{name}"), Some(Arc::new(from(claim))));
}

fn volume(cluster: &mut Cluster, name: &str, size: &str, on: Option<&str>, more: Value) {
    let mut volume = json!({"metadata": {"name": name}, "status": {"phase": "Available"},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}}});
    if let Some(node) = on {
        volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}});
    }
    merge(&mut volume, &more);
    cluster.volumes.set_volume(name, Some(Arc::new(from(volume))));
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

fn world() -> (Snapshot, Cluster) {
    let (mut snapshot, mut cluster) = (Snapshot::default(), Cluster::default());
    for name in ["n1", "n2"] {
        snapshot.set_node(&node(name).build());
    }
    for (name, provisioner) in [("local", NO_PROVISIONER), ("dynamic", "csi.example.com")] {
        let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
        cluster.volumes.set_class(name, Some(Arc::new(from(class))));
    }
    (snapshot, cluster)
}

fn with(claim: &str) -> PodFixture {
    pod("p").set("volumes", json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]))
}

#[track_caller]
fn check(world: &(Snapshot, Cluster), pod: PodFixture, expected: [&str; 2]) {
    let (snapshot, cluster) = world;
    let pod = pod.info();
    let mut cycle = Cycle::new(snapshot, cluster);
    let whole = match VolumeBinding.pre_filter(&pod, &mut cycle) {
        PreFilter::Refuse(reason) => Some(reason.texts(&pod).join(", ")),
        _ => None,
    };
    let one = |n: &NodeState| match (&whole, VolumeBinding.filter(&pod, n, &cycle)) {
        (Some(whole), _) => whole.clone(),
        (None, Ok(())) => String::new(),
        (None, Err(refusal)) => refusal.reason.texts(&pod).join(", "),
    };
    let seen: Vec<String> = snapshot.nodes().iter().map(one).collect();
    assert_eq!(seen, expected);
}

#[test]
fn claims_that_are_missing_leaving_or_unbound_are_named() {
    let mut w = world();
    check(&w, with("data"), [r#"persistentvolumeclaim "data" not found"#; 2]);
    claim(&mut w.1, "data", "", json!({}));
    check(&w, with("data"), ["pod has unbound immediate PersistentVolumeClaims"; 2]);
    claim(&mut w.1, "data", "", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    check(&w, with("data"), [r#"persistentvolumeclaim "data" is being deleted"#; 2]);
    check(&w, pod("p"), [""; 2]);
    let ephemeral = pod("p").set("volumes", json!([{"name": "v", "ephemeral": {}}]));
    check(
        &w,
        ephemeral,
        [r#"waiting for ephemeral volume controller to create the persistentvolumeclaim "p-v""#; 2],
    );
}

#[test]
fn a_pod_goes_where_its_volume_is() {
    let mut w = world();
    claim(&mut w.1, "data", "local", json!({"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}));
    check(&w, with("data"), [NO_VOLUME; 2]);
    volume(&mut w.1, "pv", "1Gi", Some("n2"), json!({}));
    check(&w, with("data"), [CONFLICT, ""]);
}

#[test]
fn a_claim_that_waits_is_bound_to_the_smallest_volume_that_will_do() {
    let mut w = world();
    claim(&mut w.1, "data", "local", json!({}));
    check(&w, with("data"), [NONE_TO_BIND; 2]);
    volume(&mut w.1, "small", "1Mi", Some("n1"), json!({}));
    volume(&mut w.1, "large", "9Gi", Some("n2"), json!({}));
    volume(&mut w.1, "right", "2Gi", Some("n2"), json!({}));
    volume(
        &mut w.1,
        "taken",
        "1Gi",
        Some("n2"),
        json!({"spec": {"claimRef": {"name": "x", "namespace": "default"}}}),
    );
    check(&w, with("data"), [NONE_TO_BIND, ""]);
    let writes = writes(&with("data").info(), w.0.node("n2").unwrap(), &w.1.volumes).unwrap();
    assert!(matches!(&writes[..], [Write::Bind { volume, .. }] if volume == "right"), "{writes:?}");
}

#[test]
fn a_volume_is_made_where_the_pod_goes_and_nowhere_else() {
    let mut w = world();
    claim(&mut w.1, "data", "dynamic", json!({}));
    check(&w, with("data"), [""; 2]);
    let needed = writes(&with("data").info(), w.0.node("n1").unwrap(), &w.1.volumes).unwrap();
    assert!(matches!(&needed[..], [Write::Provision(_)]));
    claim(&mut w.1, "data", "dynamic", json!({"metadata": {"annotations": {SELECTED_NODE: "n2"}}}));
    check(&w, with("data"), [NONE_TO_BIND, ""]);
}
