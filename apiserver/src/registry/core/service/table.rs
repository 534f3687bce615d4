//! A Service's row in a table.

use api::openapi::api::core::v1::{Service, ServicePort, ServiceSpec, ServiceStatus};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::type_of;
use crate::registry::fields::set;
use crate::registry::printing::{age, labels, or_none};
use crate::registry::strategy::{AGE, Column, NAME};

/// The columns of Services.
pub const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Type", "How the Service is exposed."),
    Column::string("Cluster-IP", "The address of the Service within the cluster."),
    Column::string("External-IP", "The addresses of the Service outside of the cluster."),
    Column::string("Port(s)", "The ports that the Service exposes."),
    AGE,
    Column::string("Selector", "The labels of the pods that the Service sends traffic to.").wide(),
];

/// The cells of a Service.
pub fn row(service: &Service, now: Timestamp) -> Vec<Value> {
    let spec = service.spec.clone().unwrap_or_default();
    let status = service.status.clone().unwrap_or_default();
    let first = spec.cluster_ips.iter().flatten().next().map(String::as_str);
    let ports: Vec<String> = spec.ports.iter().flatten().map(port).collect();
    vec![
        json!(service.metadata.name),
        json!(type_of(&spec)),
        json!(or_none(first.or(spec.cluster_ip.as_deref()))),
        json!(external(&spec, &status)),
        json!(or_none(Some(&ports.join(",")))),
        json!(age(service.metadata.creation_timestamp.as_ref(), now)),
        json!(labels(spec.selector.as_ref())),
    ]
}

fn port(port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port.node_port.unwrap_or(0) {
        0 => format!("{}/{protocol}", port.port),
        node_port => format!("{}:{node_port}/{protocol}", port.port),
    }
}

fn external(spec: &ServiceSpec, status: &ServiceStatus) -> String {
    let ips = spec.external_ips.clone().unwrap_or_default();
    match type_of(spec) {
        "ClusterIP" | "NodePort" => or_none(Some(&ips.join(","))),
        "ExternalName" => spec.external_name.clone().unwrap_or_default(),
        "LoadBalancer" => {
            let ingress = status.load_balancer.iter().flat_map(|b| b.ingress.iter().flatten());
            let mut all: Vec<String> = ingress
                .filter_map(|i| set(i.ip.as_deref()).or(set(i.hostname.as_deref())).map(str::to_owned))
                .collect();
            all.extend(ips);
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        _ => "<unknown>".into(),
    }
}
