//! One valid object of every kind, and where it is created.

use api::Kind;
use serde_json::{Value, json};

use crate::support::Http;

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

fn job() -> Value {
    let mut template = template();
    template["spec"]["restartPolicy"] = "Never".into();
    json!({"template": template})
}

fn rule() -> Value {
    json!({"operations": ["CREATE"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["none"]})
}

/// The name under which the sample of this name is kept, which a few kinds derive from the rest.
pub fn named(kind: &Kind, name: &str) -> String {
    match kind.kind {
        "CustomResourceDefinition" => format!("{name}.example.com"),
        "APIService" => format!("v1.{name}.example.com"),
        "IPAddress" => {
            let number = name.bytes().fold(7u16, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
            format!("10.200.{}.{}", number >> 8, number & 255)
        }
        _ => name.to_owned(),
    }
}

/// The kinds whose objects are kept.
pub fn stored() -> impl Iterator<Item = &'static Kind> {
    api::kinds::KINDS.iter().filter(|kind| kind.is_stored())
}

/// An object as it is once the server itself has done with it: a definition once it is established, a service of the
/// API once it was looked for.
pub async fn settled(http: &Http, kind: &Kind, path: &str, created: Value) -> Value {
    let wanted = match kind.kind {
        "CustomResourceDefinition" => 2,
        "APIService" => 1,
        _ => return created,
    };
    let wait = async {
        loop {
            let (_, seen) = http.get(path).await;
            if seen["status"]["conditions"].as_array().map_or(0, Vec::len) == wanted {
                return seen;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.expect("the server has done with it")
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
        ("apps", "StatefulSet" | "DaemonSet") => {
            json!({"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template()}})
        }
        ("", "PersistentVolume") => json!({"spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}}),
        ("", "PersistentVolumeClaim") => json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}),
        ("", "ReplicationController") => {
            json!({"spec": {"selector": {"app": "web"}, "template": template()}})
        }
        ("", "PodTemplate") => json!({"template": template()}),
        ("", "ResourceQuota") => json!({"spec": {"hard": {"pods": "5"}}}),
        ("", "LimitRange") => json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}}),
        ("batch", "Job") => json!({"spec": job()}),
        ("batch", "CronJob") => json!({"spec": {"schedule": "@hourly", "jobTemplate": {"spec": job()}}}),
        ("autoscaling", _) => json!({"spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
        ("policy", _) => json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
        ("networking.k8s.io", "Ingress") => {
            json!({"spec": {"rules": [{"host": "a.example.com", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}})
        }
        ("networking.k8s.io", "IngressClass") => json!({"spec": {"controller": "example.com/c"}}),
        ("networking.k8s.io", "NetworkPolicy") => json!({"spec": {"podSelector": {}}}),
        ("networking.k8s.io", "IPAddress") => {
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}})
        }
        ("networking.k8s.io", "ServiceCIDR") => json!({"spec": {"cidrs": ["10.100.0.0/24"]}}),
        ("node.k8s.io", _) => json!({"handler": "runc"}),
        ("scheduling.k8s.io", _) => json!({"value": 100}),
        ("storage.k8s.io", "StorageClass") => json!({"provisioner": "example.com/p"}),
        ("storage.k8s.io", "VolumeAttachment") => {
            json!({"spec": {"attacher": "example.com", "nodeName": "n1", "source": {"persistentVolumeName": "pv"}}})
        }
        ("storage.k8s.io", "CSINode") => {
            json!({"spec": {"drivers": [{"name": "example.com", "nodeID": "n1"}]}})
        }
        ("storage.k8s.io", "CSIDriver") => json!({"spec": {}}),
        ("storage.k8s.io", "CSIStorageCapacity") => json!({"storageClassName": "fast"}),
        ("storage.k8s.io", "VolumeAttributesClass") => {
            json!({"driverName": "example.com", "parameters": {"a": "b"}})
        }
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => {
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
        }
        ("rbac.authorization.k8s.io", _) => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "u"}]})
        }
        ("certificates.k8s.io", _) => {
            json!({"spec": {"request": CSR, "signerName": "example.com/s", "usages": ["client auth"]}})
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => json!({"spec": {
            "matchConstraints": {"resourceRules": [rule()]}, "validations": [{"expression": "true"}]}}),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            json!({"spec": {"policyName": "none", "validationActions": ["Deny"]}})
        }
        ("admissionregistration.k8s.io", _) => {
            json!({"webhooks": [{"name": "a.example.com", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"service": {"name": "a", "namespace": "default"}},
            "rules": [rule()]}]})
        }
        ("apiextensions.k8s.io", _) => json!({"spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": name, "singular": format!("{name}-one"), "kind": name.replace('-', ""), "listKind": format!("{name}-list").replace('-', "")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}}),
        ("apiregistration.k8s.io", _) => {
            json!({"spec": {"group": format!("{name}.example.com"), "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "insecureSkipTLSVerify": true, "service": {"name": "a", "namespace": "default"}}})
        }
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => {
            json!({"spec": {"priorityLevelConfiguration": {"name": "p"}, "matchingPrecedence": 100}})
        }
        ("flowcontrol.apiserver.k8s.io", _) => {
            json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}})
        }
        ("resource.k8s.io", "DeviceClass") => {
            json!({"spec": {"selectors": [{"cel": {"expression": "true"}}]}})
        }
        ("resource.k8s.io", "ResourceClaim") => {
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}})
        }
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            json!({"spec": {"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}}})
        }
        ("resource.k8s.io", "ResourceSlice") => {
            json!({"spec": {"driver": "gpu.example.com", "nodeName": "n1",
            "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1}}})
        }
        _ => json!({}),
    };
    object["apiVersion"] = kind.api_version.into();
    object["kind"] = kind.kind.into();
    object["metadata"] = json!({"name": named(kind, name), "labels": {"sample": "yes"}});
    object
}

/// A request for a certificate, in PEM, in base64.
const CSR: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIU01Ib0NBUUF3R0RFS01BZ0dBMVVFQ2d3Qlp6RUtNQWdHQTFVRUF3d0JkVEJaTUJNR0J5cUdTTTQ5QWdFRwpDQ3FHU000OUF3RUhBMElBQkhJRFJoVzRKNGR0TDU5NTlrMndKUWpVaGxleUg1NHZQdEZ3MkY2bk4ySnNXaTc5CmpRNEdMeHIrVE0wbzNMbU1GczFRalVqSW9xMnVTUDBKYjZmMlFHcWdBREFLQmdncWhrak9QUVFEQWdOSUFEQkYKQWlBeVhjelZJSzFVaGZJdWhqMkY2eGZTUG1FVENxbjdURlJOVFQxZCtoZjQxUUloQU13b3JQa3ltVWJQc1F6agpUbHhtWE5zeGl2eE1jRkFHTHdGTXlBc3hHQjZCCi0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=";
