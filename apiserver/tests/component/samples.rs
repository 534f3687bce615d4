//! One valid object of every kind, and where it is created.

use api::Kind;
use serde_json::{Value, json};

/// The path of the collection in namespace `default`, or of the cluster.
pub fn collection(kind: &Kind) -> String {
    let root = if kind.group.is_empty() {
        "/api/v1".to_owned()
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    if kind.namespaced {
        format!("{root}/namespaces/default/{}", kind.plural)
    } else {
        format!("{root}/{}", kind.plural)
    }
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

/// A valid object.
pub fn sample(kind: &Kind, name: &str) -> Value {
    let mut object = match (kind.group, kind.kind) {
        ("", "Pod") => json!({"spec": template()["spec"].clone()}),
        ("", "Service") => json!({"spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}}),
        ("", "Endpoints") => {
            json!({"subsets": [{"addresses": [{"ip": "10.244.0.5"}], "ports": [{"port": 80}]}]})
        }
        ("", "ConfigMap") => json!({"data": {"a": "b"}}),
        ("", "Secret") => json!({"stringData": {"a": "b"}}),
        ("", "Event") => {
            json!({"involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "R", "message": "m", "type": "Normal"})
        }
        ("events.k8s.io", "Event") => json!({
            "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "R", "note": "m", "type": "Normal",
            "action": "A", "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c", "reportingInstance": "i"
        }),
        ("discovery.k8s.io", "EndpointSlice") => {
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.244.0.5"]}], "ports": [{"name": "", "port": 80}]})
        }
        ("coordination.k8s.io", "Lease") => {
            json!({"spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}})
        }
        ("apps", "Deployment" | "ReplicaSet") => {
            json!({"spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template()}})
        }
        ("apps", "ControllerRevision") => json!({"revision": 1, "data": {"a": 1}}),
        _ => json!({}),
    };
    object["apiVersion"] = kind.api_version.into();
    object["kind"] = kind.kind.into();
    object["metadata"] = json!({"name": name, "labels": {"sample": "yes"}});
    object
}
