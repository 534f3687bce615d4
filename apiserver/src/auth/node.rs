//! What a kubelet may do: what concerns its own node and the pods on it.

use std::sync::Arc;

use api::selector::FieldSelector;
use api::{Kind, Object, Subresource};

use super::Resource;
use crate::storage::Hub;

/// What the decision needs to know about pods.
pub trait OnNode {
    /// Whether a pod is on a node.
    fn is_on(&self, namespace: &str, pod: &str, node: &str) -> bool;
    /// Whether a pod on a node refers to an object of a namespace.
    fn refers(&self, node: &str, namespace: &str, reference: &Reference<'_>) -> bool;
}

/// What a pod may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A Secret of this name.
    Secret(&'a str),
    /// A ConfigMap of this name.
    ConfigMap(&'a str),
    /// A ServiceAccount of this name.
    ServiceAccount(&'a str),
}

/// Decides; the error may tell why.
///
/// # Errors
/// When it is not allowed.
pub fn authorize(
    node: &str,
    verb: &str,
    request: &Resource<'_>,
    pods: &dyn OnNode,
) -> Result<(), Option<String>> {
    let read = matches!(verb, "get" | "list" | "watch");
    let selects = |field: &str, value: &str| {
        FieldSelector::parse(request.field_selector).is_ok_and(|s| s.required(field) == Some(value))
    };
    let own = request.name == node;
    let main = request.subresource.is_none();
    let status = request.subresource == Some(Subresource::Status);
    let allowed = match (request.kind.group, request.kind.kind, verb) {
        ("", "Node", _) if read => main,
        ("", "Node", "create") => main && (request.name.is_empty() || own),
        ("", "Node", "update" | "patch") => own && (main || status),
        ("coordination.k8s.io", "Lease", "create") => request.namespace == "kube-node-lease",
        ("coordination.k8s.io", "Lease", "get" | "update" | "patch" | "delete") => {
            request.namespace == "kube-node-lease" && own
        }
        ("", "Pod", "get") => main && on_node(request, node, pods)?,
        ("", "Pod", "list" | "watch") => {
            if !selects("spec.nodeName", node)
                && !named(request, |name| pods.is_on(request.namespace, name, node))
            {
                return Err(Some("can only list/watch pods with spec.nodeName field selector".into()));
            }
            true
        }
        ("", "Pod", "create") => main,
        ("", "Pod", "delete") => main && on_node(request, node, pods)?,
        ("", "Pod", "update" | "patch") => status && on_node(request, node, pods)?,
        ("" | "events.k8s.io", "Event", "create" | "update" | "patch") => true,
        ("", "Service" | "Endpoints", _) | ("discovery.k8s.io", "EndpointSlice", _) => read,
        ("", "Secret" | "ConfigMap", "get" | "list" | "watch") => {
            if !named(request, |name| pods.refers(node, request.namespace, &reference(request.kind, name))) {
                return Err(Some(format!("no relationship found between node '{node}' and this object")));
            }
            true
        }
        ("", "ServiceAccount", "get") => {
            pods.refers(node, request.namespace, &Reference::ServiceAccount(request.name))
        }
        _ => false,
    };
    if allowed { Ok(()) } else { Err(None) }
}

fn on_node(request: &Resource<'_>, node: &str, pods: &dyn OnNode) -> Result<bool, Option<String>> {
    if pods.is_on(request.namespace, request.name, node) {
        return Ok(true);
    }
    Err(Some(format!("node {node:?} can only access pods with spec.nodeName set to itself")))
}

/// Whether the one object that a request names passes a test; false when it names none.
fn named(request: &Resource<'_>, test: impl Fn(&str) -> bool) -> bool {
    if !request.name.is_empty() {
        return test(request.name);
    }
    let selector = FieldSelector::parse(request.field_selector).unwrap_or_default();
    selector.required("metadata.name").is_some_and(test)
}

fn reference<'a>(kind: &Kind, name: &'a str) -> Reference<'a> {
    match kind.kind {
        "Secret" => Reference::Secret(name),
        _ => Reference::ConfigMap(name),
    }
}

/// The pods of the copies.
pub struct Pods<'a>(pub &'a Arc<Hub>);

impl OnNode for Pods<'_> {
    fn is_on(&self, namespace: &str, pod: &str, node: &str) -> bool {
        let kind = Kind::find("", "Pod").expect("Pod is in the table");
        let entry = self.0.cache(kind).get(&api::meta::key_of(namespace, pod));
        let object = entry.and_then(|e| Object::parse(&e.json).ok());
        // A pod that is not there can be asked for: the answer is 404, as a kubelet expects.
        object.is_none_or(|o| o.str_at("/spec/nodeName") == node)
    }

    fn refers(&self, node: &str, namespace: &str, reference: &Reference<'_>) -> bool {
        let kind = Kind::find("", "Pod").expect("Pod is in the table");
        let filter = crate::storage::Filter { namespace: namespace.to_owned(), ..Default::default() };
        let pods = self.0.cache(kind).list(&filter, 0, "").entries;
        pods.iter()
            .filter_map(|e| Object::parse(&e.json).ok())
            .any(|pod| pod.str_at("/spec/nodeName") == node && pod_refers(&pod, reference))
    }
}

/// Whether a pod refers to an object of its namespace.
pub fn pod_refers(pod: &Object, reference: &Reference<'_>) -> bool {
    use serde_json::Value;
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value, pointer: &str, name: &str| {
        value.pointer(pointer).and_then(Value::as_str) == Some(name)
    };
    let (name, volume, projected, from, key) = match reference {
        Reference::ServiceAccount(name) => return pod.str_at("/spec/serviceAccountName") == *name,
        Reference::Secret(name) => {
            (*name, "/secret/secretName", "/secret/name", "/secretRef/name", "/valueFrom/secretKeyRef/name")
        }
        Reference::ConfigMap(name) => (
            *name,
            "/configMap/name",
            "/configMap/name",
            "/configMapRef/name",
            "/valueFrom/configMapKeyRef/name",
        ),
    };
    let pulls = matches!(reference, Reference::Secret(_))
        && list(pod.pointer("/spec/imagePullSecrets")).iter().any(|s| text(s, "/name", name));
    let volumes = list(pod.pointer("/spec/volumes")).iter().any(|v| {
        text(v, volume, name)
            || list(v.pointer("/projected/sources")).iter().any(|s| text(s, projected, name))
    });
    let containers =
        ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"].iter().any(|field| {
            list(pod.pointer(field)).iter().any(|c| {
                list(c.get("env")).iter().any(|e| text(e, key, name))
                    || list(c.get("envFrom")).iter().any(|e| text(e, from, name))
            })
        });
    pulls || volumes || containers
}

#[cfg(test)]
mod tests;
