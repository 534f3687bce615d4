//! Kinds that appear and disappear while the server follows the store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use apiserver::storage::{Etcd, Filter, Hub};
use component::health::Health;
use component::tasks::Tasks;
use serde_json::json;

use crate::support::{Server, block_on};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PATIENCE: Duration = Duration::from_secs(20);

fn names(hub: &Hub, kind: &'static Kind) -> BTreeSet<String> {
    let listed = hub.cache(kind).list(&Filter::default(), 0, "");
    listed.entries.iter().filter(|e| e.namespace() == "default").map(|e| e.name().to_owned()).collect()
}

#[test]
fn the_copy_of_a_kind_that_appears_is_complete_and_goes_on() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let tasks = Tasks::new("test hub");
        let etcd = Etcd::connect(&server.store(), tasks.spawner()).await.unwrap();
        let hub = Hub::start(etcd, &tasks.spawner(), Health::new().check("etcd"));
        hub.filled().await;
        let kind = Kind::find("", "ConfigMap").unwrap();
        let revision = hub.most_recent(PATIENCE).await.unwrap();
        let mut watcher = hub.cache(kind).watch_after(Filter::default(), revision).unwrap();
        hub.remove(kind);
        assert!(watcher.poll(1).is_err(), "who watches a kind that goes is told so");
        let mut wanted = names(&hub, kind);
        assert!(wanted.is_empty());
        // Objects that are there, that come while the copy is filled, and that come afterwards.
        let writer = async {
            for i in 0..40 {
                http.create(MAPS, json!({"metadata": {"name": format!("m{i:02}")}})).await;
            }
        };
        let adder = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            hub.add(kind).await.unwrap();
            // Once more does nothing.
            hub.add(kind).await.unwrap();
        };
        futures::future::join(writer, adder).await;
        http.create(MAPS, json!({"metadata": {"name": "last"}})).await;
        assert_eq!(http.delete(&format!("{MAPS}/m00"), "").await.0, 200);
        hub.most_recent(PATIENCE).await.unwrap();
        wanted.extend((1..40).map(|i| format!("m{i:02}")).chain(["last".to_owned()]));
        assert_eq!(names(&hub, kind), wanted);
        let cache: Arc<_> = hub.cache(kind);
        let revision = cache.list(&Filter::default(), 0, "").revision;
        let mut watcher = cache.watch_after(Filter::default(), revision).unwrap();
        http.create(MAPS, json!({"metadata": {"name": "later"}})).await;
        tokio::time::timeout(PATIENCE, watcher.changed()).await.expect("it is told");
        let (changes, _) = watcher.poll(1).unwrap();
        assert_eq!(changes[0].entry().name(), "later");
        assert!(tasks.drain(PATIENCE).await, "the hub ends");
    });
}
