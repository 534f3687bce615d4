//! What is done to an object on its way in: parsing, patches, selectors.
//!
//! `cargo bench -p api`

use api::patch::{json_patch, merge_patch, strategic_merge};
use api::selector::Selector;
use api::{Kind, Object};
use divan::Bencher;
use divan::counter::BytesCount;
use serde_json::{Value, json};

fn main() {
    divan::main();
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": (0..5).map(|i| json!({
                    "name": format!("c{i}"), "image": "registry.example/app:1",
                    "env": (0..10).map(|i| json!({"name": format!("KEY_{i}"), "value": "x"})).collect::<Vec<_>>(),
                })).collect::<Vec<_>>()},
            },
        },
    })
}

#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let text = deployment().to_string();
    bencher.counter(BytesCount::of_str(&text)).bench(|| Object::parse(text.as_bytes()));
}

/// The typed decode that refuses wrong types.
#[divan::bench]
fn normalize(bencher: Bencher<'_, '_>) {
    let kind = Kind::find("apps", "Deployment").expect("a kind");
    bencher.with_inputs(deployment).bench_values(|document| (kind.normalize)(document));
}

#[divan::bench]
fn patch_json(bencher: Bencher<'_, '_>) {
    let patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 5}]);
    let current = deployment();
    bencher.bench(|| json_patch(&current, &patch));
}

#[divan::bench]
fn patch_merge(bencher: Bencher<'_, '_>) {
    let patch = json!({"spec": {"replicas": 5}, "metadata": {"labels": {"tier": "front"}}});
    let current = deployment();
    bencher.bench(|| merge_patch(&current, &patch));
}

#[divan::bench]
fn patch_strategic(bencher: Bencher<'_, '_>) {
    let kind = Kind::find("apps", "Deployment").expect("a kind");
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c3", "image": "other:2"}]}}}});
    let current = deployment();
    bencher.bench(|| strategic_merge(kind, &current, &patch));
}

#[divan::bench(args = ["app=web", "app in (web,db),tier notin (back),!old,size>3"])]
fn parse_a_selector(selector: &str) -> bool {
    Selector::parse(divan::black_box(selector)).is_ok()
}
