//! The rules of NetworkPolicies.

use api::openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use api::openapi::apimachinery::pkg::util::intstr::IntOrString;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{Errors, cidr, label_selector, one_of, port_or_name, protocol};
use crate::registry::printing::{age, selector};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of NetworkPolicies.
pub struct NetworkPolicyStrategy;

impl Strategy for NetworkPolicyStrategy {
    type K = NetworkPolicy;

    fn default(&self, policy: &mut NetworkPolicy) {
        let spec: &mut NetworkPolicySpec = policy.spec.get_or_insert_default();
        let ports = |ports: &mut Option<Vec<NetworkPolicyPort>>| {
            for port in ports.iter_mut().flatten() {
                port.protocol.get_or_insert_with(|| "TCP".into());
            }
        };
        spec.ingress.iter_mut().flatten().for_each(|rule| ports(&mut rule.ports));
        spec.egress.iter_mut().flatten().for_each(|rule| ports(&mut rule.ports));
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let egress = spec.egress.as_ref().is_some_and(|e| !e.is_empty()).then(|| "Egress".to_owned());
            spec.policy_types = Some(std::iter::once("Ingress".to_owned()).chain(egress).collect());
        }
    }

    fn validate(&self, policy: &NetworkPolicy) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = policy.spec.clone().unwrap_or_default();
        if let Some(selector) = &spec.pod_selector {
            label_selector(&mut errors, "spec.podSelector", selector);
        }
        for (i, rule) in spec.ingress.iter().flatten().enumerate() {
            let at = |name: &str| format!("spec.ingress[{i}].{name}");
            ports(&mut errors, &at("ports"), rule.ports.as_deref());
            peers(&mut errors, &at("from"), rule.from.as_deref());
        }
        for (i, rule) in spec.egress.iter().flatten().enumerate() {
            let at = |name: &str| format!("spec.egress[{i}].{name}");
            ports(&mut errors, &at("ports"), rule.ports.as_deref());
            peers(&mut errors, &at("to"), rule.to.as_deref());
        }
        let types = spec.policy_types.unwrap_or_default();
        if types.len() > 2 {
            let detail = "may not specify more than two policyTypes";
            errors.push(FieldError::invalid("spec.policyTypes", json!(types), detail));
        }
        for (i, type_) in types.iter().enumerate() {
            one_of(&mut errors, &format!("spec.policyTypes[{i}]"), Some(type_), &["Egress", "Ingress"]);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, Column::string("Pod-Selector", "The pods to which the policy applies."), AGE];
        COLUMNS
    }

    fn row(&self, policy: &NetworkPolicy, now: Timestamp) -> Vec<Value> {
        let pods = policy.spec.as_ref().and_then(|s| s.pod_selector.clone()).unwrap_or_default();
        vec![
            json!(policy.metadata.name.as_deref().unwrap_or_default()),
            json!(selector(&pods)),
            json!(age(policy.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

fn ports(errors: &mut Errors, field: &str, ports: Option<&[NetworkPolicyPort]>) {
    for (i, port) in ports.unwrap_or_default().iter().enumerate() {
        let at = |name: &str| format!("{field}[{i}].{name}");
        protocol(errors, &at("protocol"), port.protocol.as_deref());
        if let Some(number) = &port.port {
            port_or_name(errors, &at("port"), number);
        }
        let Some(end) = port.end_port else { continue };
        match &port.port {
            Some(IntOrString::Int(begin)) if end < *begin => {
                errors.push(FieldError::invalid(
                    at("endPort"),
                    end,
                    "must be greater than or equal to `port`",
                ));
            }
            Some(IntOrString::Int(_)) => crate::registry::fields::port(errors, &at("endPort"), end),
            Some(IntOrString::String(_)) => {
                let detail = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(at("endPort"), end, detail));
            }
            None => {
                let detail = "may not be specified when `port` is not specified";
                errors.push(FieldError::invalid(at("endPort"), end, detail));
            }
        }
    }
}

fn peers(errors: &mut Errors, field: &str, peers: Option<&[NetworkPolicyPeer]>) {
    for (i, peer) in peers.unwrap_or_default().iter().enumerate() {
        let at = format!("{field}[{i}]");
        let selected = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        for (name, selector) in
            [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)]
        {
            if let Some(selector) = selector {
                label_selector(errors, &format!("{at}.{name}"), selector);
            }
        }
        match &peer.ip_block {
            None if !selected => errors.push(FieldError::required(at, "must specify a peer")),
            None => {}
            Some(_) if selected => {
                let detail = "may not specify both ipBlock and another peer";
                errors.push(FieldError::forbidden(at, detail));
            }
            Some(block) => {
                cidr(errors, &format!("{at}.ipBlock.cidr"), &block.cidr);
                for (j, except) in block.except.iter().flatten().enumerate() {
                    cidr(errors, &format!("{at}.ipBlock.except[{j}]"), except);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, stored};

    #[test]
    fn a_policy_speaks_of_what_it_has_rules_for() {
        let made = stored(&NetworkPolicyStrategy, json!({"spec": {"podSelector": {}, "egress": [{}]}}));
        assert_eq!(made["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        let wrong =
            json!({"spec": {"podSelector": {}, "ingress": [{"from": [{}], "ports": [{"endPort": 5}]}]}});
        invalid(
            &NetworkPolicyStrategy,
            wrong,
            &[
                "spec.ingress[0].from[0]: Required value: must specify a peer",
                "spec.ingress[0].ports[0].endPort: Invalid value: 5: may not be specified when `port` is not specified",
            ],
        );
    }
}
