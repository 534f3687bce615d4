//! Every component is killed in turn while users go on working.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use support::{Cluster, Load, repository, until};

const PATIENCE: Duration = Duration::from_secs(60);

fn deployment(name: &str, replicas: usize, image: &str) -> String {
    serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "web", "image": image, "args": ["sleep"]}]}}}})
    .to_string()
}

/// Container ids and restart counts of the page's pods.
fn containers(pods: &[Value]) -> Vec<(String, String, i64)> {
    let mut all: Vec<_> = pods
        .iter()
        .map(|p| {
            let status = &p["status"]["containerStatuses"][0];
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            (
                text(&p["metadata"]["name"]),
                text(&status["containerID"]),
                status["restartCount"].as_i64().unwrap_or(-1),
            )
        })
        .collect();
    all.sort();
    all
}

#[test]
fn every_component_may_be_killed() {
    let cluster = Cluster::up("kill", 2);
    let kubectl = &cluster.kubectl;
    let sample = repository().join("deploy/samples/web.yaml");
    kubectl.ok(&["apply", "-f", &sample.display().to_string()]);
    kubectl.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=60s"]);
    let before = containers(&cluster.ready_pods("web", "app=web", 3, PATIENCE));
    let image = kubectl.ok(&[
        "-n",
        "web",
        "get",
        "deployment",
        "web",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].image}",
    ]);
    let service = cluster.service("web", "web");
    cluster.page("node-1", service, "/");
    let load = Load::start(&cluster.node("node-1"), service, "/");
    // A connection that is made before everything and used after everything.
    let mut lasting =
        cluster.node("node-1").run(|| TcpStream::connect(service)).expect("the Service answers");

    let components = [
        "kube-scheduler",
        "kube-controller-manager",
        "node-1/kubelet",
        "node-2/kubelet",
        "node-1/kube-proxy",
        "node-1/containerd",
        "kube-apiserver",
        "etcd-lite",
    ];
    for (round, component) in components.into_iter().enumerate() {
        let (grown, gone) = (format!("grown-{round}"), format!("gone-{round}"));
        kubectl.apply(&deployment(&grown, 1, &image));
        kubectl.apply(&deployment(&gone, 2, &image));
        cluster.kill(component);
        until(&format!("a write after {component} was killed"), PATIENCE, || {
            kubectl.run(&["scale", &format!("deployment/{grown}"), "--replicas=2"]).code == 0
        });
        until(&format!("a delete after {component} was killed"), PATIENCE, || {
            kubectl.run(&["delete", "deployment", &gone, "--ignore-not-found", "--wait=false"]).code == 0
        });
        cluster.ready_pods("default", &format!("app={grown}"), 2, PATIENCE);
        cluster.ready_pods("default", &format!("app={gone}"), 0, PATIENCE);
        kubectl.ok(&["delete", "deployment", &grown]);
        cluster.ready_pods("default", &format!("app={grown}"), 0, PATIENCE);
    }

    let after = containers(&cluster.ready_pods("web", "app=web", 3, PATIENCE));
    assert_eq!(after, before, "the containers are the same and none was restarted");
    lasting.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
    lasting
        .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        .expect("the connection lives");
    let mut answer = String::new();
    lasting.read_to_string(&mut answer).expect("the connection lives");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    let tally = load.stop();
    assert!(tally.failed.is_empty(), "{} of {} failed: {:?}", tally.failed.len(), tally.ok(), tally.failed);
}
