//! What the API server does for every object and every event: encode, read an entry, match, dispatch.
//!
//! `cargo bench -p apiserver`

use std::sync::Arc;

use api::selector::{FieldSelector, Selector};
use api::{Kind, Object};
use apiserver::storage::entry::Layout;
use apiserver::storage::{Cache, Entry, Filter, encoding, version};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use serde_json::json;

fn main() {
    divan::main();
}

fn pods() -> &'static Kind {
    Kind::find("", "Pod").expect("a kind")
}

fn pod(i: usize, node: &str) -> Object {
    let name = format!("pod-{i:05}");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("6f1c9d9a-0000-4000-8000-{i:012}"),
            "labels": {"app": "web", "tier": if i.is_multiple_of(2) { "front" } else { "back" }},
        },
        "spec": {
            "nodeName": node, "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "containers": [{"name": "c", "image": "registry.example/app:1",
                "env": (0..10).map(|i| json!({"name": format!("KEY_{i}"), "value": "x".repeat(40)})).collect::<Vec<_>>(),
                "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}}}],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    Object::new(pod).expect("a map")
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let pod = pod(1, "n1");
    let bytes = encoding::encode(&pod).len();
    bencher.counter(BytesCount::new(bytes)).bench(|| encoding::encode(&pod));
}

/// From the store's bytes to an entry of the copy: the version is put in, labels and fields are found.
#[divan::bench]
fn read_an_entry(bencher: Bencher<'_, '_>) {
    let (layout, stored) = (Layout::of(pods()), encoding::encode(&pod(1, "n1")));
    bencher
        .counter(BytesCount::new(stored.len()))
        .bench(|| Entry::new(&layout, "default/pod-00001", &stored, 4711));
}

#[divan::bench(args = ["app=web", "app in (web,db),tier!=back", "!absent"])]
fn match_labels(bencher: Bencher<'_, '_>, selector: &str) {
    let entry = Entry::new(&Layout::of(pods()), "default/pod-00001", &encoding::encode(&pod(1, "n1")), 4711)
        .expect("an object");
    let filter = Filter { labels: Selector::parse(selector).expect("a selector"), ..Filter::default() };
    bencher.counter(ItemsCount::new(1_u8)).bench(|| filter.matches(divan::black_box(&entry)));
}

/// One event while every one of this many nodes watches its own pods: what it costs those whom it does not concern.
#[divan::bench(args = [0, 100, 5000])]
fn dispatch_among_nodes(bencher: Bencher<'_, '_>, nodes: usize) {
    let (_known, receiver) = tokio::sync::watch::channel(version::end(1));
    let cache = Arc::new(Cache::new("/registry", pods(), receiver));
    cache.reset(Vec::new(), version::end(1));
    let watcher = |i: usize| {
        let fields = FieldSelector::equal("spec.nodeName", &format!("n{i}"));
        cache.watch_after(Filter { fields, ..Filter::default() }, version::end(1)).expect("in the window")
    };
    let _watchers: Vec<_> = (0..nodes).map(watcher).collect();
    let stored = encoding::encode(&pod(1, "n1"));
    let mut revision = 1;
    bencher.counter(ItemsCount::new(1_u8)).bench_local(|| {
        revision += 1;
        cache.apply(std::iter::once(("default/pod-00001", Some(&stored[..]), version::end(revision))));
    });
}

/// A hundred events told to one watcher of everything.
#[divan::bench]
fn poll_a_hundred_events(bencher: Bencher<'_, '_>) {
    let (_known, receiver) = tokio::sync::watch::channel(version::end(1));
    let cache = Arc::new(Cache::new("/registry", pods(), receiver));
    cache.reset(Vec::new(), version::end(1));
    let stored = encoding::encode(&pod(1, "n1"));
    for i in 0..100 {
        cache.apply(std::iter::once(("default/pod-00001", Some(&stored[..]), version::end(2 + i))));
    }
    bencher
        .counter(ItemsCount::new(100_u8))
        .with_inputs(|| cache.watch_after(Filter::default(), version::end(1)).expect("in the window"))
        .bench_values(|mut watcher| watcher.poll(usize::MAX).map(|(changes, _)| changes.len()));
}

/// A list of 5,000 pods, whole, and of one node's.
#[divan::bench(args = ["", "spec.nodeName=n7"])]
fn list_of_five_thousand(bencher: Bencher<'_, '_>, fields: &str) {
    let (_known, receiver) = tokio::sync::watch::channel(version::end(1));
    let cache = Cache::new("/registry", pods(), receiver);
    let entry = |i: usize| {
        let stored = encoding::encode(&pod(i, &format!("n{}", i % 500)));
        Entry::new(&cache.layout, &format!("default/pod-{i:05}"), &stored, version::end(1)).map(Arc::new)
    };
    cache.reset((0..5000).filter_map(entry), version::end(1));
    let fields = FieldSelector::parse(fields).expect("a selector");
    let filter = Filter { namespace: "default".into(), fields, ..Filter::default() };
    bencher.bench(|| cache.list(&filter, 0, "").entries.len());
}
