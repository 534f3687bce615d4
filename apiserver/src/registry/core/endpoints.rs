//! The rules of Endpoints.

use std::net::{IpAddr, SocketAddr};

use api::openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use api::validation::{FieldError, dns_label};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::discovery::endpoint_slice::special;
use crate::registry::fields::{self, Errors, optional_label, optional_subdomain, set};
use crate::registry::printing::{age, first_three, or_none};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of Endpoints.
pub struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    type K = Endpoints;

    fn default(&self, endpoints: &mut Endpoints) {
        for subset in endpoints.subsets.iter_mut().flatten() {
            for port in subset.ports.iter_mut().flatten() {
                port.protocol.get_or_insert_with(|| "TCP".into());
            }
        }
    }

    fn validate(&self, endpoints: &Endpoints) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, subset) in endpoints.subsets.iter().flatten().enumerate() {
            one_subset(&mut errors, &format!("subsets[{i}]"), subset);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, Column::string("Endpoints", "The addresses and ports that are ready."), AGE];
        COLUMNS
    }

    fn row(&self, endpoints: &Endpoints, now: Timestamp) -> Vec<Value> {
        let all: Vec<String> = endpoints.subsets.iter().flatten().flat_map(addresses).collect();
        vec![
            json!(endpoints.metadata.name),
            json!(or_none(Some(&first_three(&all)))),
            json!(age(endpoints.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

/// `address:port` for every pair of the subset; the addresses alone when it has no ports.
fn addresses(subset: &EndpointSubset) -> Vec<String> {
    let ips = || subset.addresses.iter().flatten().map(|a| a.ip.as_str());
    let ports = subset.ports.as_deref().unwrap_or_default();
    if ports.is_empty() {
        return ips().map(str::to_owned).collect();
    }
    let socket = |ip: &str, port: i32| match (ip.parse::<IpAddr>(), u16::try_from(port)) {
        (Ok(ip), Ok(port)) => SocketAddr::new(ip, port).to_string(),
        _ => format!("{ip}:{port}"),
    };
    ports.iter().flat_map(|port| ips().map(move |ip| socket(ip, port.port))).collect()
}

fn one_subset(errors: &mut Errors, field: &str, subset: &EndpointSubset) {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    if count(&subset.addresses) + count(&subset.not_ready_addresses) == 0 {
        errors.push(FieldError::required(field, "must specify `addresses` or `notReadyAddresses`"));
    }
    for (name, list) in [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
    {
        for (i, address) in list.iter().flatten().enumerate() {
            let field = format!("{field}.{name}[{i}]");
            fields::ip(errors, &format!("{field}.ip"), &address.ip);
            if let Ok(ip) = address.ip.parse() {
                special(errors, &format!("{field}.ip"), &address.ip, ip);
            }
            optional_label(errors, &format!("{field}.hostname"), address.hostname.as_deref());
            optional_subdomain(errors, &format!("{field}.nodeName"), address.node_name.as_deref());
        }
    }
    let ports = subset.ports.as_deref().unwrap_or_default();
    for (i, port) in ports.iter().enumerate() {
        one_port(errors, &format!("{field}.ports[{i}]"), port, ports.len() > 1);
    }
}

fn one_port(errors: &mut Errors, field: &str, port: &EndpointPort, named: bool) {
    match set(port.name.as_deref()) {
        None if named => errors.push(FieldError::required(format!("{field}.name"), "")),
        None => {}
        Some(name) => fields::names(errors, &format!("{field}.name"), name, dns_label(name)),
    }
    fields::port(errors, &format!("{field}.port"), port.port);
    fields::protocol(errors, &format!("{field}.protocol"), port.protocol.as_deref());
}

#[cfg(test)]
mod tests;
