//! What clients read from OpenAPI.

use futures::FutureExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;

fn built_in() -> Vec<&'static Kind> {
    KINDS.iter().collect()
}

fn get(path: &str, accept: &str) -> Option<(StatusCode, Value)> {
    let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
    let response = serve(&request, &[])?;
    let status = response.status();
    let bytes = response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
    Some((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}

#[test]
fn the_index_names_a_document_per_group_and_version() {
    let index = get("/openapi/v3", "application/json").unwrap().1;
    let paths = index["paths"].as_object().unwrap();
    let wanted: std::collections::BTreeSet<_> = KINDS.iter().map(base).collect();
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
    let apps = v3(&built_in(), "apis/apps/v1");
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    let names: Vec<_> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
}

#[test]
fn schemas_tell_how_their_lists_merge() {
    let core = v3(&built_in(), "api/v1");
    let schemas = &core["components"]["schemas"];
    assert_eq!(
        schemas["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["items"], json!({"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}));
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert!(
        containers["description"].as_str().unwrap().starts_with("List of containers belonging to the pod.")
    );
    assert_eq!(schemas["io.k8s.api.core.v1.Container"]["required"], json!(["name"]));
    let arguments = &schemas["io.k8s.api.core.v1.Container"]["properties"]["args"];
    assert_eq!(arguments["x-kubernetes-list-type"], "atomic");
    let protocol = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"];
    assert_eq!(protocol["default"], "TCP");
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    let apps = v3(&built_in(), "apis/apps/v1");
    let strategy =
        &apps["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy");
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
}

#[test]
fn protocol_buffers_are_there_in_the_second_version_alone() {
    let kind = |path: &str, accept: &str| {
        let response =
            serve(&Request::get(path).header("accept", accept).body(Body::empty()).unwrap(), &[]).unwrap();
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

#[test]
fn every_kind_of_the_table_is_described() {
    let definitions = v2(&built_in())["definitions"].clone();
    for kind in KINDS {
        let own = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let found = definitions.as_object().unwrap().values().find(|schema| {
            schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|list| list.contains(&own))
        });
        let found = found.unwrap_or_else(|| panic!("{own} has no definition"));
        assert!(
            found["description"].is_string() && found["properties"].is_object(),
            "{own} is not collected"
        );
    }
}

#[test]
fn what_is_asked_for_by_its_hash_never_changes() {
    let index = get("/openapi/v3", "application/json").unwrap().1;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let ask = |url: &str, header: (&str, &str)| {
        serve(&Request::get(url).header(header.0, header.1).body(Body::empty()).unwrap(), &[]).unwrap()
    };
    let response = ask(&url, ("accept-encoding", "gzip"));
    assert_eq!(response.headers()[CACHE_CONTROL], "public, immutable");
    assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
    let tag = response.headers()[ETAG].to_str().unwrap().to_owned();
    assert_eq!(ask(&url, ("if-none-match", &tag)).status(), StatusCode::NOT_MODIFIED);
    let old = ask("/openapi/v3/apis/apps/v1?hash=0123", ("accept", "*/*"));
    assert_eq!(
        (old.status(), old.headers()[LOCATION].to_str().unwrap()),
        (StatusCode::MOVED_PERMANENTLY, url.as_str())
    );
}

fn widget(properties: Value) -> Vec<&'static Kind> {
    let definition = json!({"metadata": {"name": "widgets.example.org"}, "spec": {
        "group": "example.org", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "description": "A widget.",
                "properties": {"spec": {"type": "object", "properties": properties}}}}}]}});
    crate::custom::rows::of(&serde_json::from_value(definition).expect("a definition"))
}

#[test]
fn custom_kinds_are_described_by_their_schemas() {
    let path = "/openapi/v3/apis/example.org/v1";
    let ask = |kinds: &[&'static Kind], path: &str| {
        let response = serve(&Request::get(path).body(Body::empty()).unwrap(), kinds)?;
        let tag = response.headers()[ETAG].to_str().unwrap().to_owned();
        let bytes = response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        Some((tag, serde_json::from_slice::<Value>(&bytes).unwrap_or_default()))
    };
    assert!(ask(&[], path).is_none());
    let size = json!({"type": "integer", "description": "How large it is.", "nullable": true});
    let kinds = widget(json!({"size": size}));
    let (tag, document) = ask(&kinds, path).unwrap();
    let own = &document["components"]["schemas"]["org.example.v1.Widget"];
    assert_eq!(
        own["x-kubernetes-group-version-kind"],
        json!([{"group": "example.org", "version": "v1", "kind": "Widget"}])
    );
    assert_eq!(own["properties"]["spec"]["properties"]["size"], size);
    assert!(own["properties"]["apiVersion"]["description"].is_string());
    let meta = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    assert!(own["properties"]["metadata"].to_string().contains(meta), "{own}");
    let list = &document["components"]["schemas"]["org.example.v1.WidgetList"];
    assert_eq!(list["properties"]["items"]["items"]["$ref"], "#/components/schemas/org.example.v1.Widget");
    let patch = &document["paths"]["/apis/example.org/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
    let (_, v2) = ask(&kinds, "/openapi/v2").unwrap();
    let own = &v2["definitions"]["org.example.v1.Widget"];
    assert_eq!(own["properties"]["spec"]["properties"]["size"], json!({"description": "How large it is."}));
    // Another schema is another document, here and in the index, and the document of another group stays.
    let changed = widget(json!({"size": {"type": "string"}}));
    assert_ne!(ask(&changed, path).unwrap().0, tag);
    let hash = |kinds: &[&'static Kind], group: &str| {
        ask(kinds, "/openapi/v3").unwrap().1["paths"][group]["serverRelativeURL"].clone()
    };
    assert_ne!(hash(&kinds, "apis/example.org/v1"), hash(&changed, "apis/example.org/v1"));
    assert_eq!(hash(&kinds, "apis/apps/v1"), hash(&changed, "apis/apps/v1"));
}
