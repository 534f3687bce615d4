//! The rules of Services.

mod change;
mod table;
mod validation;

use api::openapi::api::core::v1::{ClientIPConfig, Service, ServicePort, ServiceSpec, ServiceStatus};
use api::openapi::apimachinery::pkg::util::intstr::IntOrString;
use api::validation::{FieldError, dns_1035_label};
use jiff::Timestamp;
use serde_json::Value;

use crate::registry::fields::set;
use crate::registry::strategy::{Column, Strategy};

/// The rules of Services.
pub struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    type K = Service;

    fn default(&self, service: &mut Service) {
        default_spec(service.spec.get_or_insert_default());
    }

    fn prepare_for_create(&self, service: &mut Service) {
        service.status = Some(ServiceStatus { load_balancer: Some(Default::default()), conditions: None });
        let spec = service.spec.get_or_insert_default();
        if let Some(ip) = set(spec.cluster_ip.as_deref())
            && spec.cluster_ips.as_ref().is_none_or(Vec::is_empty)
        {
            spec.cluster_ips = Some(vec![ip.to_owned()]);
        }
    }

    fn prepare_for_update(&self, new: &mut Service, old: &Service) {
        new.status.clone_from(&old.status);
        let old = old.spec.clone().unwrap_or_default();
        change::carry_over(new.spec.get_or_insert_default(), &old);
    }

    fn prepare_for_status_update(&self, new: &mut Service, old: &Service) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, service: &Service) -> Vec<FieldError> {
        validation::spec(&service.spec.clone().unwrap_or_default())
    }

    fn validate_update(&self, new: &Service, old: &Service) -> Vec<FieldError> {
        change::allowed(&new.spec.clone().unwrap_or_default(), &old.spec.clone().unwrap_or_default())
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        dns_1035_label(name)
    }

    fn selectable_fields(&self, service: &Service) -> Vec<(&'static str, String)> {
        let spec = service.spec.clone().unwrap_or_default();
        vec![
            ("spec.clusterIP", spec.cluster_ip.unwrap_or_default()),
            ("spec.type", spec.type_.unwrap_or_default()),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn row(&self, service: &Service, now: Timestamp) -> Vec<Value> {
        table::row(service, now)
    }
}

/// `spec.type`, which defaults to `ClusterIP`.
pub fn type_of(spec: &ServiceSpec) -> &str {
    set(spec.type_.as_deref()).unwrap_or("ClusterIP")
}

/// Whether a Service has an address of its own, or `None` on purpose: all but `ExternalName`.
pub fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    matches!(type_of(spec), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether every port of a Service is also a port of every node.
pub fn needs_node_ports(spec: &ServiceSpec) -> bool {
    match type_of(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// Whether a load balancer asks the nodes by a port of its own which of them have endpoints.
pub fn needs_health_check(spec: &ServiceSpec) -> bool {
    type_of(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Whether a Service has no address on purpose.
pub fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn is_external(spec: &ServiceSpec) -> bool {
    matches!(type_of(spec), "NodePort" | "LoadBalancer")
        || (type_of(spec) == "ClusterIP" && spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()))
}

fn default_spec(spec: &mut ServiceSpec) {
    if set(spec.type_.as_deref()).is_none() {
        spec.type_ = Some("ClusterIP".into());
    }
    spec.ports.iter_mut().flatten().for_each(default_port);
    match spec.session_affinity.get_or_insert_with(|| "None".into()).as_str() {
        "None" => spec.session_affinity_config = None,
        "ClientIP" => {
            let config = spec.session_affinity_config.get_or_insert_default();
            let client: &mut ClientIPConfig = config.client_ip.get_or_insert_default();
            client.timeout_seconds.get_or_insert(10_800);
        }
        _ => {}
    }
    if is_external(spec) && set(spec.external_traffic_policy.as_deref()).is_none() {
        spec.external_traffic_policy = Some("Cluster".into());
    }
    if needs_cluster_ip(spec) {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
        spec.ip_family_policy.get_or_insert_with(|| "SingleStack".into());
        if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
            spec.ip_families = Some(vec!["IPv4".into()]);
        }
    }
    if type_of(spec) == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

fn default_port(port: &mut ServicePort) {
    if set(port.protocol.as_deref()).is_none() {
        port.protocol = Some("TCP".into());
    }
    let unset = match &port.target_port {
        None | Some(IntOrString::Int(0)) => true,
        Some(IntOrString::String(name)) => name.is_empty(),
        Some(_) => false,
    };
    if unset {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}

#[cfg(test)]
mod tests;
