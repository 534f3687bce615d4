//! Addresses and ports are handed out once, whoever asks and however many servers there are.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::registry::core::service::ServiceStrategy;
use crate::registry::testing::created;

fn allocator() -> Allocator {
    Allocator::new((Ipv4Addr::new(10, 96, 0, 0), 12), 30_000..=32_767)
}

fn service(name: &str, spec: Value) -> Service {
    created(&ServiceStrategy, json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
}

fn simple(type_: &str) -> Value {
    json!({"type": type_, "ports": [{"port": 80}]})
}

fn taken(claims: &Claims) -> Vec<&str> {
    claims.take.iter().map(|c| c.key.as_str()).collect()
}

#[track_caller]
fn refused(spec: Value, expected: &[&str]) {
    let error = allocator().allocate(&mut service("web", spec), None).unwrap_err();
    assert_eq!(error.code(), 422);
    let causes = error.0.details.unwrap().causes.unwrap();
    let texts: Vec<_> = causes
        .iter()
        .map(|c| format!("{}: {}", c.field.clone().unwrap(), c.message.clone().unwrap()))
        .collect();
    assert_eq!(texts, expected);
}

#[test]
fn a_cluster_ip_comes_from_the_upper_band() {
    let mut web = service("web", simple("ClusterIP"));
    let claims = allocator().allocate(&mut web, None).unwrap();
    let spec = web.spec.unwrap();
    let ip: Ipv4Addr = spec.cluster_ip.clone().unwrap().parse().unwrap();
    assert!(
        u32::from(ip) >= u32::from(Ipv4Addr::new(10, 96, 1, 1))
            && u32::from(ip) < u32::from(Ipv4Addr::new(10, 111, 255, 255)),
        "{ip}"
    );
    assert_eq!(spec.cluster_ips.unwrap(), [ip.to_string()]);
    assert_eq!(taken(&claims), [format!("ranges/serviceips/{ip}")]);
    assert_eq!(claims.take[0].explicit, None);
}

#[test]
fn headless_and_external_name_services_take_nothing() {
    for spec in [json!({"clusterIP": "None"}), json!({"type": "ExternalName", "externalName": "a.example"})] {
        assert_eq!(allocator().allocate(&mut service("web", spec), None).unwrap(), Claims::default());
    }
}

#[test]
fn what_the_client_chose_is_claimed_and_names_its_field() {
    let spec =
        json!({"type": "NodePort", "clusterIP": "10.96.0.10", "ports": [{"port": 80, "nodePort": 30080}]});
    let claims = allocator().allocate(&mut service("dns", spec), None).unwrap();
    assert_eq!(taken(&claims), ["ranges/serviceips/10.96.0.10", "ranges/servicenodeports/30080"]);
    let told: Vec<_> = claims.take.iter().map(|c| c.explicit.as_ref().unwrap().to_string()).collect();
    assert_eq!(
        told,
        [
            "spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is already allocated",
            "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
        ]
    );
}

#[test]
fn what_lies_outside_of_the_ranges_is_refused() {
    refused(
        json!({"type": "NodePort", "clusterIP": "192.168.0.1", "ports": [{"port": 80, "nodePort": 8080}]}),
        &[
            "spec.clusterIPs: Invalid value: [\"192.168.0.1\"]: failed to allocate IP 192.168.0.1: the provided IP \
             (192.168.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12",
            "spec.ports[0].nodePort: Invalid value: 8080: provided port is not in the valid range. The range of valid \
             ports is 30000-32767",
        ],
    );
    refused(
        json!({"clusterIP": "10.96.0.0", "ports": [{"port": 80}]}),
        &[
            "spec.clusterIPs: Invalid value: [\"10.96.0.0\"]: failed to allocate IP 10.96.0.0: the provided IP \
           (10.96.0.0) is not in the valid range. The range of valid IPs is 10.96.0.0/12",
        ],
    );
    refused(
        json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]}),
        &[
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        ],
    );
}

#[test]
fn protocols_of_one_port_share_a_node_port() {
    let spec = json!({"type": "NodePort", "ports": [
        {"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53, "protocol": "TCP"}, {"name": "c", "port": 54}]});
    let mut dns = service("dns", spec);
    let claims = allocator().allocate(&mut dns, None).unwrap();
    let ports: Vec<_> = dns.spec.unwrap().ports.unwrap().iter().map(|p| p.node_port.unwrap()).collect();
    assert!(ports[0] == ports[1] && ports[1] != ports[2], "{ports:?}");
    assert!(ports.iter().all(|p| (30_086..=32_767).contains(p)), "{ports:?}");
    assert_eq!(claims.take.len(), 3);
}

#[test]
fn a_change_takes_what_is_new_and_gives_back_what_is_gone() {
    let allocator = allocator();
    let mut old = service("web", simple("NodePort"));
    allocator.allocate(&mut old, None).unwrap();
    assert_eq!(allocator.allocate(&mut old.clone(), Some(&old)).unwrap(), Claims::default());
    let mut new = old.clone();
    new.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].node_port = Some(30_001);
    let claims = allocator.allocate(&mut new, Some(&old)).unwrap();
    let before = old.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port.unwrap();
    assert_eq!(taken(&claims), ["ranges/servicenodeports/30001"]);
    assert_eq!(claims.give, [format!("ranges/servicenodeports/{before}")]);
    assert_eq!(allocator.release(&old).give.len(), 2);
}

#[test]
fn a_small_range_is_used_to_its_last_address() {
    let allocator = Allocator::new((Ipv4Addr::new(10, 0, 0, 0), 28), 30_000..=30_003);
    let mut seen = HashSet::new();
    for i in 0..14 {
        let mut one = service(&format!("s{i}"), simple("ClusterIP"));
        let claims = allocator.allocate(&mut one, None).unwrap();
        assert!(seen.insert(claims.take[0].key.clone()), "{claims:?}");
        allocator.taken(&mut claims.take.into_iter().map(|c| c.key));
    }
}

/// A store that creates keys only once, as etcd's transactions do, behind several servers.
struct Cluster {
    servers: Vec<Allocator>,
    keys: HashSet<String>,
    services: Vec<Service>,
}

impl Cluster {
    /// Creates a Service through a server, with the store's retry; false when it was refused.
    fn create(&mut self, server: usize, mut service: Service) -> bool {
        let original = service.clone();
        for _ in 0..50 {
            let claims = match self.servers[server].allocate(&mut service, None) {
                Ok(claims) => claims,
                Err(_) => return false,
            };
            let clash: Vec<_> = claims.take.iter().filter(|c| self.keys.contains(&c.key)).cloned().collect();
            if clash.is_empty() {
                self.keys.extend(claims.take.iter().map(|c| c.key.clone()));
                self.servers[server].taken(&mut claims.take.into_iter().map(|c| c.key));
                self.services.push(service);
                return true;
            }
            if clash.iter().any(|c| c.explicit.is_some()) {
                return false;
            }
            self.servers[server].taken(&mut clash.into_iter().map(|c| c.key));
            service = original.clone();
        }
        false
    }

    fn delete(&mut self, server: usize, which: usize) {
        if self.services.is_empty() {
            return;
        }
        let service = self.services.remove(which % self.services.len());
        let claims = self.servers[server].release(&service);
        claims.give.iter().for_each(|key| assert!(self.keys.remove(key), "{key} was owned"));
        self.servers[server].freed(&mut claims.give.into_iter());
    }
}

proptest! {
    #[test]
    fn nothing_is_handed_out_twice_nor_lost(
        steps in prop::collection::vec((0usize..3, 0usize..4, any::<u8>(), prop::option::of(0i32..8)), 1..120),
    ) {
        let small = || Allocator::new((Ipv4Addr::new(10, 0, 0, 0), 27), 30_000..=30_031);
        let mut cluster = Cluster { servers: vec![small(), small(), small()], keys: HashSet::new(), services: Vec::new() };
        for (i, (server, action, which, port)) in steps.into_iter().enumerate() {
            match action {
                0 => cluster.delete(server, which.into()),
                1 => cluster.servers[server] = small(),
                _ => {
                    let node_port = port.map_or(0, |p| 30_000 + p);
                    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port}]});
                    cluster.create(server, service(&format!("s{i}"), spec));
                }
            }
            let owned: Vec<_> = cluster.services.iter().flat_map(keys).collect();
            let distinct: HashSet<_> = owned.iter().cloned().collect();
            prop_assert_eq!(owned.len(), distinct.len());
            prop_assert_eq!(&distinct, &cluster.keys);
        }
    }
}
