//! What a kubelet may do: what concerns its own node and the pods on it.

use std::sync::Arc;

use api::openapi::api::rbac::v1::PolicyRule;
use api::selector::FieldSelector;
use api::{Kind, Object};

use super::rbac::rules;
use super::{Request, Resource};
use crate::storage::{Filter, Hub};

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
    /// A PersistentVolumeClaim of this name.
    Claim(&'a str),
}

/// Who asks, and what is known.
pub struct Ask<'a> {
    /// The node whose kubelet asks.
    pub node: &'a str,
    /// The rules of the role `system:node`: what any kubelet may do beside what follows from its pods.
    pub rules: &'a [PolicyRule],
    /// The pods.
    pub pods: &'a dyn OnNode,
}

/// Decides; the error may tell why.
///
/// # Errors
/// When it is not allowed.
pub fn authorize(ask: &Ask<'_>, request: &Request<'_>) -> Result<(), Option<String>> {
    let by_role = || if ask.rules.iter().any(|r| rules::allows(r, request)) { Ok(()) } else { Err(None) };
    let Request::Resource(verb, resource) = request else { return by_role() };
    match (resource.group, resource.resource) {
        ("", "secrets") => read_referred(ask, verb, resource, |name| Reference::Secret(name)),
        ("", "configmaps") => read_referred(ask, verb, resource, |name| Reference::ConfigMap(name)),
        ("", "persistentvolumeclaims") if resource.subresource == "status" => {
            of_pod(ask, resource, Reference::Claim(resource.name)).and_then(|()| by_role())
        }
        ("", "persistentvolumeclaims") => read_referred(ask, verb, resource, |name| Reference::Claim(name)),
        ("", "serviceaccounts") if resource.subresource == "token" => match *verb {
            "create" => of_pod(ask, resource, Reference::ServiceAccount(resource.name)),
            _ => why("can only create tokens for individual service accounts"),
        },
        ("", "serviceaccounts") => read_referred(ask, verb, resource, |name| Reference::ServiceAccount(name)),
        ("", "nodes") => node(ask, verb, resource).and_then(|()| by_role()),
        ("", "pods") => pod(ask, verb, resource).and_then(|()| by_role()),
        ("coordination.k8s.io", "leases") => lease(ask, verb, resource),
        ("storage.k8s.io", "csinodes") => match *verb {
            "create" | "get" | "update" | "patch" | "delete" if !resource.subresource.is_empty() => {
                why("cannot access CSINode subresources")
            }
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" if resource.name == ask.node => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                why("can only access CSINode with the same name as the requesting node")
            }
            _ => why("can only get, create, update, patch, or delete a CSINode"),
        },
        _ => by_role(),
    }
}

fn why(text: impl Into<String>) -> Result<(), Option<String>> {
    Err(Some(text.into()))
}

fn unrelated(node: &str) -> Result<(), Option<String>> {
    why(format!("no relationship found between node '{node}' and this object"))
}

fn of_pod(ask: &Ask<'_>, resource: &Resource<'_>, reference: Reference<'_>) -> Result<(), Option<String>> {
    let related = ask.pods.refers(ask.node, resource.namespace, &reference);
    if related { Ok(()) } else { unrelated(ask.node) }
}

/// A kubelet reads, one by one, what its pods refer to.
fn read_referred<'a>(
    ask: &Ask<'_>,
    verb: &str,
    resource: &Resource<'a>,
    reference: impl Fn(&str) -> Reference<'_>,
) -> Result<(), Option<String>> {
    if !matches!(verb, "get" | "list" | "watch") {
        return why("can only read resources of this type");
    }
    if !resource.subresource.is_empty() {
        return why("cannot read subresource");
    }
    if resource.namespace.is_empty() {
        return why("can only read namespaced object of this type");
    }
    let related = named(resource, |name| ask.pods.refers(ask.node, resource.namespace, &reference(name)));
    if related { Ok(()) } else { unrelated(ask.node) }
}

fn node(ask: &Ask<'_>, verb: &str, resource: &Resource<'_>) -> Result<(), Option<String>> {
    let own = named(resource, |name| name == ask.node);
    match verb {
        "get" | "list" | "watch" if resource.subresource.is_empty() && !own => match resource.name {
            "" => why(format!("node '{}' cannot read all nodes, only its own Node object", ask.node)),
            name => why(format!("node '{}' cannot read '{name}', only its own Node object", ask.node)),
        },
        "update" | "patch" if !own => Err(None),
        _ => Ok(()),
    }
}

fn pod(ask: &Ask<'_>, verb: &str, resource: &Resource<'_>) -> Result<(), Option<String>> {
    let on = |name: &str| ask.pods.is_on(resource.namespace, name, ask.node);
    match (verb, resource.subresource) {
        ("list" | "watch", "") => {
            let selector = FieldSelector::parse(resource.field_selector).unwrap_or_default();
            let own = selector.required("spec.nodeName") == Some(ask.node) || named(resource, on);
            if own { Ok(()) } else { why("can only list/watch pods with spec.nodeName field selector") }
        }
        ("get" | "delete", "") | ("update" | "patch", "status") | ("create", "eviction") => {
            let text = format!("node {:?} can only access pods with spec.nodeName set to itself", ask.node);
            if on(resource.name) { Ok(()) } else { why(text) }
        }
        _ => Ok(()),
    }
}

fn lease(ask: &Ask<'_>, verb: &str, resource: &Resource<'_>) -> Result<(), Option<String>> {
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return why("can only get, create, update, patch, or delete a node lease");
    }
    if resource.namespace != "kube-node-lease" {
        return why("can only access leases in the \"kube-node-lease\" system namespace");
    }
    if verb != "create" && resource.name != ask.node {
        return why("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

/// Whether the one object that a request names passes a test; false when it names none.
fn named(request: &Resource<'_>, test: impl Fn(&str) -> bool) -> bool {
    if !request.name.is_empty() {
        return test(request.name);
    }
    let selector = FieldSelector::parse(request.field_selector).unwrap_or_default();
    selector.required("metadata.name").is_some_and(test)
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
        // A namespace may hold very many pods, a node does not.
        let fields = FieldSelector::parse(&format!("spec.nodeName={node}")).unwrap_or_default();
        let filter = Filter { namespace: namespace.to_owned(), fields, ..Filter::default() };
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
        Reference::Claim(name) => {
            let ephemeral = |v: &Value| {
                let own = v.get("name").and_then(Value::as_str).unwrap_or_default();
                v.get("ephemeral").is_some() && format!("{}-{own}", pod.name()) == *name
            };
            return list(pod.pointer("/spec/volumes"))
                .iter()
                .any(|v| text(v, "/persistentVolumeClaim/claimName", name) || ephemeral(v));
        }
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
