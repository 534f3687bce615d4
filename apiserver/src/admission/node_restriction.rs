//! NodeRestriction: a kubelet may not move itself into other labels or taints, nor touch pods of other nodes,
//! even through objects that it may otherwise write.

use api::status::StatusError;
use api::{Kind, Object, Subresource};
use serde_json::Value;

use super::Operation;

/// Labels beneath these domains belong to the cluster, with the exceptions of [`KUBELET_LABELS`].
const RESERVED: &[&str] = &["kubernetes.io", "k8s.io"];
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// Whether a kubelet may make this change.
///
/// # Errors
/// 403 in upstream's wording.
pub fn decide(
    node: &str,
    kind: &Kind,
    subresource: Option<Subresource>,
    operation: Operation,
    new: Option<&Object>,
    old: Option<&Object>,
) -> Result<(), StatusError> {
    let name = new.or(old).map(Object::name).unwrap_or_default();
    let refuse = |why: String| Err(StatusError::forbidden(kind, name, why));
    match (kind.group, kind.kind, operation) {
        ("", "Pod", Operation::Create) => pod_create(node, new).or_else(refuse),
        ("", "Pod", _) => {
            let on = old.map(|p| p.str_at("/spec/nodeName").to_owned()).unwrap_or_default();
            match (on == node, operation) {
                (true, Operation::Delete) => Ok(()),
                (true, _) if subresource == Some(Subresource::Status) => pod_status(new, old).or_else(refuse),
                (true, _) => refuse(format!("node {node:?} can only update pod status")),
                (false, _) => {
                    refuse(format!("node {node:?} can only touch pods with spec.nodeName set to itself"))
                }
            }
        }
        ("", "Node", _) if name != node => {
            refuse(format!("node {node:?} is not allowed to modify node {name:?}"))
        }
        ("", "Node", Operation::Delete) => refuse(format!("node {node:?} is not allowed to delete itself")),
        ("", "Node", _) => node_change(node, new, old).or_else(refuse),
        ("coordination.k8s.io", "Lease", _) if name != node => {
            refuse(format!("can only access node lease with the same name as the requesting node {node:?}"))
        }
        _ => Ok(()),
    }
}

fn pod_create(node: &str, pod: Option<&Object>) -> Result<(), String> {
    let Some(pod) = pod else { return Ok(()) };
    if !pod.annotations().contains_key("kubernetes.io/config.mirror") {
        return Err(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod.str_at("/spec/nodeName") != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    Ok(())
}

fn pod_status(new: Option<&Object>, old: Option<&Object>) -> Result<(), String> {
    let labels = |o: Option<&Object>| o.map(Object::labels).unwrap_or_default();
    if labels(new) != labels(old) {
        return Err("kubelet cannot update labels through pod status".into());
    }
    Ok(())
}

fn node_change(node: &str, new: Option<&Object>, old: Option<&Object>) -> Result<(), String> {
    let Some(new) = new else { return Ok(()) };
    let before = old.map(Object::labels).unwrap_or_default();
    let after = new.labels();
    let changed = before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key));
    let mut forbidden: Vec<_> = changed.filter(|key| is_reserved(key)).map(String::as_str).collect();
    forbidden.sort_unstable();
    forbidden.dedup();
    if !forbidden.is_empty() {
        return Err(format!("is not allowed to modify labels: {} (node {node:?})", forbidden.join(", ")));
    }
    let field = |o: Option<&Object>, pointer: &str| {
        o.and_then(|o| o.pointer(pointer).cloned()).unwrap_or(Value::Null)
    };
    if old.is_some() {
        for (pointer, what) in [("/spec/taints", "taints"), ("/spec/configSource", "configSource")] {
            if field(Some(new), pointer) != field(old, pointer) {
                return Err(format!("node {node:?} is not allowed to modify {what}"));
            }
        }
        if field(Some(new), "/metadata/ownerReferences") != field(old, "/metadata/ownerReferences") {
            return Err(format!("node {node:?} is not allowed to modify its own ownerReferences"));
        }
    }
    Ok(())
}

fn is_reserved(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let beneath = |root: &str| domain == root || domain.ends_with(&format!(".{root}"));
    let kubelet = beneath("kubelet.kubernetes.io") || beneath("node.kubernetes.io");
    let restricted = beneath("node-restriction.kubernetes.io");
    restricted || RESERVED.iter().any(|root| beneath(root)) && !kubelet && !KUBELET_LABELS.contains(&label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(
        kind: &str,
        operation: Operation,
        sub: Option<Subresource>,
        new: Value,
        old: Value,
        wanted: Result<(), &str>,
    ) {
        let kind = Kind::find("", kind).expect("a kind");
        let object = |v: Value| if v.is_null() { None } else { Some(Object::new(v).expect("a map")) };
        let (new, old) = (object(new), object(old));
        let result = decide("n1", kind, sub, operation, new.as_ref(), old.as_ref());
        match (result, wanted) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(text)) => {
                assert!(error.to_string().contains(text) && error.code() == 403, "{error}")
            }
            (result, wanted) => panic!("{result:?} instead of {wanted:?}"),
        }
    }

    #[test]
    fn a_kubelet_changes_its_own_node_within_bounds() {
        use Operation::{Create, Delete, Update};
        let node =
            |labels: Value, spec: Value| json!({"metadata": {"name": "n1", "labels": labels}, "spec": spec});
        let plain = node(json!({}), json!({}));
        check(
            "Node",
            Create,
            None,
            node(json!({"kubernetes.io/os": "linux"}), json!({"taints": [{}]})),
            json!(null),
            Ok(()),
        );
        check("Node", Update, None, node(json!({"example.com/a": "b"}), json!({})), plain.clone(), Ok(()));
        let role = node(json!({"node-role.kubernetes.io/control-plane": ""}), json!({}));
        check("Node", Update, None, role, plain.clone(), Err("node-role.kubernetes.io/control-plane"));
        let restricted = node(json!({"node-restriction.kubernetes.io/a": ""}), json!({}));
        check("Node", Create, None, restricted, json!(null), Err("is not allowed to modify labels"));
        check(
            "Node",
            Update,
            None,
            node(json!({}), json!({"taints": [{}]})),
            plain.clone(),
            Err("modify taints"),
        );
        check("Node", Delete, None, json!(null), plain, Err("delete itself"));
        check(
            "Node",
            Update,
            None,
            json!({"metadata": {"name": "n2"}}),
            json!({"metadata": {"name": "n2"}}),
            Err("modify node \"n2\""),
        );
    }

    #[test]
    fn a_kubelet_touches_only_its_pods_and_only_their_status() {
        use Operation::{Create, Delete, Update};
        let pod = |node: &str, labels: Value| json!({"metadata": {"name": "p", "labels": labels}, "spec": {"nodeName": node}});
        let own = pod("n1", json!({}));
        check("Pod", Update, Some(Subresource::Status), own.clone(), own.clone(), Ok(()));
        check(
            "Pod",
            Update,
            Some(Subresource::Status),
            pod("n1", json!({"a": "b"})),
            own.clone(),
            Err("cannot update labels"),
        );
        check("Pod", Update, None, own.clone(), own.clone(), Err("can only update pod status"));
        check("Pod", Delete, None, json!(null), own.clone(), Ok(()));
        check("Pod", Delete, None, json!(null), pod("n2", json!({})), Err("set to itself"));
        check("Pod", Create, None, own, json!(null), Err("config.mirror"));
        let mirror = json!({"metadata": {"name": "p", "annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "n1"}});
        check("Pod", Create, None, mirror, json!(null), Ok(()));
    }
}
