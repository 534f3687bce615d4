//! What of a Service is carried over when it changes, and what may not change.

use std::collections::HashSet;

use api::openapi::api::core::v1::ServiceSpec;
use api::validation::FieldError;
use serde_json::json;

use super::{is_external, needs_cluster_ip, needs_health_check, needs_node_ports, type_of};
use crate::registry::fields::{Errors, set};

/// What the server once allocated stays, though the client did not repeat it; what the new type does not
/// know goes, unless the client changed it and so must be told.
pub fn carry_over(new: &mut ServiceSpec, old: &ServiceSpec) {
    keep_allocated(new, old);
    drop_unknown_to_type(new, old);
}

fn keep_allocated(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        let ips = |spec: &ServiceSpec| spec.cluster_ips.clone().unwrap_or_default();
        if set(new.cluster_ip.as_deref()).is_none() && ips(new).is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
            new.cluster_ips.clone_from(&old.cluster_ips);
        } else if new.cluster_ip != old.cluster_ip && (ips(new).is_empty() || ips(new) == ips(old)) {
            // A client that knows the old field alone changed it.
            new.cluster_ips = set(new.cluster_ip.as_deref()).map(|ip| vec![ip.to_owned()]);
        } else if ips(new).is_empty() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    } else if needs_cluster_ip(new)
        && let Some(ip) = set(new.cluster_ip.as_deref())
        && new.cluster_ips.as_ref().is_none_or(Vec::is_empty)
    {
        new.cluster_ips = Some(vec![ip.to_owned()]);
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        keep_node_ports(new, old);
    }
    if needs_health_check(old) && needs_health_check(new) && new.health_check_node_port.unwrap_or(0) == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// A port keeps its node port by protocol and number, unless another port was given that node port.
fn keep_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let mut used: HashSet<i32> = new.ports.iter().flatten().filter_map(|p| p.node_port).collect();
    for port in new.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or(0) == 0) {
        let before = old.ports.iter().flatten().find(|o| o.port == port.port && o.protocol == port.protocol);
        if let Some(node_port) = before.and_then(|b| b.node_port)
            && used.insert(node_port)
        {
            port.node_port = Some(node_port);
        }
    }
}

fn drop_unknown_to_type(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if new.cluster_ip == old.cluster_ip && new.cluster_ips == old.cluster_ips {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        forget(&mut new.ip_families, &old.ip_families);
        forget(&mut new.ip_family_policy, &old.ip_family_policy);
        forget(&mut new.internal_traffic_policy, &old.internal_traffic_policy);
    }
    if needs_node_ports(old) && !needs_node_ports(new) {
        let node_ports = |spec: &ServiceSpec| -> Vec<_> {
            spec.ports.iter().flatten().map(|p| p.node_port.unwrap_or(0)).collect()
        };
        if node_ports(new) == node_ports(old) {
            new.ports.iter_mut().flatten().for_each(|port| port.node_port = None);
        }
    }
    if needs_health_check(old) && !needs_health_check(new) {
        forget(&mut new.health_check_node_port, &old.health_check_node_port);
    }
    if is_external(old) && !is_external(new) {
        forget(&mut new.external_traffic_policy, &old.external_traffic_policy);
    }
    if type_of(old) == "LoadBalancer" && type_of(new) != "LoadBalancer" {
        forget(&mut new.allocate_load_balancer_node_ports, &old.allocate_load_balancer_node_ports);
        forget(&mut new.load_balancer_class, &old.load_balancer_class);
    }
    if type_of(old) == "ExternalName" && type_of(new) != "ExternalName" {
        forget(&mut new.external_name, &old.external_name);
    }
}

fn forget<T: PartialEq>(new: &mut Option<T>, old: &Option<T>) {
    if new == old {
        *new = None;
    }
}

/// What may not change.
pub fn allowed(new: &ServiceSpec, old: &ServiceSpec) -> Errors {
    let mut errors = Vec::new();
    let first = |spec: &ServiceSpec| set(spec.cluster_ip.as_deref()).map(str::to_owned);
    if needs_cluster_ip(old)
        && needs_cluster_ip(new)
        && let Some(before) = first(old)
        && first(new).as_deref() != Some(before.as_str())
    {
        let value = json!(new.cluster_ips.clone().unwrap_or_default());
        errors.push(FieldError::invalid("spec.clusterIPs[0]", value, "may not change once set"));
    }
    let class = |spec: &ServiceSpec| set(spec.load_balancer_class.as_deref()).map(str::to_owned);
    if type_of(old) == "LoadBalancer" && type_of(new) == "LoadBalancer" && class(new) != class(old) {
        let value = class(new).unwrap_or_default();
        errors.push(FieldError::invalid("spec.loadBalancerClass", value, "may not change once set"));
    }
    errors
}
