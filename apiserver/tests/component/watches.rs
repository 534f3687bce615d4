//! Watches: from any version in the window, through selectors, with bookmarks.

use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::{Http, Server, block_on, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, color: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"color": color}}})
}

async fn paint(http: &Http, name: &str, color: &str) {
    let patch = json!({"metadata": {"labels": {"color": color}}});
    let (code, value) = http.patch(&format!("{MAPS}/{name}"), "merge", &patch).await;
    assert_eq!(code, 200, "{value}");
}

#[test]
fn a_watch_resumes_where_it_is_told_to() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let a = http.create(MAPS, map("a", "red")).await;
        http.create(MAPS, map("b", "red")).await;
        paint(&http, "a", "blue").await;
        assert_eq!(http.delete(&format!("{MAPS}/b"), "").await.0, 200);
        let version = text(&a, "/metadata/resourceVersion");
        let mut events = http.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await.unwrap();
        events.expect(&["ADDED b", "MODIFIED a", "DELETED b"]).await;
        paint(&http, "a", "green").await;
        events.expect(&["MODIFIED a"]).await;
        // A server that was started later knows what happened before.
        let later = server.http_at(server.another().await, Some("admin"));
        let mut events = later.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await.unwrap();
        events.expect(&["ADDED b", "MODIFIED a", "DELETED b", "MODIFIED a"]).await;
        let future =
            http.watch(&format!("{MAPS}?watch=true&resourceVersion=99999999")).await.err().expect("too new");
        assert_eq!(future.0, 504, "{}", future.1);
        assert!(text(&future.1, "/message").contains("Too large resource version"));
    });
}

#[test]
fn selectors_turn_changes_into_coming_and_going() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(MAPS, map("a", "red")).await;
        http.create(MAPS, map("b", "blue")).await;
        let mut red = http.watch(&format!("{MAPS}?watch=1&labelSelector=color%3Dred")).await.unwrap();
        red.expect(&["ADDED a"]).await;
        let mut b = http.watch("/api/v1/configmaps?watch=1&fieldSelector=metadata.name%3Db").await.unwrap();
        b.expect(&["ADDED b"]).await;
        paint(&http, "b", "red").await;
        paint(&http, "a", "blue").await;
        paint(&http, "b", "red2").await;
        red.expect(&["ADDED b", "DELETED a", "DELETED b"]).await;
        b.expect(&["MODIFIED b", "MODIFIED b"]).await;
    });
}

#[test]
fn initial_events_end_with_a_bookmark() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(MAPS, map("a", "red")).await;
        let path = format!(
            "{MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
        );
        let mut events = http.watch(&path).await.unwrap();
        events.expect(&["ADDED a"]).await;
        let bookmark = events.next().await.unwrap();
        assert_eq!(text(&bookmark, "/type"), "BOOKMARK", "{bookmark}");
        assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        http.create(MAPS, map("b", "red")).await;
        events.expect(&["ADDED b"]).await;
        let wrong =
            http.watch(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await.err().expect("refused");
        assert_eq!(wrong.0, 422, "{}", wrong.1);
    });
}

#[test]
fn a_watch_ends_when_it_asked_to_and_says_where() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let began = tokio::time::Instant::now();
        let path = format!("{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true");
        let mut events = http.watch(&path).await.unwrap();
        let bookmark = events.next().await.unwrap();
        assert_eq!(text(&bookmark, "/type"), "BOOKMARK", "{bookmark}");
        assert!(events.next().await.is_none());
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
    });
}

#[test]
fn tables_are_watched() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(MAPS, map("a", "red")).await;
        http.create(MAPS, map("b", "red")).await;
        let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
        let mut events = http.watch_with(&format!("{MAPS}?watch=1"), &accept).await.unwrap();
        let (first, second) = (events.next().await.unwrap(), events.next().await.unwrap());
        assert!(!first["object"]["columnDefinitions"].as_array().unwrap().is_empty());
        assert_eq!(text(&first, "/object/rows/0/cells/0"), "a");
        assert_eq!(text(&second, "/object/rows/0/cells/0"), "b");
    });
}

#[test]
fn a_slow_watcher_gets_every_event_in_order() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(MAPS, map("a", "0")).await;
        let mut events = http.watch(&format!("{MAPS}?watch=1")).await.unwrap();
        for i in 1..=300 {
            let patch = json!({"data": {"i": i.to_string(), "pad": "x".repeat(10_000)}});
            assert_eq!(http.patch(&format!("{MAPS}/a"), "merge", &patch).await.0, 200);
        }
        events.expect(&["ADDED a"]).await;
        for i in 1..=300 {
            let event = events.next().await.unwrap();
            assert_eq!(text(&event, "/object/data/i"), i.to_string());
        }
    });
}

#[test]
fn a_watch_over_grpc_sees_what_rest_writes() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let api = server.grpc("admin").namespaced::<api::openapi::api::core::v1::ConfigMap>("default");
        let list = api.list(&client::ListParams::default()).await.unwrap();
        let stream = api.watch(&client::ListParams::default(), &list.resource_version).await.unwrap();
        let mut stream = std::pin::pin!(stream);
        http.create(MAPS, map("a", "red")).await;
        assert_eq!(http.delete(&format!("{MAPS}/a"), "").await.0, 200);
        let mut seen = Vec::new();
        while seen.len() < 2 {
            match stream.next().await.unwrap().unwrap() {
                client::WatchEvent::Added(o) => seen.push(format!("ADDED {}", o.metadata.name.unwrap())),
                client::WatchEvent::Deleted(o) => seen.push(format!("DELETED {}", o.metadata.name.unwrap())),
                _ => {}
            }
        }
        assert_eq!(seen, ["ADDED a", "DELETED a"]);
    });
}

#[test]
fn a_version_that_the_store_has_forgotten_is_gone() {
    block_on(async {
        let server =
            Server::start_with(|c| c.compaction_interval = std::time::Duration::from_millis(200)).await;
        let http = server.http("admin");
        let a = http.create(MAPS, map("a", "red")).await;
        let version = text(&a, "/metadata/resourceVersion").to_owned();
        let gone = async {
            loop {
                http.create(MAPS, json!({"metadata": {"generateName": "more-"}})).await;
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                let address = server.another().await;
                let later = server.http_at(address, Some("admin"));
                match later.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await {
                    Ok(_) => {}
                    Err(refusal) => return (address, refusal),
                }
            }
        };
        let (address, (code, error)) =
            tokio::time::timeout(std::time::Duration::from_secs(30), gone).await.expect("it is forgotten");
        assert_eq!((code, text(&error, "/reason")), (410, "Expired"), "{error}");
        let client = server.grpc_at(address, "admin");
        let api = client.namespaced::<api::openapi::api::core::v1::ConfigMap>("default");
        let expired = match api.watch(&client::ListParams::default(), &version).await {
            Err(error) => error.is_expired(),
            Ok(stream) => std::pin::pin!(stream).next().await.unwrap().expect_err("too old").is_expired(),
        };
        assert!(expired);
    });
}

#[test]
fn open_watches_do_not_keep_a_server_from_stopping() {
    block_on(async {
        let server = Server::start().await;
        let mut watching = server.http("admin").watch(&format!("{MAPS}?watch=1")).await.unwrap();
        let api = server.grpc("admin").namespaced::<api::openapi::api::core::v1::ConfigMap>("default");
        let stream = api.watch(&client::ListParams::default(), "").await.unwrap();
        let mut stream = std::pin::pin!(stream);
        let began = std::time::Instant::now();
        server.stop().await;
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(watching.next().await.is_none());
        assert!(!matches!(stream.next().await, Some(Ok(_))));
    });
}

#[test]
fn a_watch_over_a_websocket_sends_an_event_per_message() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(MAPS, map("a", "red")).await;
        let mut stream = http.raw().await.unwrap();
        let request = format!(
            "GET {MAPS}?watch=1 HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let mut events = Vec::new();
        while events.len() < 2 {
            let (opcode, short) = (stream.read_u8().await.unwrap(), stream.read_u8().await.unwrap());
            let length =
                if short == 126 { u64::from(stream.read_u16().await.unwrap()) } else { short.into() };
            let mut message = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut message).await.unwrap();
            // Anything but a text is a ping.
            if opcode == 0x81 {
                let event: serde_json::Value = serde_json::from_slice(&message).unwrap();
                events.push(format!("{} {}", text(&event, "/type"), text(&event, "/object/metadata/name")));
                if events.len() == 1 {
                    http.create(MAPS, map("b", "red")).await;
                }
            }
        }
        assert_eq!(events, ["ADDED a", "ADDED b"]);
        // A client that goes without a word does not keep the server from stopping.
        drop(stream);
        server.stop().await;
    });
}
