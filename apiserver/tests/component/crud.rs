//! Every kind through every verb, over REST and over gRPC.

use api::{Kind, Object};
use client::{ListParams, Patch};
use serde_json::{Value, json};

use crate::samples::{collection, named, sample, settled, stored};
use crate::support::{Http, Server, block_on, text};

fn zero_grace() -> &'static str {
    r#"{"gracePeriodSeconds": 0}"#
}

/// Kinds whose objects go only when somebody has cleaned up after them.
fn goes_slowly(kind: &Kind) -> bool {
    matches!(kind.kind, "Namespace" | "CustomResourceDefinition")
}

async fn rest(http: &Http, kind: &Kind) {
    let at = collection(kind);
    let own = "crud-rest";
    let name = &named(kind, own);
    let one = format!("{at}/{name}");
    let created = http.create(&at, sample(kind, own)).await;
    let created = settled(http, kind, &one, created).await;
    assert_eq!(text(&created, "/kind"), kind.kind);
    assert_eq!(text(&created, "/apiVersion"), kind.api_version);
    assert!(
        !text(&created, "/metadata/uid").is_empty()
            && !text(&created, "/metadata/creationTimestamp").is_empty()
    );
    let (code, error) = http.post(&at, &sample(kind, own)).await;
    assert_eq!((code, text(&error, "/reason")), (409, "AlreadyExists"), "{error}");
    let (code, got) = http.get(&one).await;
    assert_eq!((code, &got), (200, &created), "{}", kind.kind);
    let (code, list) = http.get(&format!("{at}?labelSelector=sample%3Dyes")).await;
    assert_eq!((code, text(&list, "/kind")), (200, kind.list_kind));
    assert_eq!(
        list["items"].as_array().map(|i| i.iter().filter(|o| text(o, "/metadata/name") == name).count()),
        Some(1)
    );
    // A no-op update writes nothing.
    let (code, same) = http.put(&one, &got).await;
    assert_eq!((code, &same), (200, &got), "{}", kind.kind);
    let mut changed = got.clone();
    changed["metadata"]["labels"]["more"] = "1".into();
    let (code, updated) = http.put(&one, &changed).await;
    assert_eq!(code, 200, "{updated}");
    assert_ne!(updated["metadata"]["resourceVersion"], got["metadata"]["resourceVersion"]);
    let (code, error) = http.put(&one, &changed).await;
    assert_eq!((code, text(&error, "/reason")), (409, "Conflict"), "{error}");
    assert!(text(&error, "/message").contains("the object has been modified"), "{error}");
    for (type_, patch, wanted) in [
        ("merge", json!({"metadata": {"labels": {"more": "2"}}}), "2"),
        ("strategic-merge", json!({"metadata": {"labels": {"more": "3"}}}), "3"),
        ("json", json!([{"op": "replace", "path": "/metadata/labels/more", "value": "4"}]), "4"),
    ] {
        let (code, patched) = http.patch(&one, type_, &patch).await;
        assert_eq!((code, text(&patched, "/metadata/labels/more")), (200, wanted), "{type_} {patched}");
    }
    let (code, gone) = http.delete(&one, zero_grace()).await;
    assert_eq!(code, 200, "{gone}");
    if !goes_slowly(kind) {
        assert_eq!(text(&gone, "/status"), "Success", "{gone}");
        assert_eq!(http.get(&one).await.0, 404);
        let (code, error) = http.delete(&one, zero_grace()).await;
        assert_eq!((code, text(&error, "/reason")), (404, "NotFound"));
    }
}

#[test]
fn every_kind_is_created_read_changed_and_deleted_over_rest() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        for kind in stored() {
            rest(&http, kind).await;
        }
        server.stop().await;
    });
}

async fn grpc(client: &client::Client, http: &Http, kind: &'static Kind) {
    let namespace = if kind.namespaced { "default" } else { "" };
    let api = client.dynamic(kind, namespace);
    let name = &named(kind, "crud-grpc");
    let object = Object::new(sample(kind, "crud-grpc")).unwrap();
    let created = api.create(&object).await.unwrap_or_else(|e| panic!("{}: {e}", kind.kind));
    let path = format!("{}/{name}", collection(kind));
    let created = Object::new(settled(http, kind, &path, created.into_value()).await).unwrap();
    assert_eq!((created.kind(), created.name()), (kind.kind, name.as_str()));
    assert!(api.create(&object).await.expect_err("it exists").is_already_exists());
    assert_eq!(api.get(name).await.unwrap(), created);
    let list = api.list(&ListParams::labels("sample=yes")).await.unwrap();
    assert!(list.items.iter().any(|o| o.name() == name));
    let mut changed = created.clone();
    changed.meta_mut().insert("labels".into(), json!({"more": "1"}));
    let updated = api.update(&changed).await.unwrap();
    assert_ne!(updated.resource_version(), created.resource_version());
    assert!(api.update(&changed).await.expect_err("it is stale").is_conflict());
    let patched =
        api.patch(name, &Patch::Merge(json!({"metadata": {"labels": {"more": "2"}}}))).await.unwrap();
    assert_eq!(patched.labels()["more"], "2");
    let options = serde_json::from_value(json!({"gracePeriodSeconds": 0})).unwrap();
    let gone = api.delete(name, &options).await.unwrap();
    if !goes_slowly(kind) {
        assert!(gone);
        assert!(api.get_opt(name).await.unwrap().is_none());
    }
}

#[test]
fn every_kind_is_created_read_changed_and_deleted_over_grpc() {
    block_on(async {
        let server = Server::start().await;
        let client = server.grpc("admin");
        for kind in stored() {
            grpc(&client, &server.http("admin"), kind).await;
        }
        server.stop().await;
    });
}

#[test]
fn both_groups_of_events_are_one() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let core = Kind::find("", "Event").unwrap();
        let view = Kind::find("events.k8s.io", "Event").unwrap();
        http.create(&collection(core), sample(core, "a")).await;
        http.create(&collection(view), sample(view, "b")).await;
        let (_, a) = http.get(&format!("{}/a", collection(view))).await;
        assert_eq!((text(&a, "/note"), text(&a, "/regarding/name")), ("m", "p"), "{a}");
        let (_, b) = http.get(&format!("{}/b", collection(core))).await;
        assert_eq!((text(&b, "/message"), text(&b, "/involvedObject/name")), ("m", "p"), "{b}");
        let (_, list) = http.get(&format!("{}?fieldSelector=regarding.name%3Dp", collection(view))).await;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "{list}");
        let patch = json!({"note": "n"});
        let (code, patched) = http.patch(&format!("{}/a", collection(view)), "merge", &patch).await;
        assert_eq!((code, text(&patched, "/note")), (200, "n"), "{patched}");
        let mut events =
            http.watch(&format!("{}?watch=1&resourceVersion=0", collection(view))).await.unwrap();
        let event = events.next().await.unwrap();
        assert_eq!(text(&event, "/object/apiVersion"), "events.k8s.io/v1");
    });
}

#[test]
fn tables_and_metadata_are_shown_on_demand() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        for kind in stored() {
            let name = format!("shown-{}-{}", kind.group.len(), kind.version);
            http.create(&collection(kind), sample(kind, &name)).await;
            let name = named(kind, &name);
            let accept = |a: &'static str| [("accept", a)];
            let ask = |path: String, a: &'static str| {
                let http = http.clone();
                async move {
                    let (code, body) =
                        http.try_call(http::Method::GET, &path, "", "".into(), &accept(a)).await.unwrap();
                    assert_eq!(code, 200, "{path}");
                    serde_json::from_slice::<Value>(&body).unwrap()
                }
            };
            let table =
                ask(collection(kind), "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
            assert_eq!(text(&table, "/kind"), "Table");
            let columns = table["columnDefinitions"].as_array().map(Vec::len);
            assert_eq!(table["rows"][0]["cells"].as_array().map(Vec::len), columns, "{table}");
            assert_eq!(text(&table, "/rows/0/object/kind"), "PartialObjectMetadata");
            let one = format!("{}/{name}?includeObject=Object", collection(kind));
            let table = ask(one, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
            assert_eq!(text(&table, "/rows/0/object/kind"), kind.kind, "{table}");
            let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
            let list = ask(collection(kind), partial).await;
            assert_eq!(text(&list, "/kind"), "PartialObjectMetadataList");
            assert!(list["items"][0].get("spec").is_none());
        }
        let refused =
            http.try_call(http::Method::GET, "/api/v1/pods", "", "".into(), &[("accept", "text/html")]).await;
        assert_eq!(refused.unwrap().0, 406);
    });
}
