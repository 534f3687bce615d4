//! The rules of EndpointSlices.

use std::net::{Ipv4Addr, Ipv6Addr};

use api::openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use api::validation::{FieldError, dns_label, dns_subdomain};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{self, Errors, IMMUTABLE, duplicates, one_of, optional_label, set};
use crate::registry::printing::{age, first_three};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

/// The rules of EndpointSlices.
pub struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    type K = EndpointSlice;

    fn default(&self, slice: &mut EndpointSlice) {
        for port in slice.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn validate(&self, slice: &EndpointSlice) -> Vec<FieldError> {
        let mut errors = Vec::new();
        one_of(&mut errors, "addressType", Some(&slice.address_type), &["FQDN", "IPv4", "IPv6"]);
        if slice.endpoints.len() > MAX_ENDPOINTS {
            errors.push(too_many("endpoints", slice.endpoints.len(), MAX_ENDPOINTS));
        }
        for (i, endpoint) in slice.endpoints.iter().enumerate() {
            one_endpoint(&mut errors, &format!("endpoints[{i}]"), endpoint, &slice.address_type);
        }
        let list = slice.ports.as_deref().unwrap_or_default();
        if list.len() > MAX_PORTS {
            errors.push(too_many("ports", list.len(), MAX_PORTS));
        }
        ports(&mut errors, list);
        errors
    }

    fn validate_update(&self, new: &EndpointSlice, old: &EndpointSlice) -> Vec<FieldError> {
        if new.address_type == old.address_type {
            return Vec::new();
        }
        vec![FieldError::invalid("addressType", new.address_type.as_str(), IMMUTABLE)]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("AddressType", "The kind of the addresses: IPv4, IPv6 or FQDN."),
            Column::string("Ports", "The ports that every endpoint exposes."),
            Column::string("Endpoints", "The addresses of the endpoints."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, slice: &EndpointSlice, now: Timestamp) -> Vec<Value> {
        let ports: Vec<String> = slice
            .ports
            .iter()
            .flatten()
            .map(|p| p.port.map_or_else(|| "*".to_owned(), |number| number.to_string()))
            .collect();
        let addresses: Vec<String> = slice.endpoints.iter().flat_map(|e| e.addresses.clone()).collect();
        let unset = |list: &[String]| if list.is_empty() { "<unset>".to_owned() } else { first_three(list) };
        vec![
            json!(slice.metadata.name),
            json!(slice.address_type),
            json!(unset(&ports)),
            json!(unset(&addresses)),
            json!(age(slice.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

fn too_many(field: &str, count: usize, most: usize) -> FieldError {
    let message = format!("Too many: {count}: must have at most {most} items");
    FieldError { reason: "FieldValueTooMany", field: field.into(), message }
}

fn one_endpoint(errors: &mut Errors, field: &str, endpoint: &Endpoint, type_: &str) {
    if endpoint.addresses.is_empty() {
        let detail = "must contain at least 1 address";
        errors.push(FieldError::required(format!("{field}.addresses"), detail));
    }
    if endpoint.addresses.len() > MAX_ADDRESSES {
        errors.push(too_many(&format!("{field}.addresses"), endpoint.addresses.len(), MAX_ADDRESSES));
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        one_address(errors, &format!("{field}.addresses[{i}]"), address, type_);
    }
    optional_label(errors, &format!("{field}.hostname"), endpoint.hostname.as_deref());
    if let Some(node) = endpoint.node_name.as_deref() {
        fields::names(errors, &format!("{field}.nodeName"), node, dns_subdomain(node));
    }
    if endpoint.deprecated_topology.as_ref().is_some_and(|t| t.contains_key("kubernetes.io/hostname")) {
        let field = format!("{field}.deprecatedTopology[kubernetes.io/hostname]");
        errors.push(FieldError::forbidden(field, "may not be set: use nodeName"));
    }
}

fn one_address(errors: &mut Errors, field: &str, address: &str, type_: &str) {
    match type_ {
        "IPv4" => match address.parse::<Ipv4Addr>() {
            Err(_) => errors.push(FieldError::invalid(
                field,
                address,
                "must be a valid IPv4 address, (e.g. 10.9.8.7 or 192.0.2.1)",
            )),
            Ok(ip) => special(errors, field, address, ip),
        },
        "IPv6" if address.parse::<Ipv6Addr>().is_err() => {
            errors.push(FieldError::invalid(field, address, "must be a valid IPv6 address"));
        }
        "FQDN" => fields::names(errors, field, address, dns_subdomain(address)),
        _ => {}
    }
}

/// Addresses that would let an endpoint point at the node itself are refused.
pub fn special(errors: &mut Errors, field: &str, address: &str, ip: Ipv4Addr) {
    let detail = if ip.is_unspecified() {
        format!("may not be unspecified ({ip})")
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()
    } else if ip.is_link_local() {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()
    } else if ip.octets()[..3] == [224, 0, 0] {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()
    } else {
        return;
    };
    errors.push(FieldError::invalid(field, address, &detail));
}

fn ports(errors: &mut Errors, ports: &[EndpointPort]) {
    for (i, port) in ports.iter().enumerate() {
        if let Some(name) = set(port.name.as_deref()) {
            fields::names(errors, &format!("ports[{i}].name"), name, dns_label(name));
        }
        fields::protocol(errors, &format!("ports[{i}].protocol"), port.protocol.as_deref());
        if let Some(number) = port.port {
            fields::port(errors, &format!("ports[{i}].port"), number);
        }
    }
    let named = ports.iter().enumerate();
    duplicates(
        errors,
        named.map(|(i, p)| (format!("ports[{i}].name"), p.name.as_deref().unwrap_or_default())),
    );
}

#[cfg(test)]
mod tests;
