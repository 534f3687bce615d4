//! A document of every kind that is not in the first list, for what holds for the rules of all kinds.

use serde_json::{Value, json};

/// (group, kind, document without its names), `workload` being the spec of a ReplicaSet.
pub(super) fn rows(workload: &Value) -> Vec<(&'static str, &'static str, Value)> {
    let template = workload["template"].clone();
    let mut run_once = template.clone();
    run_once["spec"]["restartPolicy"] = "Never".into();
    run_once["spec"]["initContainers"] = json!([{"name": "i", "image": "i:1"}]);
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
        "resources": {"requests": {"storage": "1Gi"}}});
    let job = json!({"parallelism": 2, "completions": 3, "backoffLimit": 4, "completionMode": "Indexed",
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42], "containerName": "c"}}]},
        "successPolicy": {"rules": [{"succeededIndexes": "0,2-3", "succeededCount": 1}]}, "template": run_once});
    let target = json!({"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"});
    let http = json!({"paths": [{"path": "/", "pathType": "Prefix",
        "backend": {"service": {"name": "web", "port": {"number": 80}}}}]});
    let peer = json!({"podSelector": {"matchLabels": {"a": "b"}}, "namespaceSelector": {}});
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let subject = json!({"kind": "ServiceAccount", "name": "a", "namespace": "default"});
    let webhook = json!({"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "a", "namespace": "default"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    let request = json!({"exactly": {"deviceClassName": "gpu.example.com", "count": 1,
        "selectors": [{"cel": {"expression": "true"}}]}});
    let devices = json!({"requests": [{"name": "r", "exactly": request["exactly"]}]});
    vec![
        (
            "",
            "PersistentVolume",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "fast", "hostPath": {"path": "/data"},
            "claimRef": {"namespace": "default", "name": "web"}}, "status": {"phase": "Bound"}}),
        ),
        (
            "",
            "PersistentVolumeClaim",
            json!({"spec": claim, "status": {"phase": "Bound",
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}}),
        ),
        (
            "",
            "ReplicationController",
            json!({"spec": {"replicas": 2, "selector": {"app": "web"}, "template": template}}),
        ),
        ("", "PodTemplate", json!({"template": template})),
        (
            "",
            "ResourceQuota",
            json!({"spec": {"hard": {"pods": "5", "requests.cpu": "2"},
            "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]}},
            "status": {"hard": {"pods": "5"}, "used": {"pods": "1"}}}),
        ),
        (
            "",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "10m"}, "max": {"cpu": "2"},
            "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}, "maxLimitRequestRatio": {"cpu": "20"}}]}}),
        ),
        ("", "ComponentStatus", json!({"conditions": [{"type": "Healthy", "status": "True"}]})),
        (
            "apps",
            "StatefulSet",
            json!({"spec": {"replicas": 2, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
            "template": template, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}]}}),
        ),
        (
            "apps",
            "DaemonSet",
            json!({"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}}),
        ),
        ("batch", "Job", json!({"spec": job})),
        (
            "batch",
            "CronJob",
            json!({"spec": {"schedule": "*/5 * * * *", "timeZone": "Etc/UTC",
            "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": job}}}),
        ),
        (
            "autoscaling",
            "HorizontalPodAutoscaler",
            json!({"spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 5,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
            "behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}}}),
        ),
        (
            "policy",
            "PodDisruptionBudget",
            json!({"spec": {"minAvailable": "50%", "selector": {"matchLabels": {"app": "web"}}},
            "status": {"currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 1}}),
        ),
        (
            "networking.k8s.io",
            "Ingress",
            json!({"spec": {"ingressClassName": "a", "tls": [{"hosts": ["a.example.com"], "secretName": "s"}],
            "rules": [{"host": "a.example.com", "http": http}]}, "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}}),
        ),
        (
            "networking.k8s.io",
            "IngressClass",
            json!({"spec": {"controller": "example.com/c",
            "parameters": {"kind": "P", "name": "p", "scope": "Cluster"}}}),
        ),
        (
            "networking.k8s.io",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [peer], "ports": [{"protocol": "TCP", "port": 80, "endPort": 90}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]}}),
        ),
        (
            "networking.k8s.io",
            "IPAddress",
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}}),
        ),
        ("networking.k8s.io", "ServiceCIDR", json!({"spec": {"cidrs": ["10.100.0.0/24"]}})),
        (
            "node.k8s.io",
            "RuntimeClass",
            json!({"handler": "runc", "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"a": "b"}}}),
        ),
        (
            "scheduling.k8s.io",
            "PriorityClass",
            json!({"value": 100, "preemptionPolicy": "Never", "description": "d"}),
        ),
        (
            "storage.k8s.io",
            "StorageClass",
            json!({"provisioner": "example.com/p", "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer", "parameters": {"a": "b"}}),
        ),
        (
            "storage.k8s.io",
            "VolumeAttachment",
            json!({"spec": {"attacher": "example.com", "nodeName": "n1",
            "source": {"persistentVolumeName": "pv"}}, "status": {"attached": true}}),
        ),
        (
            "storage.k8s.io",
            "CSINode",
            json!({"spec": {"drivers": [{"name": "example.com", "nodeID": "n1", "topologyKeys": ["a"],
            "allocatable": {"count": 5}}]}}),
        ),
        (
            "storage.k8s.io",
            "CSIDriver",
            json!({"spec": {"attachRequired": true, "volumeLifecycleModes": ["Persistent"]}}),
        ),
        (
            "storage.k8s.io",
            "CSIStorageCapacity",
            json!({"storageClassName": "fast", "capacity": "1Gi",
            "nodeTopology": {"matchLabels": {"a": "b"}}}),
        ),
        (
            "storage.k8s.io",
            "VolumeAttributesClass",
            json!({"driverName": "example.com", "parameters": {"a": "b"}}),
        ),
        ("rbac.authorization.k8s.io", "Role", json!({"rules": [rule]})),
        (
            "rbac.authorization.k8s.io",
            "RoleBinding",
            json!({"subjects": [subject],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}}),
        ),
        (
            "rbac.authorization.k8s.io",
            "ClusterRole",
            json!({"rules": [rule, {"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]}),
        ),
        (
            "rbac.authorization.k8s.io",
            "ClusterRoleBinding",
            json!({"subjects": [subject],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}}),
        ),
        (
            "certificates.k8s.io",
            "CertificateSigningRequest",
            json!({"spec": {"request": CSR, "signerName": "example.com/s",
            "usages": ["client auth"], "expirationSeconds": 3600, "username": "u", "groups": ["g"]},
            "status": {"conditions": [{"type": "Approved", "status": "True"}]}}),
        ),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", json!({"webhooks": [webhook]})),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", json!({"webhooks": [webhook]})),
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicy",
            json!({"spec": {"failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": webhook["rules"]},
            "validations": [{"expression": "object.spec.replicas < 5", "message": "m", "reason": "Invalid"}]}}),
        ),
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding",
            json!({"spec": {"policyName": "p",
            "validationActions": ["Deny"]}}),
        ),
        (
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            json!({"spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "webs", "singular": "web", "kind": "Web", "listKind": "WebList", "shortNames": ["w"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
                    "properties": {"size": {"type": "integer", "minimum": 0}}}}}}}]}}),
        ),
        (
            "apiregistration.k8s.io",
            "APIService",
            json!({"spec": {"group": "example.com", "version": "v1", "groupPriorityMinimum": 100,
            "versionPriority": 10, "insecureSkipTLSVerify": true, "service": {"name": "a", "namespace": "default", "port": 443}},
            "status": {"conditions": [{"type": "Available", "status": "True"}]}}),
        ),
        (
            "flowcontrol.apiserver.k8s.io",
            "FlowSchema",
            json!({"spec": {"priorityLevelConfiguration": {"name": "p"},
            "matchingPrecedence": 100, "distinguisherMethod": {"type": "ByUser"}, "rules": [{"subjects": [{"kind": "User", "user": {"name": "u"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]}]}}),
        ),
        (
            "flowcontrol.apiserver.k8s.io",
            "PriorityLevelConfiguration",
            json!({"spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 10, "limitResponse": {"type": "Queue", "queuing": {"queues": 8, "handSize": 2, "queueLengthLimit": 5}}}}}),
        ),
        ("resource.k8s.io", "DeviceClass", json!({"spec": {"selectors": [{"cel": {"expression": "true"}}]}})),
        ("resource.k8s.io", "ResourceClaim", json!({"spec": {"devices": devices}})),
        ("resource.k8s.io", "ResourceClaimTemplate", json!({"spec": {"spec": {"devices": devices}}})),
        (
            "resource.k8s.io",
            "ResourceSlice",
            json!({"spec": {"driver": "gpu.example.com", "nodeName": "n1",
            "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "a"}}, "capacity": {"memory": {"value": "1Gi"}}}]}}),
        ),
    ]
}

/// A request for a certificate, in PEM, in base64.
const CSR: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIU01Ib0NBUUF3R0RFS01BZ0dBMVVFQ2d3Qlp6RUtNQWdHQTFVRUF3d0JkVEJaTUJNR0J5cUdTTTQ5QWdFRwpDQ3FHU000OUF3RUhBMElBQkhJRFJoVzRKNGR0TDU5NTlrMndKUWpVaGxleUg1NHZQdEZ3MkY2bk4ySnNXaTc5CmpRNEdMeHIrVE0wbzNMbU1GczFRalVqSW9xMnVTUDBKYjZmMlFHcWdBREFLQmdncWhrak9QUVFEQWdOSUFEQkYKQWlBeVhjelZJSzFVaGZJdWhqMkY2eGZTUG1FVENxbjdURlJOVFQxZCtoZjQxUUloQU13b3JQa3ltVWJQc1F6agpUbHhtWE5zeGl2eE1jRkFHTHdGTXlBc3hHQjZCCi0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=";
