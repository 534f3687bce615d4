use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::fixtures::{pod, service};
use api::openapi::api::core::v1::ContainerPort;

fn nodes() -> HashMap<String, NodeInfo> {
    let zone = |zone: Option<&str>| NodeInfo { zone: zone.map(str::to_owned) };
    [("node-1".into(), zone(Some("z1"))), ("node-2".into(), zone(None))].into()
}

fn ready(i: usize) -> Arc<Pod> {
    pod(&format!("p{i:03}")).ip(&format!("10.244.0.{i}")).ready_since(5).arc()
}

/// Carries out a plan as the API server would.
fn apply(slices: &mut Vec<Arc<EndpointSlice>>, ops: Vec<Op>) -> Vec<&'static str> {
    let mut done = Vec::new();
    for op in ops {
        match op {
            Op::Create(mut slice) => {
                static CREATED: AtomicUsize = AtomicUsize::new(0);
                slice.metadata.name = Some(format!("web-{}", CREATED.fetch_add(1, Ordering::Relaxed)));
                slices.push(Arc::new(slice));
                done.push("create");
            }
            Op::Update(slice) => {
                let at = slices.iter().position(|s| s.name() == slice.name()).unwrap();
                slices[at] = Arc::new(slice);
                done.push("update");
            }
            Op::Delete(slice) => {
                slices.retain(|s| s.name() != slice.name());
                done.push("delete");
            }
        }
    }
    done
}

fn step(
    service: &Service,
    pods: &[Arc<Pod>],
    slices: &mut Vec<Arc<EndpointSlice>>,
    max: usize,
) -> Vec<&'static str> {
    let observed = Observed { service, pods, slices, nodes: &nodes(), max, trigger_time: None };
    let ops = plan(&observed);
    apply(slices, ops)
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    slices.iter().map(|s| s.endpoints.len()).collect()
}

#[test]
fn a_service_without_pods_has_one_empty_slice_that_is_used_later() {
    let service = service(&[("", 80, "8080")]).build();
    let mut slices = Vec::new();
    assert_eq!(step(&service, &[], &mut slices, 100), ["create"]);
    assert_eq!(slices[0].label(SERVICE_NAME), Some("web"));
    assert_eq!(slices[0].label(MANAGED_BY), Some(MANAGER));
    assert!(step(&service, &[], &mut slices, 100).is_empty());
    assert_eq!(step(&service, &[ready(1)], &mut slices, 100), ["update"]);
    assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8080));
    assert!(step(&service, &[ready(1)], &mut slices, 100).is_empty(), "nothing changed");
    assert_eq!(step(&service, &[], &mut slices, 100), ["update"]);
    assert_eq!(sizes(&slices), [0]);
}

#[test]
fn slices_are_bounded_and_changes_touch_few_of_them() {
    let service = service(&[("", 80, "80")]).build();
    let mut slices = Vec::new();
    let pods: Vec<_> = (0..250).map(ready).collect();
    assert_eq!(step(&service, &pods, &mut slices, 100), ["create", "create", "create"]);
    assert_eq!(sizes(&slices), [100, 100, 50]);
    let more: Vec<_> = (0..255).map(ready).collect();
    assert_eq!(step(&service, &more, &mut slices, 100), ["update"]);
    assert_eq!(sizes(&slices), [100, 100, 55]);
    let fewer: Vec<_> = (1..255).map(ready).collect();
    assert_eq!(step(&service, &fewer, &mut slices, 100), ["update"]);
    assert_eq!(sizes(&slices), [99, 100, 55]);
    assert_eq!(step(&service, &fewer[..99], &mut slices, 100), ["delete", "delete"]);
}

#[track_caller]
fn check(pod: Arc<Pod>, publish: bool, expected: Option<(bool, bool, bool)>) {
    let mut service = service(&[("", 80, "80")]).build();
    service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(publish);
    let mut slices = Vec::new();
    step(&service, &[pod], &mut slices, 100);
    let conditions = slices[0].endpoints.first().and_then(|e| e.conditions.clone());
    let found = conditions.map(|c| (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap()));
    assert_eq!(found, expected);
}

#[test]
fn conditions_are_those_of_the_pod() {
    let base = || pod("a").ip("10.244.0.9");
    check(base().ready_since(1).arc(), false, Some((true, true, false)));
    check(base().node("node-1").unready_since(1).arc(), false, Some((false, false, false)));
    check(base().ready_since(1).deleting().arc(), false, Some((false, true, true)));
    check(base().node("node-1").unready_since(1).arc(), true, Some((true, false, false)));
    check(base().ready_since(1).phase("Failed").arc(), false, None);
    check(pod("a").ready_since(1).arc(), false, None);
    check(base().node("lost").ready_since(1).arc(), false, None);
    check(base().node("lost").ready_since(1).arc(), true, Some((true, true, false)));
    check(pod("a").ip("fd00::1").ready_since(1).arc(), false, None);
}

#[test]
fn pods_with_other_ports_stand_in_other_slices() {
    let service = service(&[("http", 80, "web")]).build();
    let with_port = |name: &str, number| {
        let mut pod = pod(name).ip("10.244.0.1").ready_since(1).build();
        let port = ContainerPort { name: Some("web".into()), container_port: number, ..Default::default() };
        pod.spec.as_mut().unwrap().containers[0].ports = Some(vec![port]);
        Arc::new(pod)
    };
    let mut slices = Vec::new();
    let pods = [with_port("a", 8080), with_port("b", 8081)];
    step(&service, &pods, &mut slices, 100);
    assert_eq!(sizes(&slices), [1, 1]);
    assert_eq!(step(&service, &pods[1..], &mut slices, 100), ["delete"]);
    let endpoint = &slices[0].endpoints[0];
    assert_eq!((endpoint.zone.as_deref(), endpoint.node_name.as_deref()), (Some("z1"), Some("node-1")));
    assert_eq!(endpoint.target_ref.as_ref().unwrap().name.as_deref(), Some("b"));
}

#[test]
fn a_headless_service_is_labelled_and_needs_no_ports() {
    let mut service = service(&[]).build();
    service.spec.as_mut().unwrap().cluster_ip = Some("None".into());
    let mut slices = Vec::new();
    step(&service, &[ready(1)], &mut slices, 100);
    assert_eq!(slices[0].label(HEADLESS), Some(""));
    assert_eq!(sizes(&slices), [1]);
}

#[test]
fn labels_of_the_service_are_followed() {
    let mut service = service(&[("", 80, "80")]).build();
    let mut slices = Vec::new();
    step(&service, &[ready(1)], &mut slices, 100);
    service.metadata.labels.get_or_insert_default().insert("tier".into(), "front".into());
    assert_eq!(step(&service, &[ready(1)], &mut slices, 100), ["update"]);
    assert_eq!(slices[0].label("tier"), Some("front"));
}

proptest::proptest! {
    #[test]
    fn every_pod_stands_in_exactly_one_slice(rounds in proptest::collection::vec(proptest::collection::btree_set(0..60usize, 0..40), 1..8)) {
        let service = service(&[("", 80, "80")]).build();
        let mut slices = Vec::new();
        for round in rounds {
            let pods: Vec<_> = round.iter().map(|i| ready(*i)).collect();
            step(&service, &pods, &mut slices, 7);
            let mut shown: Vec<_> = slices.iter().flat_map(|s| s.endpoints.iter().map(identity)).collect();
            shown.sort();
            let mut expected: Vec<_> = pods.iter().map(|p| format!("{}/{}", p.uid(), addresses(p).next().unwrap())).collect();
            expected.sort();
            proptest::prop_assert_eq!(shown, expected);
            proptest::prop_assert!(slices.iter().all(|s| s.endpoints.len() <= 7) && !slices.is_empty());
            proptest::prop_assert!(step(&service, &pods, &mut slices, 7).is_empty());
        }
    }
}
