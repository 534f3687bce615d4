//! The page is served by every road, from every node, by every pod.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use support::{Cluster, get_through, repository, until};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_page_is_served_by_every_road() {
    let cluster = Cluster::up("web", 3);
    let sample = repository().join("deploy/samples/web.yaml");
    cluster.kubectl.ok(&["apply", "-f", &sample.display().to_string()]);
    cluster.kubectl.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=60s"]);
    let pods = cluster.ready_pods("web", "app=web", 3, PATIENCE);

    let service = cluster.service("web", "web");
    let node_port = cluster.node_port("web", "web");
    let page = cluster.page("node-1", service, "/").body;
    assert!(page.contains("Coxswain"), "{page}");

    for node in cluster.nodes() {
        assert_eq!(cluster.page(&node, service, "/").body, page, "ClusterIP from {node}");
        let addr = SocketAddr::from((cluster.node_ip(&node), node_port));
        let answer = get_through(&cluster.host, addr, "/").expect("the NodePort answers the host");
        assert_eq!((answer.code, &answer.body), (200, &page), "NodePort of {node}");
    }
    through_the_api_server(&cluster, &pods, &page);
    by_name_from_every_pod(&cluster, &pods, &page);
    every_endpoint_gets_traffic(&cluster, service, 3);
    nothing_answers_where_no_service_is(&cluster);
}

/// The API server has no route to a pod: its nodes' tunnels lead there.
fn through_the_api_server(cluster: &Cluster, pods: &[serde_json::Value], page: &str) {
    let get = |path: String| cluster.kubectl.ok(&["get", "--raw", &path]);
    assert_eq!(get("/api/v1/namespaces/web/services/web:80/proxy/".into()).trim_end(), page.trim_end());
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
        let path = format!("/api/v1/namespaces/web/pods/http:{name}:8080/proxy/");
        assert_eq!(get(path).trim_end(), page.trim_end(), "{name}");
    }
    assert_eq!(get("/api/v1/nodes/node-1/proxy/healthz".into()).trim_end(), "ok");
    let own = get("/api/v1/nodes/node-1/proxy/pods".into());
    assert!(own.contains("\"nodeName\":\"node-1\"") && !own.contains("\"nodeName\":\"node-2\""), "{own}");
}

/// The pods lie on all nodes or few; asking from each of them asks the DNS of each of these nodes.
fn by_name_from_every_pod(cluster: &Cluster, pods: &[serde_json::Value], page: &str) {
    let mut asked = BTreeSet::new();
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
        for host in ["web", "web.web", "web.web.svc", "web.web.svc.cluster.local"] {
            let url = format!("http://{host}/");
            let fetched = cluster.kubectl.ok(&["-n", "web", "exec", name, "--", "/webserver", "fetch", &url]);
            assert_eq!(fetched.trim_end(), page.trim_end(), "{url} from {name}");
        }
        let unknown =
            ["-n", "web", "exec", name, "--", "/webserver", "resolve", "nobody.web.svc.cluster.local"];
        assert_ne!(cluster.kubectl.run(&unknown).code, 0, "a name that is not there resolves");
        asked.insert(pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(asked.len(), 3, "three pods of a Deployment spread over three empty nodes: {asked:?}");
}

fn every_endpoint_gets_traffic(cluster: &Cluster, service: SocketAddr, endpoints: usize) {
    let netns = cluster.node("node-1");
    let mut servers = BTreeSet::new();
    until("every endpoint has answered", Duration::from_secs(20), || {
        if let Ok(answer) = get_through(&netns, service, "/") {
            servers.extend(answer.headers.get("x-hostname").cloned());
        }
        servers.len() == endpoints
    });
}

/// A packet to the service range that matches no service is rejected on the node, at once.
fn nothing_answers_where_no_service_is(cluster: &Cluster) {
    let began = std::time::Instant::now();
    let nobody = SocketAddr::from(([10, 96, 200, 200], 80));
    assert!(get_through(&cluster.node("node-2"), nobody, "/").is_err());
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "it was dropped rather than rejected: {:?}",
        began.elapsed()
    );
}
