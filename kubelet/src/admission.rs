//! Admission at the node: whether a pod that was bound here fits, whoever bound it.

use std::collections::BTreeMap;

use api::meta::MetaExt;
use api::quantity::Amount;
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};

use crate::pod::sandbox::sysctls;
use crate::resources::{all_containers, pod_request};

/// Why a pod is refused: the reason and message of its `Failed` status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Such as `OutOfcpu`.
    pub reason: String,
    /// For people.
    pub message: String,
}

fn refusal(reason: impl Into<String>, message: impl Into<String>) -> Refusal {
    Refusal { reason: reason.into(), message: message.into() }
}

/// Resources that a pod requests.
fn requested(spec: &PodSpec) -> BTreeMap<String, Amount> {
    let names = all_containers(spec).filter_map(|c| c.resources.as_ref());
    let names = names.flat_map(|r| r.requests.iter().chain(&r.limits).flat_map(|m| m.keys()));
    let names = names.chain(spec.overhead.iter().flat_map(|o| o.keys()));
    names.map(|n| (n.clone(), pod_request(spec, n))).collect()
}

/// Decides whether `pod` may run beside `others` on a node with these resources.
pub fn admit(
    pod: &Pod,
    others: &[&Pod],
    node: Option<&Node>,
    allocatable: &BTreeMap<String, Amount>,
) -> Result<(), Refusal> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    if let Err(name) = sysctls(spec) {
        return Err(refusal("SysctlForbidden", format!("forbidden sysctl: {name:?} not allowlisted")));
    }
    if let Some(node) = node {
        if !affinity_matches(spec, node) {
            return Err(refusal(
                "NodeAffinity",
                "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
            ));
        }
        if let Some(taint) = untolerated(spec, node) {
            let message = format!(
                "Predicate TaintToleration failed: node(s) had untolerated taint {{{}: {}}}",
                taint.key,
                taint.value.as_deref().unwrap_or_default()
            );
            return Err(refusal("TaintToleration", message));
        }
    }
    let specs: Vec<_> = others.iter().filter_map(|p| p.spec.as_ref()).collect();
    let capacity = |name: &str| allocatable.get(name).copied();
    if let Some(limit) = capacity("pods").map(Amount::to_units) {
        let used = i64::try_from(others.len()).unwrap_or(i64::MAX);
        if used >= limit {
            return Err(out_of("pods", 1, used, limit));
        }
    }
    for (name, amount) in requested(spec) {
        if amount <= Amount::ZERO {
            continue;
        }
        let used: Amount = specs.iter().map(|s| pod_request(s, &name)).sum();
        let limit = capacity(&name).unwrap_or_default();
        if used + amount > limit {
            let number = |a: Amount| if name == "cpu" { a.to_milli() } else { a.to_units() };
            return Err(out_of(&name, number(amount), number(used), number(limit)));
        }
    }
    host_ports_free(spec, &specs)
}

fn out_of(resource: &str, requested: i64, used: i64, capacity: i64) -> Refusal {
    let message = format!(
        "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
    );
    refusal(format!("OutOf{resource}"), message)
}

fn host_ports_free(spec: &PodSpec, others: &[&PodSpec]) -> Result<(), Refusal> {
    let ports = |spec: &PodSpec| -> Vec<_> {
        let all = all_containers(spec).flat_map(|c| c.ports.iter().flatten());
        all.filter_map(|p| Some((p.host_port.filter(|p| *p != 0)?, p.protocol.clone(), p.host_ip.clone())))
            .collect()
    };
    let any = |ip: &Option<String>| ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "0.0.0.0");
    let taken: Vec<_> = others.iter().flat_map(|s| ports(s)).collect();
    let clash = ports(spec).iter().any(|(port, protocol, ip)| {
        taken.iter().any(|(p, q, i)| p == port && q == protocol && (any(ip) || any(i) || i == ip))
    });
    if clash {
        let message =
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(refusal("NodePorts", message));
    }
    Ok(())
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().is_none_or(|e| e.is_empty() || e == taint.effect);
    let key = toleration.key.as_deref().unwrap_or_default();
    let same_value =
        toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    let matched = match toleration.operator.as_deref() {
        Some("Exists") => key.is_empty() || key == taint.key,
        Some(_) | None => key == taint.key && same_value,
    };
    effect && matched
}

/// A taint that forbids running and is not tolerated.
fn untolerated<'a>(spec: &PodSpec, node: &'a Node) -> Option<&'a Taint> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    taints.filter(|t| t.effect == "NoExecute").find(|t| {
        // A node that was lost for a while is told so by these; its own pods are judged elsewhere.
        !t.key.starts_with("node.kubernetes.io/") && !tolerations.iter().any(|o| tolerates(o, t))
    })
}

fn affinity_matches(spec: &PodSpec, node: &Node) -> bool {
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| node.label(k) == Some(v.as_str()));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, node)))
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let by_field =
        |r: &NodeSelectorRequirement| r.key == "metadata.name" && requirement(r, Some(node.name()));
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|r| requirement(r, node.label(&r.key)))
        && fields.iter().all(by_field)
}

fn requirement(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = |v: &str| r.values.iter().flatten().any(|x| x == v);
    let compare = |wanted: std::cmp::Ordering| {
        let bound = r.values.iter().flatten().next().and_then(|v| v.parse::<i64>().ok());
        let value = value.and_then(|v| v.parse::<i64>().ok());
        value.zip(bound).is_some_and(|(v, b)| v.cmp(&b) == wanted)
    };
    match r.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn check(spec: Value, reason: Option<&str>) {
        let node: Node = from(json!({"metadata": {"name": "n", "labels": {"disk": "ssd", "n": "5"}},
            "spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoExecute"}]}}));
        let other: Pod = from(
            json!({"spec": {"containers": [{"name": "o", "ports": [{"containerPort": 1, "hostPort": 80}],
            "resources": {"requests": {"cpu": "1"}}}]}}),
        );
        let allocatable =
            [("cpu".to_owned(), Amount::units(2)), ("pods".to_owned(), Amount::units(2))].into();
        let mut pod: Pod =
            from(json!({"spec": {"containers": [{"name": "c"}], "tolerations": [{"operator": "Exists"}]}}));
        let mut merged = serde_json::to_value(&pod.spec).unwrap();
        merged.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        pod.spec = Some(from(merged));
        let result = admit(&pod, &[&other], Some(&node), &allocatable);
        assert_eq!(result.err().map(|r| r.reason).as_deref(), reason, "{spec}");
    }

    #[test]
    fn pods_are_refused_for_what_the_node_lacks() {
        let cpu = |n: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": n}}}]});
        check(json!({}), None);
        check(cpu("1"), None);
        check(cpu("1001m"), Some("OutOfcpu"));
        check(
            json!({"containers": [{"name": "c", "resources": {"limits": {"example.com/gpu": "1"}}}]}),
            Some("OutOfexample.com/gpu"),
        );
        check(json!({"nodeSelector": {"disk": "ssd"}}), None);
        check(json!({"nodeSelector": {"disk": "hdd"}}), Some("NodeAffinity"));
        check(json!({"tolerations": []}), Some("TaintToleration"));
        check(json!({"tolerations": [{"key": "gpu", "value": "yes"}]}), None);
        check(
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
            Some("NodePorts"),
        );
        check(
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
            Some("SysctlForbidden"),
        );
        let term = |key: &str, op: &str, values: Value| {
            json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": op, "values": values}]}]}}}})
        };
        check(term("n", "Gt", json!(["4"])), None);
        check(term("n", "Lt", json!(["4"])), Some("NodeAffinity"));
        check(term("disk", "NotIn", json!(["ssd"])), Some("NodeAffinity"));
    }

    #[test]
    fn messages_are_upstreams() {
        let pod: Pod =
            from(json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "4"}}}]}}));
        let allocatable = [("cpu".to_owned(), Amount::units(2))].into();
        let refused = admit(&pod, &[], None, &allocatable).unwrap_err();
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: cpu, requested: 4000, used: 0, capacity: 2000"
        );
    }
}
