//! ValidatingAdmissionPolicies: what CEL refuses, warns of and lets through.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Http, Server, block_on, text};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn policy(http: &Http, name: &str, resource: [&str; 2], change: Value) {
    let mut spec = json!({"matchConstraints": {"resourceRules": [{"operations": ["CREATE", "UPDATE"],
        "apiGroups": [resource[0]], "apiVersions": ["v1"], "resources": [resource[1]]}]}});
    for (field, value) in change.as_object().unwrap() {
        spec[field] = value.clone();
    }
    http.create(POLICIES, json!({"metadata": {"name": name}, "spec": spec})).await;
}

async fn bind(http: &Http, name: &str, policy: &str, change: Value) {
    let mut spec = json!({"policyName": policy, "validationActions": ["Deny"]});
    for (field, value) in change.as_object().unwrap() {
        spec[field] = value.clone();
    }
    http.create(BINDINGS, json!({"metadata": {"name": name}, "spec": spec})).await;
    assert_eq!(http.get(BINDINGS).await.0, 200);
}

fn set(name: &str, replicas: i32) -> Value {
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "template": template,
        "selector": {"matchLabels": {"a": "b"}}}})
}

#[test]
fn a_policy_refuses_what_its_rules_do_not_allow() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let rules = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [{"name": "most", "expression": "int(params.data.most)"}],
            "matchConditions": [{"name": "others", "expression": "!object.metadata.name.startsWith('free-')"}],
            "validations": [
                {"expression": "object.spec.replicas <= variables.most", "reason": "Forbidden",
                    "messageExpression": "'at most ' + string(variables.most) + ' in ' + namespaceObject.metadata.name"},
                {"expression": "oldObject == null || object.spec.replicas >= oldObject.spec.replicas"}]});
        policy(&http, "replicas", ["apps", "replicasets"], rules).await;
        // A policy without a binding says nothing.
        http.create(SETS, set("before", 9)).await;
        http.create(MAPS, json!({"metadata": {"name": "limits"}, "data": {"most": "3"}})).await;
        let params = json!({"paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}});
        bind(&http, "binding", "replicas", params).await;
        let (code, refused) = http.post(SETS, &set("web", 5)).await;
        let why = "ValidatingAdmissionPolicy 'replicas' with binding 'binding' denied request: at most 3 in default";
        assert_eq!((code, text(&refused, "/reason")), (403, "Forbidden"));
        assert_eq!(text(&refused, "/message"), format!("replicasets.apps \"web\" is forbidden: {why}"));
        assert_eq!(text(&refused, "/details/causes/0/message"), why);
        http.create(SETS, set("free-web", 5)).await;
        http.create(SETS, set("web", 3)).await;
        let fewer = json!({"spec": {"replicas": 2}});
        let (code, refused) = http.patch(&format!("{SETS}/web"), "merge", &fewer).await;
        assert_eq!((code, text(&refused, "/reason")), (422, "Invalid"));
        let why = "denied request: failed expression: oldObject == null || \
                   object.spec.replicas >= oldObject.spec.replicas";
        assert!(text(&refused, "/message").ends_with(why), "{refused}");
        assert_eq!(http.delete(&format!("{MAPS}/limits"), "").await.0, 200);
        let (_, refused) = http.post(SETS, &set("late", 1)).await;
        assert!(text(&refused, "/message").contains("no params found"), "{refused}");
        assert_eq!(http.delete(&format!("{BINDINGS}/binding"), "").await.0, 200);
        assert_eq!(http.get(BINDINGS).await.1["items"], json!([]));
        http.create(SETS, set("late", 1)).await;
        server.stop().await;
    });
}

#[test]
fn a_policy_may_warn_and_may_fail_open() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let rule = |expression: &str| json!([{"expression": expression, "message": "no data"}]);
        let maps = ["", "configmaps"];
        policy(&http, "warns", maps, json!({"validations": rule("has(object.data)")})).await;
        bind(&http, "warns", "warns", json!({"validationActions": ["Warn", "Audit"]})).await;
        let broken = rule("object.nothing.at.all == 1");
        policy(&http, "open", maps, json!({"validations": broken, "failurePolicy": "Ignore"})).await;
        bind(&http, "open", "open", json!({})).await;
        policy(&http, "closed", maps, json!({"validations": broken})).await;
        let selected = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"closed": "yes"}}}});
        bind(&http, "closed", "closed", selected).await;
        let warned = http.headers(Method::POST, MAPS, &json!({"metadata": {"name": "a"}})).await;
        let warning =
            "299 - \"Validation failed for ValidatingAdmissionPolicy 'warns' with binding 'warns': no data\"";
        assert_eq!((warned.0, warned.1.get("warning").unwrap().to_str().unwrap()), (201, warning));
        let shut = json!({"metadata": {"name": "shut", "labels": {"closed": "yes"}}});
        http.create("/api/v1/namespaces", shut).await;
        let document = json!({"metadata": {"name": "a"}, "data": {"a": "b"}});
        let (code, refused) = http.post("/api/v1/namespaces/shut/configmaps", &document).await;
        assert_eq!(code, 422, "{refused}");
        assert!(
            text(&refused, "/message").contains("expression 'object.nothing.at.all == 1' resulted in error")
        );
        let wrong = json!({"metadata": {"name": "x"}, "spec": {"validations": [{"expression": "a +"}]}});
        let (code, refused) = http.post(POLICIES, &wrong).await;
        assert_eq!(code, 422, "{refused}");
        server.stop().await;
    });
}
