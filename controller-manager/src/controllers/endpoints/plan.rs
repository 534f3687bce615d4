//! Decides what the Endpoints of a Service say.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use api::openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::pods::{is_ready, node_name};
use crate::service_pods::{
    HEADLESS, TRIGGER_TIME, addresses, hostname, is_headless, is_reachable, publishes_not_ready, target_port,
    target_ref,
};

/// The most addresses that Endpoints hold.
const CAPACITY: usize = 1000;
/// Tells that there were more addresses than [`CAPACITY`].
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The label that names who manages Endpoints.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// This controller's name in [`MANAGED_BY`].
pub const MANAGER: &str = "endpoint-controller";

/// One write.
#[derive(Debug, PartialEq)]
pub enum Op {
    /// There are none yet.
    Create(Endpoints),
    /// They say something else, at the version that was observed.
    Update(Endpoints),
}

/// The ports of a subset in a form that can be ordered: name, number, protocol, application protocol.
type Ports = Vec<(String, i32, String, Option<String>)>;

/// Decides what to write so that the Endpoints show the pods.
pub fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    present: Option<&Endpoints>,
    trigger_time: Option<&str>,
) -> Option<Op> {
    let (subsets, truncated) = truncate(subsets(service, pods));
    let labels = labels(service);
    let empty = Endpoints::default();
    let before = present.unwrap_or(&empty);
    let mut annotations = before.metadata.annotations.clone().unwrap_or_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    let said = before.metadata.annotations.clone().unwrap_or_default();
    let same = before.subsets.clone().unwrap_or_default() == subsets
        && before.metadata.labels.as_ref() == Some(&labels)
        && said == annotations;
    if present.is_some() && same {
        return None;
    }
    match trigger_time {
        Some(time) => drop(annotations.insert(TRIGGER_TIME.into(), time.into())),
        None => drop(annotations.remove(TRIGGER_TIME)),
    }
    let metadata = ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..before.metadata.clone()
    };
    let next = Endpoints { metadata, subsets: Some(subsets) };
    Some(if present.is_some() { Op::Update(next) } else { Op::Create(next) })
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// The addresses grouped by the ports that they serve, in a fixed order.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let publish = publishes_not_ready(service);
    let mut groups: BTreeMap<Ports, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().filter(|p| is_reachable(p) && (publish || !p.is_deleting())) {
        let wants_v6 =
            service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).is_some_and(|ip| ip.contains(':'));
        let Some(ip) = addresses(pod).find(|ip| ip.contains(':') == wants_v6) else { continue };
        let ports = ports(service, pod);
        if ports.is_empty() && !(is_headless(service) && has_no_ports(service)) {
            continue;
        }
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(pod, service),
            node_name: Some(node_name(pod).to_owned()).filter(|n| !n.is_empty()),
            target_ref: Some(target_ref(pod)),
        };
        let subset = groups.entry(ports).or_default();
        let ready = publish || is_ready(pod);
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    groups.into_iter().map(|(ports, subset)| finish(ports, subset)).collect()
}

fn has_no_ports(service: &Service) -> bool {
    service.spec.as_ref().is_none_or(|s| s.ports.as_deref().unwrap_or_default().is_empty())
}

fn ports(service: &Service, pod: &Pod) -> Ports {
    let all = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let mut ports: Ports = all
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            let name = port.name.clone().unwrap_or_default();
            Some((name, target_port(pod, port)?, protocol, port.app_protocol.clone()))
        })
        .collect();
    ports.sort();
    ports
}

fn finish(ports: Ports, mut subset: EndpointSubset) -> EndpointSubset {
    for list in [&mut subset.addresses, &mut subset.not_ready_addresses] {
        let by = |a: &EndpointAddress| (a.ip.clone(), a.target_ref.as_ref().and_then(|r| r.uid.clone()));
        if let Some(list) = list {
            list.sort_by_key(by);
        }
    }
    let ports: Vec<_> = ports
        .into_iter()
        .map(|(name, port, protocol, app_protocol)| EndpointPort {
            name: (!name.is_empty()).then_some(name),
            port,
            protocol: Some(protocol),
            app_protocol,
        })
        .collect();
    subset.ports = (!ports.is_empty()).then_some(ports);
    subset
}

/// Cuts down to [`CAPACITY`], ready addresses first, and tells whether anything was cut.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let mut left = CAPACITY;
    let mut cut = false;
    let mut take = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            cut |= addresses.len() > left;
            addresses.truncate(left);
            left -= addresses.len();
            if addresses.is_empty() {
                *list = None;
            }
        }
    };
    subsets.iter_mut().for_each(|s| take(&mut s.addresses));
    subsets.iter_mut().for_each(|s| take(&mut s.not_ready_addresses));
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    (subsets, cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{pod, service};

    fn text(endpoints: &Endpoints) -> String {
        let ips = |list: &Option<Vec<EndpointAddress>>| {
            list.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>().join(" ")
        };
        let ports = |s: &EndpointSubset| {
            s.ports.iter().flatten().map(|p| p.port.to_string()).collect::<Vec<_>>().join(" ")
        };
        let one = |s: &EndpointSubset| {
            format!("[{}] ({}) :{}", ips(&s.addresses), ips(&s.not_ready_addresses), ports(s))
        };
        endpoints.subsets.iter().flatten().map(one).collect::<Vec<_>>().join(", ")
    }

    fn some_pods() -> Vec<Arc<Pod>> {
        vec![
            pod("b").ip("10.0.0.2").ready_since(1).arc(),
            pod("a").ip("10.0.0.1").ready_since(1).arc(),
            pod("c").ip("10.0.0.3").unready_since(1).arc(),
            pod("d").ip("10.0.0.4").ready_since(1).deleting().arc(),
            pod("e").ip("10.0.0.5").phase("Succeeded").arc(),
            pod("f").arc(),
        ]
    }

    #[track_caller]
    fn check(change: impl Fn(&mut Service), expected: &str) {
        let mut service = service(&[("http", 80, "8080"), ("https", 443, "8443")]).build();
        change(&mut service);
        let Some(Op::Create(endpoints)) = plan(&service, &some_pods(), None, None) else {
            panic!("none created")
        };
        assert_eq!(text(&endpoints), expected);
        assert_eq!(plan(&service, &some_pods(), Some(&endpoints), Some("now")), None, "nothing changed");
    }

    #[test]
    fn ready_pods_are_addresses_and_the_others_are_not_ready_addresses() {
        check(|_| {}, "[10.0.0.1 10.0.0.2] (10.0.0.3) :8080 8443");
        let publish = |s: &mut Service| s.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        check(publish, "[10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4] () :8080 8443");
        let headless = |s: &mut Service| {
            let spec = s.spec.as_mut().unwrap();
            (spec.cluster_ip, spec.ports) = (Some("None".into()), None);
        };
        check(headless, "[10.0.0.1 10.0.0.2] (10.0.0.3) :");
        check(|s| s.spec.as_mut().unwrap().ports = None, "");
    }

    #[test]
    fn too_many_addresses_are_cut_and_that_is_told() {
        let service = service(&[("", 80, "80")]).build();
        let pods: Vec<_> = (0..1200)
            .map(|i| {
                let pod = pod(&format!("p{i}")).ip(&format!("10.1.{}.{}", i / 250, i % 250));
                if i < 300 { pod.unready_since(1).arc() } else { pod.ready_since(1).arc() }
            })
            .collect();
        let Some(Op::Create(endpoints)) = plan(&service, &pods, None, Some("t")) else {
            panic!("none created")
        };
        let subset = &endpoints.subsets.as_ref().unwrap()[0];
        assert_eq!(subset.addresses.as_ref().unwrap().len(), 900);
        assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 100);
        assert_eq!(endpoints.annotation(OVER_CAPACITY), Some("truncated"));
        assert_eq!(endpoints.annotation(TRIGGER_TIME), Some("t"));
        let Some(Op::Update(fewer)) = plan(&service, &pods[..5], Some(&endpoints), None) else {
            panic!("not updated")
        };
        assert_eq!(fewer.metadata.annotations, None);
    }
}
