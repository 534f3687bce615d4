//! The APIServices of what this server serves itself: one for every group and version of the table.

use std::collections::BTreeMap;

use api::kinds::KINDS;
use api::{Kind, Object};
use serde_json::{Value, json};

/// The label of APIServices that are kept by this server.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// The priority of a built-in group, and of one of its versions, as upstream ranks them.
fn priorities(group: &str, version: &str) -> (i32, i32) {
    let group = match group {
        "" => return (18000, 1),
        "apps" => 17800,
        "events.k8s.io" => 17750,
        "authentication.k8s.io" => 17700,
        "authorization.k8s.io" => 17600,
        "autoscaling" => 17500,
        "batch" => 17400,
        "certificates.k8s.io" => 17300,
        "networking.k8s.io" => 17200,
        "policy" => 17100,
        "rbac.authorization.k8s.io" => 17000,
        "storage.k8s.io" => 16800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16700,
        "scheduling.k8s.io" => 16600,
        "coordination.k8s.io" => 16500,
        "node.k8s.io" => 16300,
        "discovery.k8s.io" | "resource.k8s.io" => 16200,
        "flowcontrol.apiserver.k8s.io" => 16100,
        // Whatever else there is was added by definitions.
        _ => return (1000, 100),
    };
    (group, if version == "v2" { 30 } else { 15 })
}

/// The APIServices that there should be, by name. The group of APIServices itself has none.
pub fn wanted(custom: &[&'static Kind]) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for kind in KINDS.iter().chain(custom.iter().copied()) {
        if kind.group == "apiregistration.k8s.io" {
            continue;
        }
        let name = format!("{}.{}", kind.version, kind.group);
        let managed = if kind.custom.is_some() { "true" } else { "onstart" };
        let (group, version) = priorities(kind.group, kind.version);
        let document = json!({
            "metadata": {"name": name, "labels": {MANAGED: managed}},
            "spec": {"group": kind.group, "version": kind.version,
                "groupPriorityMinimum": group, "versionPriority": version},
        });
        all.insert(name, document);
    }
    all
}

/// One write.
#[derive(Debug, PartialEq)]
pub enum Op {
    /// A new one.
    Create(Value),
    /// A group that is not served here any more.
    Delete(String),
}

/// What must be written for the APIServices that there are to be those that there should be. One that somebody made
/// by hand stands as it is.
pub fn plan(present: &[Object], wanted: &BTreeMap<String, Value>) -> Vec<Op> {
    let stale = present.iter().filter(|o| {
        let label =
            o.meta().and_then(|m| m.get("labels")).and_then(|l| l.get(MANAGED)).and_then(Value::as_str);
        label == Some("true") && !wanted.contains_key(o.name())
    });
    let mut ops: Vec<Op> = stale.map(|object| Op::Delete(object.name().to_owned())).collect();
    let missing = wanted.iter().filter(|(name, _)| !present.iter().any(|o| o.name() == name.as_str()));
    ops.extend(missing.map(|(_, document)| Op::Create(document.clone())));
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_has_an_api_service() {
        let wanted = wanted(&[]);
        assert!(wanted.contains_key("v1.") && wanted.contains_key("v2.autoscaling"));
        assert!(!wanted.contains_key("v1.apiregistration.k8s.io"));
        let ops = plan(&[], &wanted);
        assert_eq!(ops.len(), wanted.len());
        let object = |value: Value| Object::new(value).expect("a map");
        let mut present: Vec<Object> = wanted.values().cloned().map(object).collect();
        assert_eq!(plan(&present, &wanted), []);
        present.push(object(json!({"metadata": {"name": "v1.gone.org", "labels": {MANAGED: "true"}}})));
        present.push(object(json!({"metadata": {"name": "v1.other.org"}})));
        assert_eq!(plan(&present, &wanted), [Op::Delete("v1.gone.org".into())]);
    }
}
