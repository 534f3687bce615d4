//! Pods: defaults, what is refused and why, what may change, and how a row looks.

use serde_json::{Value, json};

use super::*;
use crate::registry::testing::{created, invalid, invalid_update, object, row, stored, updated, valid, with};

fn pod() -> Value {
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}})
}

#[track_caller]
fn check(pointer: &str, value: Value, expected: &[&str]) {
    invalid(&PodStrategy, with(&pod(), pointer, value), expected);
}

#[track_caller]
fn container(key: &str, value: Value, expected: &[&str]) {
    check(&format!("/spec/containers/0/{key}"), value, expected);
}

#[track_caller]
fn fine(pointer: &str, value: Value) {
    check(pointer, value, &[]);
}

#[test]
fn a_minimal_pod_is_completed() {
    let stored = stored(
        &PodStrategy,
        json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "nginx",
            "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "livenessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "b"}}, {"name": "c", "hostPath": {"path": "/"}}]}}),
    );
    assert_eq!(
        stored["spec"],
        json!({
            "containers": [{"name": "web", "image": "nginx", "imagePullPolicy": "Always",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
                "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                    "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "b", "defaultMode": 420}},
                {"name": "c", "hostPath": {"path": "/", "type": ""}}],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true})
    );
    assert_eq!(stored["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
}

#[test]
fn the_status_of_a_creator_is_ignored() {
    let stored =
        stored(&PodStrategy, with(&pod(), "/status", json!({"phase": "Running", "podIP": "1.2.3.4"})));
    assert_eq!(stored["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    let class = |resources: Value| {
        let pod = created(&PodStrategy, with(&pod(), "/spec/containers/0/resources", resources));
        pod.status.unwrap().qos_class.unwrap()
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(
        class(json!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}})),
        "BestEffort"
    );
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    let low = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
    assert_eq!(class(low), "Burstable");
}

#[test]
fn a_pod_without_anything_misses_everything() {
    invalid(&PodStrategy, json!({"spec": {}}), &["spec.containers: Required value"]);
    invalid(
        &PodStrategy,
        json!({"spec": {"containers": [{}]}}),
        &["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"],
    );
}

#[test]
fn names_of_containers_are_labels_and_unique() {
    const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
        start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
        '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    container("name", json!("Web"), &[&format!("spec.containers[0].name: Invalid value: \"Web\": {LABEL}")]);
    check(
        "/spec/initContainers",
        json!([{"name": "web", "image": "a:1"}]),
        &["spec.initContainers[0].name: Duplicate value: \"web\""],
    );
}

#[test]
fn enumerations_name_what_they_support() {
    check(
        "/spec/restartPolicy",
        json!("Sometimes"),
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ],
    );
    check(
        "/spec/dnsPolicy",
        json!("x"),
        &[
            "spec.dnsPolicy: Unsupported value: \"x\": supported values: \"ClusterFirst\", \"ClusterFirstWithHostNet\", \
           \"Default\", \"None\"",
        ],
    );
    container(
        "imagePullPolicy",
        json!("x"),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"x\": supported values: \"Always\", \"IfNotPresent\", \
           \"Never\"",
        ],
    );
    fine("/spec/restartPolicy", json!("OnFailure"));
}

#[test]
fn ports_are_in_range_named_once_and_not_claimed_twice() {
    container(
        "ports",
        json!([{"containerPort": 0}]),
        &["spec.containers[0].ports[0].containerPort: Required value"],
    );
    container(
        "ports",
        json!([{"containerPort": 70000, "hostPort": -1, "protocol": "ICMP", "name": "UP"}]),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[0].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[0].ports[0].name: Invalid value: \"UP\": must contain only alpha-numeric characters (a-z, 0-9), \
             and hyphens (-)",
            "spec.containers[0].ports[0].name: Invalid value: \"UP\": must contain at least one letter (a-z)",
        ],
    );
    container(
        "ports",
        json!([{"containerPort": 80, "hostPort": 80, "name": "a"}, {"containerPort": 81, "hostPort": 80, "name": "a"}]),
        &[
            "spec.containers[0].ports[1].name: Duplicate value: \"a\"",
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\"",
        ],
    );
    let host = with(&pod(), "/spec/hostNetwork", json!(true));
    let host = with(
        &host,
        "/spec/containers/0/ports",
        json!([{"containerPort": 80}, {"containerPort": 81, "hostPort": 82}]),
    );
    invalid(
        &PodStrategy,
        host,
        &[
            "spec.containers[0].ports[1].containerPort: Invalid value: 81: must match `hostPort` when `hostNetwork` is true",
        ],
    );
}

#[test]
fn resources_are_quantities_within_their_limits() {
    container(
        "resources",
        json!({"requests": {"cpu": "2", "memory": "-1"}, "limits": {"cpu": "1"}}),
        &[
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    container(
        "resources",
        json!({"limits": {"cpu": "lots"}}),
        &[
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"lots\": quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': \"lots\"",
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"lots\": quantities must match the regular \
             expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': \"lots\"",
        ],
    );
    container(
        "resources",
        json!({"requests": {"example.com/gpu": "1"}}),
        &[
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ],
    );
    container(
        "resources",
        json!({"limits": {"gpu": "1", "example.com/gpu": "500m"}}),
        &[
            "spec.containers[0].resources.limits[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
            "spec.containers[0].resources.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer",
            "spec.containers[0].resources.requests[example.com/gpu]: Invalid value: \"500m\": must be an integer",
        ],
    );
}

#[test]
fn environment_variables_have_one_source() {
    container("env", json!([{"value": "x"}]), &["spec.containers[0].env[0].name: Required value"]);
    container(
        "env",
        json!([{"name": "a=b"}]),
        &[
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of \
           printable ASCII characters other than '='",
        ],
    );
    container(
        "env",
        json!([{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "spec.secret"}}}]),
        &[
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.secret\": supported values: \
             \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \
             \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ],
    );
    container(
        "env",
        json!([{"name": "A", "valueFrom": {}}]),
        &[
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, \
           `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ],
    );
    container(
        "env",
        json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}, "configMapKeyRef": {"key": "a b"}}}]),
        &[
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
            "spec.containers[0].env[0].valueFrom.configMapKeyRef.name: Required value",
            "spec.containers[0].env[0].valueFrom.configMapKeyRef.key: Invalid value: \"a b\": a valid config key must consist \
             of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for \
             validation is '[-._a-zA-Z0-9]+')",
        ],
    );
    container(
        "envFrom",
        json!([{}]),
        &[
            "spec.containers[0].envFrom[0]: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ],
    );
    let labels = json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]);
    fine("/spec/containers/0/env", labels);
}

#[test]
fn probes_do_one_thing() {
    container(
        "livenessProbe",
        json!({}),
        &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    );
    container(
        "readinessProbe",
        json!({"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}, "periodSeconds": -1}),
        &[
            "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    container(
        "livenessProbe",
        json!({"httpGet": {"port": 0, "scheme": "FTP"}, "successThreshold": 2}),
        &[
            "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.containers[0].livenessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
    check(
        "/spec/initContainers",
        json!([{"name": "i", "image": "a:1", "livenessProbe": {"exec": {"command": ["a"]}}}]),
        &[
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
    let sidecar = json!([{"name": "i", "image": "a:1", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["a"]}}}]);
    fine("/spec/initContainers", sidecar);
}

#[test]
fn volumes_have_one_source_and_mounts_a_volume() {
    let mount = json!([{"name": "none", "mountPath": "/a"}, {"name": "v", "mountPath": ""}]);
    let with_volume = with(&pod(), "/spec/volumes", json!([{"name": "v", "emptyDir": {}}]));
    invalid(
        &PodStrategy,
        with(&with_volume, "/spec/containers/0/volumeMounts", mount),
        &[
            "spec.containers[0].volumeMounts[0].name: Not found: \"none\"",
            "spec.containers[0].volumeMounts[1].mountPath: Required value",
        ],
    );
    let twice =
        json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a", "subPath": "../b"}]);
    invalid(
        &PodStrategy,
        with(&with_volume, "/spec/containers/0/volumeMounts", twice),
        &[
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "spec.containers[0].volumeMounts[1].subPath: Invalid value: \"../b\": must not contain '..'",
        ],
    );
    check(
        "/spec/volumes",
        json!([{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}, {"name": "v", "configMap": {}},
            {"name": "g", "gitRepo": {"repository": "x"}}, {"name": "h", "hostPath": {"path": "/a/../b", "type": "Any"}}]),
        &[
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1].name: Duplicate value: \"v\"",
            "spec.volumes[1].configMap.name: Required value",
            "spec.volumes[2].gitRepo: Forbidden: GitRepo volumes are not supported",
            "spec.volumes[3].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            "spec.volumes[3].hostPath.type: Unsupported value: \"Any\": supported values: \"\", \"BlockDevice\", \
             \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ],
    );
    check(
        "/spec/volumes",
        json!([{"name": "v", "emptyDir": {"sizeLimit": "-1"}},
            {"name": "c", "configMap": {"name": "c", "defaultMode": 512, "items": [{"key": "a", "path": "/abs"}]}}]),
        &[
            "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
            "spec.volumes[1].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
            "spec.volumes[1].configMap.items[0].path: Invalid value: \"/abs\": must be a relative path",
        ],
    );
}

#[test]
fn tolerations_say_what_they_mean() {
    check(
        "/spec/tolerations",
        json!([{"operator": "Equal"}, {"key": "a", "operator": "Exists", "value": "b"},
            {"key": "a", "tolerationSeconds": 1, "effect": "NoSchedule"}, {"key": "a", "effect": "Never"}]),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \
             \"match all values and all keys\"",
            "spec.tolerations[1].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
            "spec.tolerations[2].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
            "spec.tolerations[3].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \
             \"PreferNoSchedule\"",
        ],
    );
    fine(
        "/spec/tolerations",
        json!([{"operator": "Exists"}, {"key": "a", "effect": "NoExecute", "tolerationSeconds": 3}]),
    );
}

#[test]
fn affinity_is_made_of_terms() {
    check(
        "/spec/affinity",
        json!({
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []},
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 0, "preference": {"matchExpressions": [{"key": "a", "operator": "In"}, {"key": "a", "operator": "Like"}]}}]},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must \
             have at least one node selector term",
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in \
             the range 1-100",
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values: \
             Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[1]\
             .operator: Invalid value: \"Like\": not a valid selector operator",
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not \
             be empty",
        ],
    );
}

#[test]
fn numbers_and_contexts_are_in_range() {
    check(
        "/spec/terminationGracePeriodSeconds",
        json!(-1),
        &["spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        "/spec/activeDeadlineSeconds",
        json!(0),
        &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
    );
    check(
        "/spec/securityContext",
        json!({"runAsUser": -1}),
        &["spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
    );
    container(
        "securityContext",
        json!({"privileged": true, "allowPrivilegeEscalation": false}),
        &[
            "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot \
           set `allowPrivilegeEscalation` to false and `privileged` to true",
        ],
    );
    check(
        "/spec/dnsPolicy",
        json!("None"),
        &[
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
        ],
    );
    check(
        "/spec/ephemeralContainers",
        json!([{"name": "e", "image": "a:1"}]),
        &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
    );
}

#[test]
fn an_update_may_change_images_and_add_tolerations() {
    let new = with(&pod(), "/spec/containers/0/image", json!("nginx:2"));
    let new = with(&new, "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]));
    let new = with(&new, "/spec/activeDeadlineSeconds", json!(5));
    let (pod, errors) =
        updated(&PodStrategy, with(&pod(), "/spec/containers/0/imagePullPolicy", json!("Always")), {
            with(&new, "/spec/containers/0/imagePullPolicy", json!("Always"))
        });
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));
}

#[test]
fn an_update_may_not_change_anything_else() {
    const WHAT: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
        `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
        tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\nchanged: ";
    let check = |pointer: &str, value: Value, changed: &str| {
        invalid_update(&PodStrategy, pod(), with(&pod(), pointer, value), &[&format!("{WHAT}{changed}")]);
    };
    check("/spec/nodeName", json!("other"), "spec.nodeName");
    check("/spec/containers/0/args", json!(["x"]), "spec.containers");
    check("/spec/restartPolicy", json!("Never"), "spec.restartPolicy");
    let two = json!([{"name": "web", "image": "nginx:1"}, {"name": "b", "image": "b:1"}]);
    invalid_update(
        &PodStrategy,
        pod(),
        with(&pod(), "/spec/containers", two),
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
    invalid_update(
        &PodStrategy,
        with(&pod(), "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}])),
        pod(),
        &[
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds (key \"a\")",
        ],
    );
    invalid_update(
        &PodStrategy,
        with(&pod(), "/spec/activeDeadlineSeconds", json!(5)),
        with(&pod(), "/spec/activeDeadlineSeconds", json!(6)),
        &["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"],
    );
}

#[test]
fn a_status_update_leaves_the_spec_and_does_not_wake_the_dead() {
    let ended = json!({"phase": "Running", "containerStatuses": [{"name": "web", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]});
    let old: Pod = object(with(&with(&pod(), "/status", ended), "/spec/restartPolicy", json!("Never")));
    let mut new = old.clone();
    new.spec.as_mut().unwrap().node_name = Some("other".into());
    new.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].state = Some(Default::default());
    new.status.as_mut().unwrap().pod_ip = Some("10.0.0.1".into());
    PodStrategy.prepare_for_status_update(&mut new, &old);
    assert_eq!(new.spec, old.spec);
    assert_eq!(new.status.as_ref().unwrap().pod_ips.as_ref().unwrap()[0].ip, "10.0.0.1");
    let errors = PodStrategy.validate_status_update(&new, &old);
    assert_eq!(
        errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
    );
}

#[test]
fn deletion_waits_only_for_a_pod_that_a_node_runs() {
    let grace = |pod: &Value, requested| PodStrategy.deletion_grace(&object::<Pod>(pod.clone()), requested);
    assert_eq!(grace(&pod(), None), Some(0));
    let bound = with(&pod(), "/spec/nodeName", json!("n"));
    assert_eq!(grace(&bound, None), Some(30));
    assert_eq!(grace(&bound, Some(5)), Some(5));
    assert_eq!(grace(&bound, Some(0)), Some(0));
    assert_eq!(grace(&bound, Some(-1)), Some(1));
    let own = with(&bound, "/spec/terminationGracePeriodSeconds", json!(7));
    assert_eq!(grace(&own, None), Some(7));
    assert_eq!(grace(&with(&own, "/status", json!({"phase": "Succeeded"})), None), Some(0));
}

#[test]
fn selectable_fields_are_known() {
    let fields =
        PodStrategy.selectable_fields(&created(&PodStrategy, with(&pod(), "/spec/nodeName", json!("n"))));
    assert!(
        fields.contains(&("spec.nodeName", "n".into()))
            && fields.contains(&("status.phase", "Pending".into()))
    );
    assert!(fields.contains(&("spec.hostNetwork", "false".into())));
}

// ---- rows ----

fn status(container: Value) -> Value {
    let mut full = json!({"name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 0});
    full.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    full
}

/// The READY, STATUS and RESTARTS of a pod with one container and this status.
#[track_caller]
fn shown(pod_status: Value, expected: [&str; 3]) {
    let document = with(&pod(), "/status", pod_status);
    shown_of(document, expected);
}

#[track_caller]
fn shown_of(document: Value, expected: [&str; 3]) {
    let cells = PodStrategy.row(&object::<Pod>(document), crate::registry::testing::now());
    assert_eq!([&cells[1], &cells[2], &cells[3]], expected.map(Value::from).each_ref());
}

#[test]
fn a_running_pod_is_shown_with_its_node_and_address() {
    let document = json!({
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:04:30Z"},
        "spec": {"nodeName": "node-1", "readinessGates": [{"conditionType": "a.b/c"}], "containers": [{"name": "web"}, {"name": "log"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.244.0.5"}], "conditions": [{"type": "a.b/c", "status": "True"}],
            "containerStatuses": [
                status(json!({"ready": true, "restartCount": 3, "state": {"running": {}},
                    "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:05:00Z"}}})),
                status(json!({"name": "log", "state": {"running": {}}}))]}});
    row(
        &PodStrategy,
        document,
        &["web", "1/2", "Running", "3 (5m ago)", "5m30s", "10.244.0.5", "node-1", "<none>", "1/1"],
    );
}

#[test]
fn a_pending_pod_shows_what_it_waits_for() {
    shown(json!({"phase": "Pending"}), ["0/1", "Pending", "0"]);
    shown(
        json!({"phase": "Pending", "containerStatuses": [status(json!({"state": {"waiting": {"reason": "ImagePullBackOff"}}}))]}),
        ["0/1", "ImagePullBackOff", "0"],
    );
    shown(
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
        ["0/1", "SchedulingGated", "0"],
    );
}

#[test]
fn a_crashing_pod_shows_how() {
    shown(
        json!({"phase": "Running", "containerStatuses": [status(json!({"restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}))]}),
        ["0/1", "CrashLoopBackOff", "2"],
    );
    shown(
        json!({"phase": "Running", "containerStatuses": [status(json!({"state": {"terminated": {"exitCode": 2}}}))]}),
        ["0/1", "ExitCode:2", "0"],
    );
    shown(
        json!({"phase": "Running", "containerStatuses": [status(json!({"state": {"terminated": {"exitCode": 0, "signal": 9}}}))]}),
        ["0/1", "Signal:9", "0"],
    );
    shown(json!({"phase": "Failed", "reason": "Evicted"}), ["0/1", "Evicted", "0"]);
}

#[test]
fn a_completed_pod_is_completed_unless_something_still_runs() {
    let completed = status(json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}));
    let running = status(json!({"ready": true, "state": {"running": {}}}));
    shown(json!({"phase": "Succeeded", "containerStatuses": [completed]}), ["0/1", "Completed", "0"]);
    let both = |conditions: Value| json!({"phase": "Running", "conditions": conditions, "containerStatuses": [completed, running]});
    shown(both(json!([])), ["1/1", "NotReady", "0"]);
    shown(both(json!([{"type": "Ready", "status": "True"}])), ["1/1", "Running", "0"]);
}

#[test]
fn an_initializing_pod_shows_how_far_it_is() {
    let two = with(&pod(), "/spec/initContainers", json!([{"name": "a"}, {"name": "b"}]));
    let of = |statuses: Value| {
        with(&two, "/status", json!({"phase": "Pending", "initContainerStatuses": statuses}))
    };
    let done = status(json!({"name": "a", "state": {"terminated": {"exitCode": 0}}}));
    shown_of(
        of(json!([done, status(json!({"name": "b", "state": {"running": {}}}))])),
        ["0/1", "Init:1/2", "0"],
    );
    shown_of(
        of(json!([
            done,
            status(json!({"name": "b", "restartCount": 1, "state": {"terminated": {"exitCode": 3}}}))
        ])),
        ["0/1", "Init:ExitCode:3", "1"],
    );
    shown_of(
        of(json!([done, status(json!({"name": "b", "state": {"waiting": {"reason": "ErrImagePull"}}}))])),
        ["0/1", "Init:ErrImagePull", "0"],
    );
    shown_of(
        of(json!([status(json!({"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}}))])),
        ["0/1", "Init:0/2", "0"],
    );
}

#[test]
fn a_sidecar_counts_among_the_containers() {
    let document = with(&pod(), "/spec/initContainers", json!([{"name": "side", "restartPolicy": "Always"}]));
    let document = with(
        &document,
        "/status",
        json!({"phase": "Running",
            "initContainerStatuses": [status(json!({"name": "side", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}}))],
            "containerStatuses": [status(json!({"ready": true, "restartCount": 1, "state": {"running": {}}}))]}),
    );
    shown_of(document, ["2/2", "Running", "2"]);
}

#[test]
fn a_deleted_pod_is_terminating_or_unknown() {
    let deleting = with(&pod(), "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    shown_of(with(&deleting, "/status", json!({"phase": "Running"})), ["0/1", "Terminating", "0"]);
    shown_of(
        with(&deleting, "/status", json!({"phase": "Running", "reason": "NodeLost"})),
        ["0/1", "Unknown", "0"],
    );
    shown_of(with(&deleting, "/status", json!({"phase": "Succeeded"})), ["0/1", "Succeeded", "0"]);
}

#[test]
fn a_full_pod_is_valid() {
    valid(
        &PodStrategy,
        json!({"spec": {"containers": [{"name": "web", "image": "nginx:1", "command": ["a"], "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
            "volumeMounts": [{"name": "p", "mountPath": "/p", "readOnly": true}],
            "readinessProbe": {"tcpSocket": {"port": "http"}, "initialDelaySeconds": 0},
            "resources": {"requests": {"cpu": 1, "memory": "64Mi"}, "limits": {"cpu": "2"}},
            "securityContext": {"runAsUser": 0, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}}],
            "nodeSelector": {"kubernetes.io/os": "linux"}, "hostname": "web", "subdomain": "x",
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}],
            "hostAliases": [{"ip": "127.0.0.1", "hostnames": ["a.local"]}],
            "volumes": [{"name": "p", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}},
                {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}]}}),
    );
}
