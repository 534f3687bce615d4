//! Watches and lists against the history of the store, under concurrent writers and a store that is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Events, Http, Server, block_on, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NAMES: u64 = 6;

/// One event: type, name, color, version.
type Told = (String, String, String, i64);

fn version(object: &Value) -> i64 {
    text(object, "/metadata/resourceVersion").parse().expect("a number")
}

/// Reads until the object that is written last.
async fn read(mut events: Events) -> Vec<Told> {
    let mut told = Vec::new();
    loop {
        let event = events.next().await.expect("the watch goes on");
        let object = &event["object"];
        told.push((
            text(&event, "/type").to_owned(),
            text(object, "/metadata/name").to_owned(),
            text(object, "/metadata/labels/color").to_owned(),
            version(object),
        ));
        if text(object, "/metadata/labels/last") == "yes" {
            return told;
        }
    }
}

/// What somebody sees who is shown only what `wanted` accepts.
fn narrowed(history: &[Told], wanted: impl Fn(&str, &str) -> bool) -> Vec<Told> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut told = Vec::new();
    for (type_, name, color, at) in history {
        let before = seen.get(name.as_str()).copied();
        let now = (type_ != "DELETED" && wanted(name, color)).then_some(color.as_str());
        let type_ = match (before, now) {
            (None, None) => continue,
            (None, Some(_)) => "ADDED",
            (Some(_), Some(_)) => "MODIFIED",
            (Some(_), None) => "DELETED",
        };
        // Who loses sight of an object is shown it as it was.
        told.push((type_.to_owned(), name.clone(), now.or(before).unwrap_or_default().to_owned(), *at));
        match now {
            Some(now) => _ = seen.insert(name, now),
            None => _ = seen.remove(name.as_str()),
        }
    }
    told
}

/// Writes at random: objects come, change their color and go.
async fn write(http: Http, mut seed: u64) {
    for _ in 0..40 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = seed >> 33;
        let (name, color) = (format!("m{}", random % NAMES), ["red", "blue"][(random >> 8) as usize % 2]);
        let object = json!({"metadata": {"name": name, "labels": {"color": color}}});
        let (code, answer) = match (random >> 12) % 4 {
            0 => http.delete(&format!("{MAPS}/{name}"), "").await,
            1 => http.patch(&format!("{MAPS}/{name}"), "merge", &object).await,
            _ => http.post(MAPS, &object).await,
        };
        assert!(matches!(code, 200 | 201 | 404 | 409), "{code} {answer}");
    }
}

#[test]
fn every_watcher_sees_the_history_and_every_list_a_moment_of_it() {
    block_on(async {
        let mut server = Server::start().await;
        let http = server.http("admin");
        let begin = version(&http.get(MAPS).await.1);
        let watch = |selector: &str| format!("{MAPS}?watch=1&resourceVersion={begin}{selector}");
        let all = http.watch(&watch("")).await.unwrap();
        let red = http.watch(&watch("&labelSelector=color%3Dred")).await.unwrap();
        let one = http.watch(&watch("&fieldSelector=metadata.name%3Dm1")).await.unwrap();
        // Nobody reads this one until the end.
        let slow = http.watch(&watch("")).await.unwrap();
        let writers: Vec<_> = (1..=8).map(|seed| write(server.http("admin"), seed * 7919)).collect();
        let disturb = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            server.etcd.kill();
            tokio::time::sleep(Duration::from_millis(150)).await;
            server.etcd.restart();
        };
        futures::future::join(futures::future::join_all(writers), disturb).await;
        http.delete(&format!("{MAPS}/m1"), "").await;
        http.create(MAPS, json!({"metadata": {"name": "m1", "labels": {"color": "red", "last": "yes"}}}))
            .await;
        let history = read(all).await;
        assert!(history.len() > 50, "{} events", history.len());
        assert!(history.windows(2).all(|pair| pair[0].3 < pair[1].3), "{history:?}");
        assert_eq!(narrowed(&history, |_, _| true), history, "the events of an object follow its life");
        assert_eq!(read(red).await, narrowed(&history, |_, color| color == "red"));
        assert_eq!(read(one).await, narrowed(&history, |name, _| name == "m1"));
        assert_eq!(read(slow).await, history);
        let middle = history[history.len() / 2].3;
        let resumed = http.watch(&format!("{MAPS}?watch=1&resourceVersion={middle}")).await.unwrap();
        assert_eq!(read(resumed).await, history[history.len() / 2 + 1..]);
        let mut present: BTreeMap<&str, i64> = BTreeMap::new();
        for (i, (type_, name, _, at)) in history.iter().enumerate() {
            match type_.as_str() {
                "DELETED" => _ = present.remove(name.as_str()),
                _ => _ = present.insert(name, *at),
            }
            if i % 9 != 0 && i + 1 != history.len() {
                continue;
            }
            let (code, list) =
                http.get(&format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=Exact")).await;
            assert_eq!(code, StatusCode::OK.as_u16(), "{list}");
            let items = list["items"].as_array().expect("items");
            let listed: BTreeMap<&str, i64> =
                items.iter().map(|o| (text(o, "/metadata/name"), version(o))).collect();
            assert_eq!(listed, present, "at {at}");
        }
    });
}
