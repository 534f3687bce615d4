//! Mutated objects thrown at every endpoint: never a 5xx, never a panic.

use api::Kind;
use http::Method;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::samples::{collection, named, sample, stored};
use crate::support::{Http, Server, block_on};

/// A change at one place of a document.
#[derive(Clone, Debug)]
enum Mutation {
    Remove,
    Replace(Value),
    Wrap,
    Duplicate,
}

fn odd_values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("")),
        Just(json!("-1")),
        Just(json!("a".repeat(300))),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null, {}, [], 1, "x"])),
        Just(json!({"a": null, "": {"b": [1]}})),
        Just(json!(i64::MIN)),
        Just(json!(u64::MAX)),
        Just(json!(1e308)),
        Just(json!("2026-13-45T99:99:99Z")),
        Just(json!("10.96.0.1")),
        Just(json!("1e999999999999")),
    ]
}

fn mutations() -> impl Strategy<Value = Vec<(usize, Mutation)>> {
    let one = prop_oneof![
        Just(Mutation::Remove),
        odd_values().prop_map(Mutation::Replace),
        odd_values().prop_map(Mutation::Replace),
        Just(Mutation::Wrap),
        Just(Mutation::Duplicate),
    ];
    prop::collection::vec((any::<usize>(), one), 1..4)
}

/// Every place in a document.
fn places(value: &Value, at: String, out: &mut Vec<String>) {
    out.push(at.clone());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                places(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                places(value, format!("{at}/{i}"), out);
            }
        }
        _ => {}
    }
}

fn mutate(mut document: Value, mutations: &[(usize, Mutation)]) -> Value {
    for (choice, mutation) in mutations {
        let mut all = Vec::new();
        places(&document, String::new(), &mut all);
        let Some(place) = document.pointer_mut(&all[choice % all.len()]) else { continue };
        match mutation {
            Mutation::Remove => *place = Value::Null,
            Mutation::Replace(value) => *place = value.clone(),
            Mutation::Wrap => *place = json!([place.clone()]),
            Mutation::Duplicate => *place = json!([place.clone(), place.clone()]),
        }
    }
    document
}

/// Both groups of Event share their names.
fn target(kind: &Kind) -> String {
    format!("target-{}-{}", kind.group.len(), kind.version)
}

async fn never_fails(http: &Http, method: &str, path: &str, media: &str, body: &Value) {
    let (code, answer) = http.call(method.parse::<Method>().unwrap(), path, media, body.to_string()).await;
    assert!(code < 500, "{method} {path} {media}\n{body}\n{code} {answer}");
}

async fn throw(http: &Http, kind: &Kind, mutations: &[(usize, Mutation)], patch: &Value) {
    let (at, name) = (collection(kind), target(kind));
    let name = name.as_str();
    let one = format!("{at}/{}", named(kind, name));
    let document = mutate(sample(kind, name), mutations);
    never_fails(http, "POST", &at, "application/json", &mutate(sample(kind, "fuzz"), mutations)).await;
    never_fails(http, "PUT", &one, "application/json", &document).await;
    for media in ["merge", "strategic-merge", "json"] {
        let media = format!("application/{media}-patch+json");
        never_fails(http, "PATCH", &one, &media, &document).await;
        never_fails(http, "PATCH", &one, &media, patch).await;
    }
    for sub in kind.subresources.iter().map(|s| s.path()) {
        if matches!(sub, "log" | "exec" | "attach" | "portforward" | "proxy") {
            continue;
        }
        let at = format!("{one}/{sub}");
        never_fails(http, "PUT", &at, "application/json", &document).await;
        never_fails(http, "POST", &at, "application/json", &document).await;
        never_fails(http, "PATCH", &at, "application/merge-patch+json", &document).await;
        never_fails(http, "PATCH", &at, "application/strategic-merge-patch+json", patch).await;
    }
    never_fails(http, "DELETE", &one, "application/json", patch).await;
    never_fails(
        http,
        "DELETE",
        &format!("{at}/{}", named(kind, "fuzz")),
        "application/json",
        &json!({"gracePeriodSeconds": 0}),
    )
    .await;
    // What the mutations brought about can be read again.
    never_fails(http, "GET", &one, "", &Value::Null).await;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let shown = http.try_call(Method::GET, &at, "", "".into(), &table).await.unwrap();
    assert_eq!(shown.0, 200);
    // The target stays, for the next round.
    let (code, answer) = http.post(&at, &sample(kind, name)).await;
    assert!(matches!(code, 201 | 409), "{answer}");
}

#[test]
fn no_document_makes_the_server_fail() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        for kind in stored() {
            http.create(&collection(kind), sample(kind, &target(kind))).await;
        }
        let rounds: usize = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        for _ in 0..rounds {
            for kind in stored() {
                let mutations = mutations().new_tree(&mut runner).unwrap().current();
                let patch = odd_values().new_tree(&mut runner).unwrap().current();
                throw(&http, kind, &mutations, &patch).await;
            }
        }
        assert_eq!(http.get("/readyz").await.0, 200);
    });
}
