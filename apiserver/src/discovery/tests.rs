//! What clients read from discovery.

use futures::FutureExt;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;

fn all() -> Documents {
    Documents::new(&api::kinds::KINDS.iter().collect::<Vec<_>>(), &[])
}

fn get(path: &str, headers: &[(&str, &str)]) -> Option<(StatusCode, String, String, Value)> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = all().serve(&request.body(Body::empty()).unwrap())?;
    let header =
        |name| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let (status, kind, tag) = (response.status(), header(CONTENT_TYPE), header(ETAG));
    let bytes = response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
    Some((status, kind, tag, serde_json::from_slice(&bytes).unwrap_or_default()))
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

fn find<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|r| r[key] == name).unwrap()
}

#[test]
fn groups_and_versions_are_listed() {
    assert_eq!(get("/api", &[]).unwrap().3["versions"], json!(["v1"]));
    let groups = get("/apis/", &[]).unwrap().3;
    let names: Vec<_> =
        groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(
        names[..4],
        ["admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "apps"]
    );
    let autoscaling = get("/apis/autoscaling", &[]).unwrap().3;
    assert_eq!(autoscaling["preferredVersion"]["version"], "v2");
    assert_eq!(autoscaling["versions"][1]["version"], "v1");
    let apps = get("/apis/apps", &[]).unwrap().3;
    assert_eq!(apps["kind"], "APIGroup");
    assert_eq!(apps["preferredVersion"], json!({"groupVersion": "apps/v1", "version": "v1"}));
}

#[test]
fn resources_tell_their_names_verbs_and_parts() {
    let core = get("/api/v1", &[]).unwrap().3;
    assert_eq!(core["groupVersion"], "v1");
    assert_eq!(
        *find(&core["resources"], "name", "pods"),
        json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "shortNames": ["po"], "categories": ["all"],
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]})
    );
    assert_eq!(find(&core["resources"], "name", "componentstatuses")["verbs"], json!(["get", "list"]));
    assert_eq!(find(&core["resources"], "name", "pods/exec")["kind"], "PodExecOptions");
    assert_eq!(find(&core["resources"], "name", "pods/eviction")["group"], "policy");
    let apps = get("/apis/apps/v1", &[]).unwrap().3;
    assert_eq!(
        *find(&apps["resources"], "name", "deployments/scale"),
        json!({"name": "deployments/scale", "singularName": "", "namespaced": true, "kind": "Scale", "group": "autoscaling",
            "version": "v1", "verbs": ["get", "patch", "update"]})
    );
}

#[test]
fn the_aggregated_form_is_served_to_those_who_ask_for_it_first() {
    let (status, kind, tag, core) = get("/api", &[("accept", AGGREGATED)]).unwrap();
    assert_eq!((status, kind.as_str()), (StatusCode::OK, Version::V2.content_type()));
    let pods = find(&core["items"][0]["versions"][0]["resources"], "resource", "pods");
    assert_eq!(pods["responseKind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
    assert_eq!(find(&pods["subresources"], "subresource", "binding")["verbs"], json!(["create"]));
    let again = get("/api", &[("accept", AGGREGATED), ("if-none-match", &tag)]).unwrap();
    assert_eq!((again.0, again.3), (StatusCode::NOT_MODIFIED, Value::Null));
    let apis = get("/apis", &[("accept", AGGREGATED)]).unwrap().3;
    assert_eq!(apis["items"][3]["metadata"]["name"], "apps");
    let beta = get(
        "/apis",
        &[("accept", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList")],
    )
    .unwrap();
    assert_eq!(beta.3["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    let plain = get("/apis", &[("accept", &format!("application/json, {AGGREGATED}"))]).unwrap();
    assert_eq!(plain.3["kind"], "APIGroupList");
    assert_eq!(get("/apis/apps", &[("accept", AGGREGATED)]).unwrap().3["kind"], "APIGroup");
}

#[test]
fn nothing_else_is_answered() {
    for path in ["/", "/api/v2", "/apis/none", "/apis/apps/v2", "/version"] {
        assert!(get(path, &[]).is_none(), "{path}");
    }
    assert!(all().serve(&Request::post("/api").body(Body::empty()).unwrap()).is_none());
}
