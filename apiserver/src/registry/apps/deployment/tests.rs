//! Deployments: defaults, what is refused, what may change, how a row looks.

use serde_json::{Value, json};

use super::*;
use crate::registry::testing::{invalid, invalid_update, object, row, stored, updated, valid, with};

fn deployment() -> Value {
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}}}})
}

#[track_caller]
fn check(pointer: &str, value: Value, expected: &[&str]) {
    invalid(&DeploymentStrategy, with(&deployment(), pointer, value), expected);
}

#[test]
fn a_minimal_deployment_is_completed() {
    valid(&DeploymentStrategy, deployment());
    let spec = &stored(&DeploymentStrategy, deployment())["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(
        spec["template"]["spec"],
        json!({"containers": [{"name": "web", "image": "nginx:1", "imagePullPolicy": "IfNotPresent", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler", "securityContext": {},
            "terminationGracePeriodSeconds": 30})
    );
    let recreate =
        stored(&DeploymentStrategy, with(&deployment(), "/spec/strategy", json!({"type": "Recreate"})));
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn the_selector_selects_the_template() {
    check(
        "/spec/template/metadata/labels",
        json!({"app": "other"}),
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`",
        ],
    );
    check("/spec/selector", json!({}), &["spec.selector: Required value"]);
    check(
        "/spec/selector",
        json!({"matchLabels": {}}),
        &["spec.selector: Invalid value: {\"matchLabels\":{}}: empty selector is invalid for deployment"],
    );
    check(
        "/spec/selector/matchExpressions",
        json!([{"key": "app", "operator": "In"}]),
        &[
            "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ],
    );
}

#[test]
fn counts_are_not_negative() {
    check(
        "/spec/replicas",
        json!(-1),
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        "/spec/revisionHistoryLimit",
        json!(-1),
        &["spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        "/spec/minReadySeconds",
        json!(600),
        &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
    );
}

#[test]
fn a_rollout_can_move() {
    let rolling = |surge: Value, unavailable: Value| json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    const FIELD: &str = "spec.strategy.rollingUpdate.maxUnavailable";
    check(
        "/spec/strategy",
        rolling(json!(0), json!("0%")),
        &[&format!("{FIELD}: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0")],
    );
    check(
        "/spec/strategy",
        rolling(json!(1), json!("101%")),
        &[&format!("{FIELD}: Invalid value: \"101%\": must not be greater than 100%")],
    );
    check(
        "/spec/strategy",
        rolling(json!("x"), json!(-1)),
        &[
            &format!("{FIELD}: Invalid value: -1: must be greater than or equal to 0"),
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must be a numeric string followed \
             by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        ],
    );
    check("/spec/strategy", rolling(json!("200%"), json!(0)), &[]);
    check(
        "/spec/strategy",
        json!({"type": "Recreate", "rollingUpdate": {}}),
        &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
    );
    check(
        "/spec/strategy",
        json!({"type": "Canary"}),
        &[
            "spec.strategy.type: Unsupported value: \"Canary\": supported values: \"Recreate\", \"RollingUpdate\"",
        ],
    );
}

#[test]
fn the_template_is_of_pods_that_never_end() {
    check("/spec/template/spec/containers", json!([]), &["spec.template.spec.containers: Required value"]);
    check(
        "/spec/template/spec/restartPolicy",
        json!("Never"),
        &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
    );
    check(
        "/spec/template/spec/activeDeadlineSeconds",
        json!(5),
        &[
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
        ],
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let bad = with(&deployment(), "/spec/replicas", json!(-3));
    let bad = with(&bad, "/spec/template/spec/containers/0/image", json!(""));
    let bad = with(&bad, "/spec/template/metadata/labels/app", json!("other"));
    invalid(
        &DeploymentStrategy,
        bad,
        &[
            "spec.replicas: Invalid value: -3: must be greater than or equal to 0",
            "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`",
            "spec.template.spec.containers[0].image: Required value",
        ],
    );
}

#[test]
fn the_selector_is_immutable_and_the_status_not_the_clients() {
    let other = with(&deployment(), "/spec/selector/matchLabels", json!({"app": "other"}));
    let other = with(&other, "/spec/template/metadata/labels", json!({"app": "other"}));
    invalid_update(
        &DeploymentStrategy,
        deployment(),
        other,
        &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable"],
    );
    let (new, errors) =
        updated(&DeploymentStrategy, deployment(), with(&deployment(), "/status", json!({"replicas": 9})));
    assert_eq!((new.status.unwrap().replicas, errors), (None, vec![]));
}

#[test]
fn a_status_is_plausible() {
    let old: Deployment = object(deployment());
    let new: Deployment = object(with(
        &deployment(),
        "/status",
        json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": -1}),
    ));
    let errors: Vec<_> =
        DeploymentStrategy.validate_status_update(&new, &old).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "status.availableReplicas: Invalid value: -1: must be greater than or equal to 0",
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
        ]
    );
}

#[test]
fn a_row_counts_the_replicas() {
    let full = with(
        &stored(&DeploymentStrategy, deployment()),
        "/status",
        json!({"replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2}),
    );
    let full = with(&full, "/spec/replicas", json!(3));
    row(&DeploymentStrategy, full, &["web", "2/3", "1", "2", "<unknown>", "web", "nginx:1", "app=web"]);
}
