//! What is wrong with the spec of a Service.

use std::collections::HashSet;
use std::net::IpAddr;

use api::openapi::api::core::v1::{ServicePort, ServiceSpec};
use api::validation::{FieldError, dns_label, dns_subdomain, labels, qualified_name};
use serde_json::json;

use super::{is_external, is_headless, needs_cluster_ip, needs_health_check, type_of};
use crate::registry::discovery::endpoint_slice::special;
use crate::registry::fields::{
    self, Errors, duplicates, names, one_of, optional_one_of, port_or_name, protocol, set,
};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// Checks a Service's spec.
pub fn spec(spec: &ServiceSpec) -> Errors {
    let mut errors = Vec::new();
    one_of(&mut errors, "spec.type", spec.type_.as_deref(), TYPES);
    let list = spec.ports.as_deref().unwrap_or_default();
    if list.is_empty() && !is_headless(spec) && type_of(spec) != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    ports(&mut errors, list, spec);
    errors.extend(labels(&spec.selector.clone().unwrap_or_default(), "spec.selector"));
    by_type(&mut errors, spec);
    cluster_ips(&mut errors, spec);
    families(&mut errors, spec);
    affinity(&mut errors, spec);
    traffic(&mut errors, spec);
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        let field = format!("spec.externalIPs[{i}]");
        fields::ip(&mut errors, &field, ip);
        if let Ok(v4) = ip.parse() {
            special(&mut errors, &field, ip, v4);
        }
    }
    for (i, range) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
        fields::cidr(&mut errors, &format!("spec.loadBalancerSourceRanges[{i}]"), range.trim());
    }
    errors
}

fn ports(errors: &mut Errors, ports: &[ServicePort], spec: &ServiceSpec) {
    let mut seen = HashSet::new();
    let mut node_ports = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        one_port(errors, &field, port, ports.len() > 1);
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !seen.insert((protocol, port.port)) {
            errors.push(FieldError::duplicate(
                field.as_str(),
                json!({"protocol": protocol, "port": port.port}),
            ));
        }
        let Some(node_port) = port.node_port.filter(|p| *p != 0) else { continue };
        let field = format!("{field}.nodePort");
        match type_of(spec) {
            "ClusterIP" => {
                let detail = "may not be used when `type` is 'ClusterIP'";
                errors.push(FieldError::forbidden(field, detail));
            }
            "ExternalName" => {
                let detail = "may not be used when `type` is 'ExternalName'";
                errors.push(FieldError::forbidden(field, detail));
            }
            _ if !node_ports.insert((protocol, node_port)) => {
                errors.push(FieldError::duplicate(field, node_port));
            }
            _ => fields::port(errors, &field, node_port),
        }
    }
    let named = ports.iter().enumerate();
    let named = named.filter_map(|(i, p)| Some((format!("spec.ports[{i}].name"), set(p.name.as_deref())?)));
    duplicates(errors, named);
}

fn one_port(errors: &mut Errors, field: &str, port: &ServicePort, named: bool) {
    match set(port.name.as_deref()) {
        None if named => errors.push(FieldError::required(format!("{field}.name"), "")),
        None => {}
        Some(name) => names(errors, &format!("{field}.name"), name, dns_label(name)),
    }
    fields::port(errors, &format!("{field}.port"), port.port);
    protocol(errors, &format!("{field}.protocol"), port.protocol.as_deref());
    if let Some(target) = &port.target_port {
        port_or_name(errors, &format!("{field}.targetPort"), target);
    }
    if let Some(protocol) = set(port.app_protocol.as_deref()) {
        names(errors, &format!("{field}.appProtocol"), protocol, qualified_name(protocol));
    }
}

fn by_type(errors: &mut Errors, spec: &ServiceSpec) {
    let type_ = type_of(spec);
    match type_ {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {type_} services");
            errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", &detail));
        }
        "ExternalName" => {
            if set(spec.cluster_ip.as_deref()).is_some() {
                let detail = "may not be set for ExternalName services";
                errors.push(FieldError::forbidden("spec.clusterIPs", detail));
            }
            match set(spec.external_name.as_deref()) {
                None => errors.push(FieldError::required("spec.externalName", "")),
                Some(name) => {
                    let relative = name.strip_suffix('.').unwrap_or(name);
                    names(errors, "spec.externalName", name, dns_subdomain(relative));
                }
            }
        }
        _ => {}
    }
    if type_ != "LoadBalancer" {
        let only = "may only be used when `type` is 'LoadBalancer'";
        if set(spec.load_balancer_class.as_deref()).is_some() {
            errors.push(FieldError::forbidden("spec.loadBalancerClass", only));
        }
        if spec.allocate_load_balancer_node_ports.is_some() {
            errors.push(FieldError::forbidden("spec.allocateLoadBalancerNodePorts", only));
        }
        if spec.load_balancer_source_ranges.as_ref().is_some_and(|r| !r.is_empty()) {
            errors.push(FieldError::forbidden("spec.LoadBalancerSourceRanges", only));
        }
    }
    if let Some(class) = set(spec.load_balancer_class.as_deref()) {
        names(errors, "spec.loadBalancerClass", class, qualified_name(class));
    }
}

fn cluster_ips(errors: &mut Errors, spec: &ServiceSpec) {
    if !needs_cluster_ip(spec) {
        return;
    }
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    match (set(spec.cluster_ip.as_deref()), ips.first()) {
        (None, Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid("spec.clusterIPs", json!(ips), detail));
        }
        (Some(ip), Some(first)) if ip != first => {
            let detail = "first value must match `clusterIP`";
            errors.push(FieldError::invalid("spec.clusterIPs", json!(ips), detail));
        }
        _ => {}
    }
    if ips.len() > 1 && ips.iter().any(|ip| ip == "None") {
        let detail = "'None' must be the first and only value";
        errors.push(FieldError::invalid("spec.clusterIPs", json!(ips), detail));
        return;
    }
    for (i, ip) in ips.iter().enumerate().filter(|(_, ip)| *ip != "None") {
        fields::ip(errors, &format!("spec.clusterIPs[{i}]"), ip);
    }
    let family = |ip: &String| ip.parse::<IpAddr>().ok().map(|ip| ip.is_ipv4());
    let too_many = ips.len() > 2 || (ips.len() == 2 && family(&ips[0]) == family(&ips[1]));
    if too_many {
        let detail = "may only hold up to 2 values, one of each family";
        errors.push(FieldError::invalid("spec.clusterIPs", json!(ips), detail));
    }
}

fn families(errors: &mut Errors, spec: &ServiceSpec) {
    let policies = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    let families = spec.ip_families.as_deref().unwrap_or_default();
    if !needs_cluster_ip(spec) {
        let forbidden = "may not be set for ExternalName services";
        if !families.is_empty() {
            errors.push(FieldError::forbidden("spec.ipFamilies", forbidden));
        }
        if spec.ip_family_policy.is_some() {
            errors.push(FieldError::forbidden("spec.ipFamilyPolicy", forbidden));
        }
        return;
    }
    optional_one_of(errors, "spec.ipFamilyPolicy", spec.ip_family_policy.as_deref(), policies);
    for (i, family) in families.iter().enumerate() {
        let field = format!("spec.ipFamilies[{i}]");
        optional_one_of(errors, &field, Some(family), &["IPv4", "IPv6"]);
    }
    duplicates(
        errors,
        families.iter().enumerate().map(|(i, f)| (format!("spec.ipFamilies[{i}]"), f.as_str())),
    );
    if spec.ip_family_policy.as_deref() == Some("SingleStack") && families.len() > 1 {
        let detail = "must be RequireDualStack or PreferDualStack when multiple 'ipFamilies' are specified";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", "SingleStack", detail));
    }
}

fn affinity(errors: &mut Errors, spec: &ServiceSpec) {
    one_of(errors, "spec.sessionAffinity", spec.session_affinity.as_deref(), &["ClientIP", "None"]);
    let config = spec.session_affinity_config.as_ref();
    let timeout = config.and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
    if spec.session_affinity.as_deref() == Some("ClientIP")
        && let Some(seconds) = timeout.filter(|s| !(1..=86_400).contains(s))
    {
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        let detail = "must be greater than 0 and less than 86400";
        errors.push(FieldError::invalid(field, seconds, detail));
    }
}

fn traffic(errors: &mut Errors, spec: &ServiceSpec) {
    const EXTERNAL: &str = "spec.externalTrafficPolicy";
    let policies = &["Cluster", "Local"];
    match (set(spec.external_traffic_policy.as_deref()), is_external(spec)) {
        (Some(policy), false) => {
            let detail = "may only be set for externally-accessible services";
            errors.push(FieldError::invalid(EXTERNAL, policy, detail));
        }
        (policy, true) => one_of(errors, EXTERNAL, policy, policies),
        (None, false) => {}
    }
    if needs_cluster_ip(spec) {
        let policy = spec.internal_traffic_policy.as_deref();
        one_of(errors, "spec.internalTrafficPolicy", policy, policies);
    }
    let distributions = &["PreferClose", "PreferSameNode", "PreferSameZone"];
    optional_one_of(errors, "spec.trafficDistribution", spec.traffic_distribution.as_deref(), distributions);
    if spec.health_check_node_port.unwrap_or(0) != 0 && !needs_health_check(spec) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        let value = spec.health_check_node_port.unwrap_or(0);
        errors.push(FieldError::invalid("spec.healthCheckNodePort", value, detail));
    }
}
