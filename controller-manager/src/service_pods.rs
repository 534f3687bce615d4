//! What Endpoints and EndpointSlices have in common: which pods stand behind a Service, and how.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use api::meta::{MetaExt, key};
use api::openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use api::openapi::apimachinery::pkg::util::intstr::IntOrString;
use client::{Change, Store, WorkQueue};
use component::tasks::lock;
use jiff::Timestamp;

use crate::context::Context;
use crate::pods::{is_ready, is_terminal, node_name, ready_condition};

/// Marks what belongs to a headless Service.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// When the change that led to this state happened, for measuring how long it took to spread.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The labels that select a Service's pods; `None` when its endpoints are none of our business.
pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector.as_ref().filter(|s| !s.is_empty() && !external)
}

/// Whether all of these labels are among a pod's.
pub fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    selector.iter().all(|(key, value)| pod.label(key) == Some(value.as_str()))
}

/// Whether the Service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Whether pods are published even though they are not ready.
pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

/// Whether a pod can be reached at all: it has an address and has not ended.
pub fn is_reachable(pod: &Pod) -> bool {
    !is_terminal(pod) && addresses(pod).next().is_some()
}

/// The pod's addresses.
pub fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let many = status.and_then(|s| s.pod_ips.as_deref()).unwrap_or_default();
    let one = status.and_then(|s| s.pod_ip.as_deref()).filter(|ip| many.is_empty() && !ip.is_empty());
    many.iter().map(|ip| ip.ip.as_str()).chain(one)
}

/// The number that a Service's target port has in a pod; a name that no container port has is none.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match port.target_port.as_ref() {
        None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let named = |p: &&api::openapi::api::core::v1::ContainerPort| {
        p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.into_iter().find(named).map(|p| p.container_port)
}

/// The pod's host name, when the Service governs it.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let governed =
        spec.subdomain.as_deref() == Some(service.name()) && pod.namespace() == service.namespace();
    spec.hostname.clone().filter(|name| governed && !name.is_empty())
}

/// The reference to a pod that an endpoint carries.
pub fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Queues a Service when it changes, and when a pod changes in a way that its endpoints show.
pub fn watch(ctx: &Context, queue: &WorkQueue) {
    let q = queue.clone();
    ctx.informers.services.on_change(move |change| q.add(change.key()));
    let (q, services) = (queue.clone(), ctx.informers.services.store());
    ctx.informers.pods.on_change(move |change| {
        let pods: &[&Arc<Pod>] = match change {
            Change::Updated { old, new } if shown(old) == shown(new) => return,
            Change::Updated { old, new } => &[old, new],
            Change::Added(pod) | Change::Deleted(pod) => &[pod],
        };
        for service in selecting(&services, pods) {
            q.add(service);
        }
    });
}

fn selecting(services: &Store<Service>, pods: &[&Arc<Pod>]) -> Vec<String> {
    let Some(pod) = pods.first() else { return Vec::new() };
    let matches =
        |service: &Arc<Service>| selector(service).is_some_and(|s| pods.iter().any(|pod| selects(s, pod)));
    services.namespace(pod.namespace()).iter().filter(|s| matches(s)).map(|s| key(&**s)).collect()
}

/// What endpoints show of a pod.
fn shown(pod: &Pod) -> impl PartialEq + '_ {
    let spec = pod.spec.as_ref();
    (
        (pod.uid(), &pod.metadata.labels, pod.is_deleting(), is_terminal(pod), is_ready(pod)),
        (addresses(pod).collect::<Vec<_>>(), node_name(pod)),
        spec.map(|s| (&s.hostname, &s.subdomain)),
    )
}

/// For each Service the times of changes that were published already.
#[derive(Default)]
pub struct TriggerTimes(Mutex<HashMap<String, Known>>);

#[derive(Default)]
struct Known {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl TriggerTimes {
    /// The earliest change of the Service or its pods that was not published yet.
    pub fn next<'p>(&self, service: &Service, pods: impl IntoIterator<Item = &'p Pod>) -> Option<String> {
        let mut all = lock(&self.0);
        let known = all.entry(key(service)).or_default();
        let created = service.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let mut earliest = created.filter(|t| known.service.is_none_or(|k| *t > k));
        let mut present = HashMap::new();
        for pod in pods {
            let changed = ready_condition(pod).and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
            let Some(changed) = changed else { continue };
            if known.pods.get(pod.uid()).is_none_or(|k| changed > *k) {
                earliest = Some(earliest.map_or(changed, |e| e.min(changed)));
            }
            present.insert(pod.uid().to_owned(), changed);
        }
        *known = Known { service: created, pods: present };
        earliest.map(|t| t.to_string())
    }

    /// The Service is gone.
    pub fn forget(&self, service: &str) {
        lock(&self.0).remove(service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{pod, service};
    use api::openapi::api::core::v1::ContainerPort;

    #[test]
    fn target_ports_are_found_by_number_and_name() {
        let mut pod = pod("a").build();
        let port = ContainerPort { name: Some("web".into()), container_port: 8080, ..Default::default() };
        pod.spec.as_mut().unwrap().containers[0].ports = Some(vec![port]);
        let check = |target: Option<IntOrString>, protocol: &str, expected: Option<i32>| {
            let protocol = Some(protocol.to_owned());
            let port = ServicePort { port: 80, target_port: target, protocol, ..Default::default() };
            assert_eq!(target_port(&pod, &port), expected);
        };
        check(None, "TCP", Some(80));
        check(Some(IntOrString::Int(9)), "TCP", Some(9));
        check(Some(IntOrString::String("web".into())), "TCP", Some(8080));
        check(Some(IntOrString::String("web".into())), "UDP", None);
        check(Some(IntOrString::String("nope".into())), "TCP", None);
    }

    #[test]
    fn the_earliest_change_that_is_not_published_is_told() {
        let times = TriggerTimes::default();
        let service = service(&[]).created(5).build();
        let (a, b) = (pod("a").ready_since(7).build(), pod("b").ready_since(9).build());
        assert_eq!(times.next(&service, [&a]).as_deref(), Some("1970-01-01T00:00:05Z"));
        assert_eq!(times.next(&service, [&a]), None);
        assert_eq!(times.next(&service, [&a, &b]).as_deref(), Some("1970-01-01T00:00:09Z"));
    }
}
