//! The copy against the simplest model of it: every event, kept for ever and filtered one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Kind;
use api::selector::{FieldSelector, Selector};
use proptest::prelude::*;
use serde_json::json;
use tokio::sync::watch;

use super::super::{encoding, version};
use super::Cache;
use crate::storage::{Filter, Watcher};

const KEYS: &[&str] = &["m/a", "m/b", "n/a", "n/b", "n/c", "n0/a"];
const NODES: &[&str] = &["", "n1", "n2"];
const COLORS: &[&str] = &["red", "blue"];

#[derive(Clone, Debug)]
enum Step {
    /// Objects that are written at the same revision: key, and node and color unless it is deleted.
    Write(Vec<(usize, Option<(usize, usize)>)>),
    /// A watcher that begins this many revisions ago.
    Watch(usize, i64),
    /// A watcher takes what it may have.
    Poll(usize, usize),
}

const FILTERS: &[(&str, &str, &str)] = &[
    ("", "", ""),
    ("n", "", ""),
    ("n", "", "metadata.name=a"),
    ("", "", "metadata.name=a"),
    ("", "", "spec.nodeName=n1"),
    ("n", "color=red", "spec.nodeName=n2"),
    ("", "color=red", ""),
    ("", "", "spec.nodeName="),
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = proptest::option::weighted(0.75, (0..NODES.len(), 0..COLORS.len()));
    let write = proptest::collection::vec((0..KEYS.len(), value), 1..4).prop_map(Step::Write);
    let watch = (0..FILTERS.len(), 0..6_i64).prop_map(|(filter, ago)| Step::Watch(filter, ago));
    let poll = (0..8_usize, 0..2000_usize).prop_map(|(who, budget)| Step::Poll(who, budget));
    proptest::collection::vec(prop_oneof![4 => write, 1 => watch, 2 => poll], 1..60)
}

/// (labels and node of an object, or nothing), by key
type Objects = BTreeMap<String, (usize, usize)>;

struct Model {
    /// The revision, the key, what was and what is.
    events: Vec<(i64, String, Option<(usize, usize)>, Option<(usize, usize)>)>,
    objects: Objects,
}

fn matches(filter: &Filter, key: &str, (node, color): (usize, usize)) -> bool {
    let (namespace, name) = api::meta::split_key(key);
    (filter.namespace.is_empty() || filter.namespace == namespace)
        && filter.labels.matches(&BTreeMap::from([("color".to_owned(), COLORS[color].to_owned())]))
        && filter.fields.matches(|field| match field {
            "metadata.name" => Some(name),
            "spec.nodeName" => Some(NODES[node]),
            _ => None,
        })
}

impl Model {
    /// What a watcher of a filter is told after a version.
    fn told(&self, filter: &Filter, after: i64) -> Vec<String> {
        let seen = |(at, key, old, new): &(i64, String, Option<_>, Option<_>)| {
            let shown = |value: &Option<(usize, usize)>| value.is_some_and(|v| matches(filter, key, v));
            let type_ = match (shown(old), shown(new)) {
                (false, false) => return None,
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
            };
            (*at > after).then(|| format!("{type_} {key} @{at}"))
        };
        self.events.iter().filter_map(seen).collect()
    }
}

fn filter(index: usize) -> Filter {
    let (namespace, labels, fields) = FILTERS[index];
    Filter {
        namespace: namespace.into(),
        labels: Selector::parse(labels).expect("a selector"),
        fields: FieldSelector::parse(fields).expect("a selector"),
    }
}

fn stored(key: &str, (node, color): (usize, usize)) -> Vec<u8> {
    let (namespace, name) = api::meta::split_key(key);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"color": COLORS[color]}},
        "spec": {"nodeName": NODES[node], "containers": []},
    });
    encoding::encode(&api::Object::new(pod).expect("a map")).to_vec()
}

fn drain(watcher: &mut Watcher, budget: usize, told: &mut Vec<String>) {
    let (changes, _) = watcher.poll(budget).expect("the window is large enough");
    told.extend(changes.iter().map(|c| {
        let entry = c.entry();
        assert_eq!(encoding::head(&entry.json).expect("JSON").resource_version, entry.revision.to_string());
        format!("{} {} @{}", c.type_(), entry.key, entry.revision)
    }));
}

proptest! {
    #[test]
    fn every_watcher_is_told_exactly_what_concerns_it(steps in steps()) {
        let (_known, receiver) = watch::channel(version::end(1));
        let cache = Arc::new(Cache::new("/registry", Kind::find("", "Pod").expect("a kind"), receiver));
        cache.reset(Vec::new(), version::end(1));
        let mut model = Model { events: Vec::new(), objects: Objects::new() };
        let mut watchers: Vec<(Watcher, usize, i64, Vec<String>)> = Vec::new();
        let mut revision = 1;
        for step in steps {
            match step {
                Step::Write(writes) => {
                    revision += 1;
                    let mut changes: Vec<(String, Option<Vec<u8>>, i64)> = Vec::new();
                    for (key, value) in writes {
                        let key = KEYS[key].to_owned();
                        let at = version::of(&format!("/registry/pods/{key}"), revision);
                        if changes.iter().any(|(k, _, other)| *k == key || *other == at) {
                            continue;
                        }
                        changes.push((key.clone(), value.map(|v| stored(&key, v)), at));
                        let old = match value {
                            Some(value) => model.objects.insert(key.clone(), value),
                            None => model.objects.remove(&key),
                        };
                        if old.is_some() || value.is_some() {
                            model.events.push((at, key, old, value));
                        }
                    }
                    changes.sort_by_key(|(_, _, at)| *at);
                    model.events.sort_by_key(|(at, ..)| *at);
                    cache.apply(changes.iter().map(|(k, v, at)| (k.as_str(), v.as_deref(), *at)));
                }
                Step::Watch(index, ago) => {
                    // A version in the middle of a revision is as good as any other.
                    let after = match model.events.iter().rev().nth(usize::try_from(ago).expect("small")) {
                        Some((at, ..)) => *at,
                        None => version::end(1),
                    };
                    let watcher = cache.watch_after(filter(index), after).expect("in the window");
                    watchers.push((watcher, index, after, Vec::new()));
                }
                Step::Poll(who, budget) => {
                    if let Some((watcher, _, _, told)) = watchers.get_mut(who) {
                        drain(watcher, budget, told);
                    }
                }
            }
        }
        for (watcher, index, after, told) in &mut watchers {
            drain(watcher, usize::MAX, told);
            prop_assert_eq!(&*told, &model.told(&filter(*index), *after), "filter {} after {}", index, after);
        }
        for index in 0..FILTERS.len() {
            let filter = filter(index);
            let wanted: Vec<_> = model.objects.iter().filter(|(k, v)| matches(&filter, k, **v)).map(|(k, _)| k.clone()).collect();
            let listed = cache.list(&filter, 0, "");
            let seen: Vec<_> = listed.entries.iter().map(|e| e.key.to_string()).collect();
            prop_assert_eq!(&seen, &wanted);
            let mut paged: Vec<String> = Vec::new();
            loop {
                let after = paged.last().cloned().unwrap_or_default();
                let page = cache.list(&filter, 2, &after);
                paged.extend(page.entries.iter().map(|e| e.key.to_string()));
                if !page.more {
                    break;
                }
            }
            prop_assert_eq!(&paged, &wanted);
        }
    }
}
