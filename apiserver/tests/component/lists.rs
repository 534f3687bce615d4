//! Lists: selectors, pages, versions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Server, block_on, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|o| text(o, "/metadata/name").to_owned()).collect()
}

#[test]
fn pages_are_consistent_and_complete() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        for i in 0..25 {
            http.create(
                MAPS,
                json!({"metadata": {"name": format!("m{i:02}"), "labels": {"odd": (i % 2).to_string()}}}),
            )
            .await;
        }
        let (code, mut page) = http.get(&format!("{MAPS}?limit=10")).await;
        assert_eq!((code, &page["metadata"]["remainingItemCount"]), (200, &json!(15)));
        // What happens between pages is not seen in them.
        http.create(MAPS, json!({"metadata": {"name": "m10x"}})).await;
        assert_eq!(http.delete(&format!("{MAPS}/m24"), "").await.0, 200);
        let version = text(&page, "/metadata/resourceVersion").to_owned();
        let mut seen = names(&page);
        while let Some(token) = page["metadata"]["continue"].as_str().map(str::to_owned) {
            let (code, next) = http.get(&format!("{MAPS}?limit=10&continue={token}")).await;
            assert_eq!((code, text(&next, "/metadata/resourceVersion")), (200, version.as_str()));
            seen.extend(names(&next));
            page = next;
        }
        let wanted: Vec<_> = (0..25).map(|i| format!("m{i:02}")).collect();
        assert_eq!(seen, wanted);
        let (_, odd) = http.get(&format!("{MAPS}?labelSelector=odd%3D1&limit=5")).await;
        let token = text(&odd, "/metadata/continue").to_owned();
        let (_, rest) = http.get(&format!("{MAPS}?labelSelector=odd%3D1&continue={token}")).await;
        assert_eq!(names(&odd).into_iter().chain(names(&rest)).collect::<BTreeSet<_>>().len(), 12);
        let (code, exact) =
            http.get(&format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await;
        assert_eq!((code, names(&exact)), (200, wanted));
        for bad in [
            "continue=nonsense",
            "limit=-1",
            "limit=x",
            "resourceVersion=x",
            "labelSelector=a%3D%3D%3Db",
            "fieldSelector=nonsense",
            "fieldSelector=data.a%3Db",
        ] {
            let (code, error) = http.get(&format!("{MAPS}?{bad}")).await;
            assert_eq!((code, text(&error, "/reason")), (400, "BadRequest"), "{bad}: {error}");
        }
    });
}

#[test]
fn namespaces_and_fields_narrow_a_list() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await;
        http.create(MAPS, json!({"metadata": {"name": "a"}})).await;
        http.create("/api/v1/namespaces/other/configmaps", json!({"metadata": {"name": "a"}})).await;
        let count = |path: &'static str| {
            let http = http.clone();
            async move { names(&http.get(path).await.1).len() }
        };
        assert_eq!(count(MAPS).await, 1);
        assert_eq!(count("/api/v1/configmaps").await, 2);
        assert_eq!(count("/api/v1/configmaps?fieldSelector=metadata.namespace%3Dother").await, 1);
        assert_eq!(count("/api/v1/namespaces/absent/configmaps").await, 0);
    });
}

#[test]
fn what_was_acknowledged_is_read_at_once_by_every_server() {
    block_on(async {
        let server = Server::start().await;
        let other = server.another().await;
        let (one, two) = (server.http("admin"), server.http_at(other, Some("admin")));
        for i in 0..50 {
            let (writer, reader) = if i % 2 == 0 { (&one, &two) } else { (&two, &one) };
            writer.create(MAPS, json!({"metadata": {"name": format!("m{i}")}})).await;
            assert_eq!(reader.get(&format!("{MAPS}/m{i}")).await.0, 200, "{i}");
            assert_eq!(names(&reader.get(MAPS).await.1).len(), i + 1);
        }
    });
}
