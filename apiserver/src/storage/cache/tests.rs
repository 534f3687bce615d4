use std::collections::BTreeMap;

use api::selector::{FieldSelector, Selector};

use super::super::encoding;
use super::super::window::MAX_EVENTS;
use super::*;
use serde_json::json;

fn stored(name: &str, labels: &[(&str, &str)]) -> Vec<u8> {
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n", "labels": labels}});
    encoding::encode(&api::Object::new(object).expect("a map")).to_vec()
}

fn cache() -> (Arc<Cache>, watch::Sender<i64>) {
    let (sender, receiver) = watch::channel(10);
    let kind = Kind::find("", "ConfigMap").expect("a kind");
    let cache = Cache::new("/registry", kind, receiver);
    cache.reset(Vec::new(), 10);
    (Arc::new(cache), sender)
}

fn put(cache: &Cache, key: &str, labels: &[(&str, &str)], revision: i64) {
    let value = stored(api::meta::split_key(key).1, labels);
    cache.apply(std::iter::once((key, Some(value.as_slice()), revision)));
}

fn delete(cache: &Cache, key: &str, revision: i64) {
    cache.apply(std::iter::once((key, None, revision)));
}

fn labelled(selector: &str) -> Filter {
    Filter { labels: Selector::parse(selector).expect("a selector"), ..Filter::default() }
}

#[track_caller]
fn check(watcher: &mut Watcher, wanted: &[&str]) {
    let (changes, _) = watcher.poll(1 << 20).expect("in the window");
    let seen: Vec<_> = changes
        .iter()
        .map(|c| {
            let object = api::Object::parse(&c.entry().json).expect("JSON");
            assert_eq!(object.resource_version(), c.entry().revision.to_string());
            format!("{} {} @{}", c.type_(), c.entry().key, c.entry().revision)
        })
        .collect();
    assert_eq!(seen, wanted);
}

#[test]
fn a_selector_turns_changes_into_coming_and_going() {
    let (cache, _revision) = cache();
    let mut all = cache.watch_after(Filter::default(), 10).expect("in the window");
    let mut red = cache.watch_after(labelled("color=red"), 10).expect("in the window");
    put(&cache, "n/a", &[("color", "blue")], 11);
    put(&cache, "n/a", &[("color", "red")], 12);
    put(&cache, "n/a", &[("color", "red"), ("size", "1")], 13);
    put(&cache, "n/a", &[("color", "blue")], 14);
    delete(&cache, "n/a", 15);
    check(
        &mut all,
        &["ADDED n/a @11", "MODIFIED n/a @12", "MODIFIED n/a @13", "MODIFIED n/a @14", "DELETED n/a @15"],
    );
    check(&mut red, &["ADDED n/a @12", "MODIFIED n/a @13", "DELETED n/a @14"]);
    check(&mut red, &[]);
}

#[test]
fn a_watch_resumes_from_any_version_in_the_window() {
    let (cache, _revision) = cache();
    for (i, key) in ["n/a", "n/b", "n/c"].iter().enumerate() {
        put(&cache, key, &[], 11 + i as i64);
    }
    check(
        &mut cache.watch_after(Filter::default(), 11).expect("in the window"),
        &["ADDED n/b @12", "ADDED n/c @13"],
    );
    check(&mut cache.watch_after(Filter::default(), 13).expect("in the window"), &[]);
    assert!(cache.watch_after(Filter::default(), 9).is_err());
}

#[test]
fn a_reset_expires_every_watcher() {
    let (cache, _revision) = cache();
    let mut watcher = cache.watch_after(Filter::default(), 10).expect("in the window");
    cache.reset(Vec::new(), 20);
    assert_eq!(watcher.poll(1).map(drop), Err(Expired));
    assert!(cache.watch_after(Filter::default(), 20).is_ok());
    assert!(cache.watch_after(Filter::default(), 19).is_err());
}

#[test]
fn a_full_window_drops_its_oldest_events_and_expires_who_needs_them() {
    let (cache, _revision) = cache();
    let mut slow = cache.watch_after(Filter::default(), 10).expect("in the window");
    for i in 0..MAX_EVENTS as i64 + 10 {
        put(&cache, "n/a", &[], 11 + i);
    }
    assert_eq!(slow.poll(1).map(drop), Err(Expired));
    assert!(cache.watch_after(Filter::default(), 20).is_ok());
    assert!(cache.watch_after(Filter::default(), 19).is_err());
}

#[test]
fn lists_are_cut_and_continued_within_their_namespace() {
    let (cache, revision) = cache();
    for (i, key) in ["m/a", "n/a", "n/b", "n/c", "n0/a"].iter().enumerate() {
        put(&cache, key, &[], 11 + i as i64);
    }
    let known = version::end(99);
    revision.send_replace(known);
    let filter = Filter { namespace: "n".into(), ..Filter::default() };
    let keys = |l: &Listing| l.entries.iter().map(|e| e.key.to_string()).collect::<Vec<_>>();
    let first = cache.list(&filter, 2, "");
    assert_eq!(
        (keys(&first), first.more, first.remaining),
        (vec!["n/a".into(), "n/b".into()], true, Some(1))
    );
    assert_eq!(first.revision, known);
    let rest = cache.list(&filter, 2, "n/b");
    assert_eq!((keys(&rest), rest.more), (vec!["n/c".into()], false));
    assert!(cache.list(&filter, 2, "zzz").entries.is_empty());
    assert_eq!(keys(&cache.list(&filter, 0, "a")).len(), 3);
    assert_eq!(cache.list(&Filter::default(), 0, "").entries.len(), 5);
    let by_name = Filter { fields: FieldSelector::equal("metadata.name", "a"), ..Filter::default() };
    assert_eq!(keys(&cache.list(&by_name, 0, "")), ["m/a", "n/a", "n0/a"]);
}

#[tokio::test]
async fn a_watcher_wakes_for_what_is_new() {
    let (cache, _revision) = cache();
    let mut watcher = cache.watch_after(Filter::default(), 10).expect("in the window");
    put(&cache, "n/a", &[], 11);
    watcher.changed().await;
    check(&mut watcher, &["ADDED n/a @11"]);
}
