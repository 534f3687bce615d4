//! ResourceQuotas: what is refused, and that no number of writers at once gets past a limit.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Http, Server, block_on, text};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A quota that was counted once, as the controller does.
async fn limit(http: &Http, name: &str, spec: Value) {
    http.create(QUOTAS, json!({"metadata": {"name": name}, "spec": spec})).await;
    let zero: serde_json::Map<_, _> =
        spec["hard"].as_object().unwrap().keys().map(|k| (k.clone(), "0".into())).collect();
    let status = json!({"status": {"hard": spec["hard"], "used": zero}});
    let (code, told) = http.patch(&format!("{QUOTAS}/{name}/status"), "merge", &status).await;
    assert_eq!(code, 200, "{told}");
}

async fn used(http: &Http, name: &str) -> Value {
    http.get(&format!("{QUOTAS}/{name}")).await.1["status"]["used"].clone()
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

#[test]
fn many_writers_at_two_servers_never_exceed_a_quota() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let other = server.http_at(server.another().await, Some("admin"));
        limit(&http, "maps", json!({"hard": {"configmaps": "10"}})).await;
        limit(&http, "count", json!({"hard": {"count/configmaps": "12"}})).await;
        // Connections of their own, so that they are at it at once.
        let writers = (0..40).map(|i| {
            let http = if i % 2 == 0 { &http } else { &other };
            let http = http.fresh();
            async move { http.post(MAPS, &map(&format!("m{i}"))).await }
        });
        let answers = join_all(writers).await;
        let made = answers.iter().filter(|(code, _)| *code == 201).count();
        for (code, refused) in answers.iter().filter(|(code, _)| *code != 201) {
            assert_eq!((*code, text(refused, "/reason")), (403, "Forbidden"), "{refused}");
            let why =
                "exceeded quota: maps, requested: configmaps=1, used: configmaps=10, limited: configmaps=10";
            assert!(text(refused, "/message").ends_with(why), "{refused}");
        }
        let (_, list) = http.get(MAPS).await;
        assert_eq!((made, list["items"].as_array().unwrap().len()), (10, 10));
        assert_eq!(used(&http, "maps").await["configmaps"], "10");
        assert_eq!(used(&http, "count").await["count/configmaps"], "10");
        server.stop().await;
    });
}

#[test]
fn a_refusal_names_the_quota_and_charges_nothing() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        limit(&http, "cpu", json!({"hard": {"requests.cpu": "1", "pods": "5"}})).await;
        limit(&http, "best", json!({"hard": {"pods": "0"}, "scopes": ["BestEffort"]})).await;
        let pod = |name: &str, cpu: Option<&str>| {
            let requests = cpu.map_or_else(|| json!({"memory": "1Mi"}), |cpu| json!({"cpu": cpu}));
            json!({"metadata": {"name": name}, "spec": {"containers":
                [{"name": "c", "image": "i", "resources": {"requests": requests}}]}})
        };
        http.create(PODS, pod("a", Some("600m"))).await;
        let (code, refused) = http.post(PODS, &pod("b", Some("500m"))).await;
        let why = "pods \"b\" is forbidden: exceeded quota: cpu, requested: requests.cpu=500m, \
                   used: requests.cpu=600m, limited: requests.cpu=1";
        assert_eq!((code, text(&refused, "/message")), (403, why));
        let (code, refused) = http.post(PODS, &pod("b", None)).await;
        let why = "pods \"b\" is forbidden: failed quota: cpu: must specify requests.cpu for: c";
        assert_eq!((code, text(&refused, "/message")), (403, why));
        let (code, _) = http.post(&format!("{PODS}?dryRun=All"), &pod("b", Some("400m"))).await;
        assert_eq!(code, 201);
        let (code, _) = http.post(PODS, &pod("a", Some("100m"))).await;
        assert_eq!(code, 409);
        assert_eq!(used(&http, "cpu").await, json!({"requests.cpu": "600m", "pods": "1"}));
        assert_eq!(used(&http, "best").await, json!({"pods": "0"}));

        limit(&http, "ports", json!({"hard": {"services.nodeports": "0"}})).await;
        let services = "/api/v1/namespaces/default/services";
        http.create(services, json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})).await;
        let open = json!({"spec": {"type": "NodePort"}});
        let (code, refused) = http.patch(&format!("{services}/s"), "merge", &open).await;
        assert_eq!(code, 403, "{refused}");
        assert!(text(&refused, "/message").contains("exceeded quota: ports"), "{refused}");
        server.stop().await;
    });
}
