//! The rules of Ingresses.

use api::openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressSpec};
use api::validation::{FieldError, dns_1035_label, dns_subdomain};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{Errors, names, one_of, port, port_name, required, set};
use crate::registry::printing::{age, or_none};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of Ingresses.
pub struct IngressStrategy;

impl Strategy for IngressStrategy {
    type K = Ingress;

    fn validate(&self, ingress: &Ingress) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = ingress.spec.clone().unwrap_or_default();
        if spec.rules.as_ref().is_none_or(Vec::is_empty) && spec.default_backend.is_none() {
            let detail = "either `defaultBackend` or `rules` must be specified";
            errors.push(FieldError::invalid("spec", json!(spec), detail));
        }
        if let Some(default) = &spec.default_backend {
            backend(&mut errors, "spec.defaultBackend", default);
        }
        if let Some(class) = spec.ingress_class_name.as_deref() {
            names(&mut errors, "spec.ingressClassName", class, dns_subdomain(class));
        }
        for (i, tls) in spec.tls.iter().flatten().enumerate() {
            for (j, name) in tls.hosts.iter().flatten().enumerate() {
                host(&mut errors, &format!("spec.tls[{i}].hosts[{j}]"), name);
            }
        }
        rules(&mut errors, &spec);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Class", "The class of the controller that serves it."),
            Column::string("Hosts", "The hosts that are served."),
            Column::string("Address", "Where they are served."),
            Column::string("Ports", "The ports at which they are served."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, ingress: &Ingress, now: Timestamp) -> Vec<Value> {
        let spec = ingress.spec.clone().unwrap_or_default();
        let hosts: Vec<&str> = spec.rules.iter().flatten().filter_map(|r| set(r.host.as_deref())).collect();
        let hosts = match hosts.as_slice() {
            [] => "*".to_owned(),
            [a, b, c, more @ ..] if !more.is_empty() => format!("{a},{b},{c} + {} more...", more.len()),
            hosts => hosts.join(","),
        };
        let balancer = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let at = balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default();
        let at: Vec<&str> =
            at.iter().filter_map(|i| set(i.ip.as_deref()).or(set(i.hostname.as_deref()))).collect();
        let secure = spec.tls.as_ref().is_some_and(|t| !t.is_empty());
        vec![
            json!(ingress.metadata.name.as_deref().unwrap_or_default()),
            json!(or_none(spec.ingress_class_name.as_deref())),
            json!(hosts),
            json!(at.join(",")),
            json!(if secure { "80, 443" } else { "80" }),
            json!(age(ingress.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

/// A host, whose first label may be an asterisk.
fn host(errors: &mut Errors, field: &str, name: &str) {
    if name.parse::<std::net::IpAddr>().is_ok() {
        errors.push(FieldError::invalid(field, name, "must be a DNS name, not an IP address"));
        return;
    }
    let plain = name.strip_prefix("*.").unwrap_or(name);
    names(errors, field, name, dns_subdomain(plain));
}

fn rules(errors: &mut Errors, spec: &IngressSpec) {
    for (i, rule) in spec.rules.iter().flatten().enumerate() {
        let field = format!("spec.rules[{i}]");
        if let Some(name) = set(rule.host.as_deref()) {
            host(errors, &format!("{field}.host"), name);
        }
        let Some(http) = &rule.http else { continue };
        if http.paths.is_empty() {
            errors.push(FieldError::required(format!("{field}.http.paths"), ""));
        }
        for (j, path) in http.paths.iter().enumerate() {
            one_path(errors, &format!("{field}.http.paths[{j}]"), path);
        }
    }
}

fn one_path(errors: &mut Errors, field: &str, path: &HTTPIngressPath) {
    if path.path_type.is_empty() {
        errors.push(FieldError::required(format!("{field}.pathType"), "pathType must be specified"));
    } else {
        let types = &["Exact", "ImplementationSpecific", "Prefix"];
        one_of(errors, &format!("{field}.pathType"), Some(&path.path_type), types);
    }
    let at = format!("{field}.path");
    let text = path.path.as_deref().unwrap_or_default();
    let strict = path.path_type != "ImplementationSpecific";
    if (strict || !text.is_empty()) && !text.starts_with('/') {
        errors.push(FieldError::invalid(&at, text, "must be an absolute path"));
    }
    if strict {
        for bad in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|bad| text.contains(bad)) {
            errors.push(FieldError::invalid(&at, text, &format!("must not contain '{bad}'")));
        }
        for bad in ["/..", "/."].into_iter().filter(|bad| text.ends_with(bad)) {
            errors.push(FieldError::invalid(&at, text, &format!("cannot end with '{bad}'")));
        }
    }
    backend(errors, &format!("{field}.backend"), &path.backend);
}

fn backend(errors: &mut Errors, field: &str, backend: &IngressBackend) {
    match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(field, "", detail));
        }
        (None, None) => errors.push(FieldError::required(field, "resource or service backend is required")),
        (None, Some(resource)) => {
            required(errors, &format!("{field}.resource.kind"), Some(&resource.kind));
            required(errors, &format!("{field}.resource.name"), Some(&resource.name));
        }
        (Some(service), None) => {
            let at = format!("{field}.service");
            if service.name.is_empty() {
                errors.push(FieldError::required(format!("{at}.name"), ""));
            } else {
                names(errors, &format!("{at}.name"), &service.name, dns_1035_label(&service.name));
            }
            let of = service.port.clone().unwrap_or_default();
            match (set(of.name.as_deref()), of.number.filter(|n| *n != 0)) {
                (Some(_), Some(_)) => {
                    errors.push(FieldError::invalid(field, "", "cannot set both port name & port number"));
                }
                (None, None) => errors.push(FieldError::required(field, "port name or number is required")),
                (Some(name), None) => names(errors, &format!("{at}.port.name"), name, port_name(name)),
                (None, Some(number)) => port(errors, &format!("{at}.port.number"), number),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, row, with};

    #[test]
    fn rules_lead_somewhere() {
        let ingress = json!({"metadata": {"name": "web"}, "spec": {"rules": [{"host": "a.example.com", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}});
        row(&IngressStrategy, ingress.clone(), &["web", "<none>", "a.example.com", "", "80", "<unknown>"]);
        let path = "/spec/rules/0/http/paths/0";
        let field = "spec.rules[0].http.paths[0]";
        let relative = format!("{field}.path: Invalid value: \"a\": must be an absolute path");
        invalid(&IngressStrategy, with(&ingress, &format!("{path}/path"), "a".into()), &[&relative]);
        let nowhere = format!("{field}.backend: Required value: resource or service backend is required");
        invalid(&IngressStrategy, with(&ingress, &format!("{path}/backend"), json!({})), &[&nowhere]);
        let untyped = format!("{field}.pathType: Required value: pathType must be specified");
        invalid(&IngressStrategy, with(&ingress, &format!("{path}/pathType"), "".into()), &[&untyped]);
    }
}
