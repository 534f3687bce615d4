//! What clients read from OpenAPI.

use futures::FutureExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;

fn get(path: &str, accept: &str) -> Option<(StatusCode, Value)> {
    let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
    let response = serve(&request)?;
    let status = response.status();
    let bytes = response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
    Some((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}

#[test]
fn the_index_names_a_document_per_group_and_version() {
    let index = get("/openapi/v3", "application/json").unwrap().1;
    let paths = index["paths"].as_object().unwrap();
    let wanted: std::collections::BTreeSet<_> = KINDS.iter().map(|k| base(k.group, k.version)).collect();
    assert_eq!(paths.keys().cloned().collect::<std::collections::BTreeSet<_>>(), wanted);
    assert!(wanted.contains("api/v1") && wanted.contains("apis/apps/v1"));
    for entry in paths.values() {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        let (status, document) = get(url, "application/json").unwrap();
        assert_eq!((status, &document["openapi"]), (StatusCode::OK, &json!("3.0.0")), "{url}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                    let pointer = target.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{target}");
                }
                map.values().for_each(|v| walk(v, document));
            }
            Value::Array(list) => list.iter().for_each(|v| walk(v, document)),
            _ => {}
        }
    }
    for path in ["/openapi/v2", "/openapi/v3/api/v1", "/openapi/v3/apis/apps/v1"] {
        let document = get(path, "*/*").unwrap().1;
        walk(&document, &document);
    }
}

#[test]
fn a_patch_takes_its_parameters_and_its_three_forms() {
    let apps = v3("apps", "v1");
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    let names: Vec<_> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation"]);
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
}

#[test]
fn schemas_tell_how_their_lists_merge() {
    let core = v3("", "v1");
    let schemas = &core["components"]["schemas"];
    assert_eq!(
        schemas["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert_eq!(
        schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"],
        json!({"type": "array", "items": {"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"},
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"})
    );
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    let apps = v3("apps", "v1");
    let strategy =
        &apps["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy");
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
}

#[test]
fn protocol_buffers_are_there_in_the_second_version_alone() {
    let kind = |path: &str, accept: &str| {
        let response =
            serve(&Request::get(path).header("accept", accept).body(Body::empty()).unwrap()).unwrap();
        let kind = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        (response.status(), kind)
    };
    let pb = protobuf::ASKED[0];
    for asked in protobuf::ASKED {
        assert_eq!(kind("/openapi/v2", asked), (StatusCode::OK, protobuf::MEDIA_TYPE.to_owned()));
    }
    assert_eq!(kind("/openapi/v2", &format!("{pb}, application/json")).1, protobuf::MEDIA_TYPE);
    assert_eq!(kind("/openapi/v2", &format!("application/json, {pb}")).1, "application/json");
    assert_eq!(kind("/openapi/v3", pb).0, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(kind("/openapi/v2", "text/html").0, StatusCode::NOT_ACCEPTABLE);
    assert!(get("/openapi/v4", "*/*").is_none() && get("/openapi/v3/apis/none/v1", "*/*").is_none());
}
