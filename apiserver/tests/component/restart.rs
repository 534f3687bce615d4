//! The server outlives its store: etcd restarts, and forgets old revisions.

use serde_json::json;

use crate::support::{Server, block_on, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn watches_and_writes_go_on_after_etcd_was_killed() {
    block_on(async {
        let mut server = Server::start().await;
        let http = server.http("admin");
        let a = http.create(MAPS, json!({"metadata": {"name": "a"}})).await;
        let version = text(&a, "/metadata/resourceVersion").to_owned();
        let mut events = http.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await.unwrap();
        server.etcd.kill();
        // While etcd is away, what is at hand can still be read.
        assert_eq!(http.get(&format!("{MAPS}/a?resourceVersion=0")).await.0, 200);
        let writer = server.http("admin");
        let write = async { writer.create(MAPS, json!({"metadata": {"name": "b"}})).await };
        let restart = async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            server.etcd.restart();
        };
        // A write that began while etcd was away is tried again until it is back.
        futures::future::join(write, restart).await;
        events.expect(&["ADDED b"]).await;
        assert_eq!(http.get(&format!("{MAPS}/a")).await.1, a);
        let (_, list) = http.get(MAPS).await;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
        server.ready().await;
    });
}

#[test]
fn old_pages_expire_when_the_store_forgets() {
    block_on(async {
        let server =
            Server::start_with(|c| c.compaction_interval = std::time::Duration::from_millis(300)).await;
        let http = server.http("admin");
        for i in 0..5 {
            http.create(MAPS, json!({"metadata": {"name": format!("m{i}")}})).await;
        }
        let (_, page) = http.get(&format!("{MAPS}?limit=2")).await;
        let token = text(&page, "/metadata/continue").to_owned();
        let next = format!("{MAPS}?limit=2&continue={token}");
        let expired = async {
            loop {
                http.create(MAPS, json!({"metadata": {"generateName": "more-"}})).await;
                let (code, answer) = http.get(&next).await;
                if code == 410 {
                    return answer;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        let answer =
            tokio::time::timeout(std::time::Duration::from_secs(20), expired).await.expect("it expires");
        assert_eq!(text(&answer, "/reason"), "Expired");
        // The token that comes with the refusal leads through the rest as it is now.
        let fresh = text(&answer, "/metadata/continue");
        let (code, rest) = http.get(&format!("{MAPS}?continue={fresh}")).await;
        assert_eq!(code, 200, "{rest}");
        let names: Vec<_> =
            rest["items"].as_array().into_iter().flatten().map(|o| text(o, "/metadata/name")).collect();
        assert_eq!(names[..3], ["m2", "m3", "m4"]);
        // The copies are not touched by that.
        assert_eq!(http.get(MAPS).await.0, 200);
    });
}

#[test]
fn a_new_server_knows_what_an_old_one_wrote() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
        let s = http.create("/api/v1/namespaces/default/services", service).await;
        let fresh = server.http_at(server.another().await, Some("admin"));
        assert_eq!(fresh.get("/api/v1/namespaces/default/services/s").await.1, s);
        let (_, kubernetes) = fresh.get("/api/v1/namespaces/default/services/kubernetes").await;
        assert_eq!(text(&kubernetes, "/spec/clusterIP"), "10.96.0.1", "{kubernetes}");
        let (_, slice) =
            fresh.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
        assert_eq!(text(&slice, "/endpoints/0/addresses/0"), "192.0.2.1", "{slice}");
    });
}
