//! A backup brings back what was deleted, whatever keeps the state.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Cluster, Netns, is_ready, until};

const PATIENCE: Duration = Duration::from_secs(60);
/// Of an etcd that is no part of the cluster.
const URL: &str = "http://127.0.0.1:12379";

fn pod(name: &str) -> String {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": crate::streams::BUSYBOX, "command": ["/bin/busybox", "sleep", "600"]}]}})
    .to_string()
}

fn exists(cluster: &Cluster, kind: &str, name: &str) -> bool {
    cluster.kubectl.json(&["get", kind, name]).is_some()
}

fn runs(cluster: &Cluster, name: &str) {
    until(&format!("{name} runs"), PATIENCE, || {
        cluster.kubectl.json(&["get", "pod", name]).is_some_and(|pod| is_ready(&pod))
    });
}

fn processes(cluster: &Cluster) -> Vec<String> {
    let of = |p: serde_json::Value| p["name"].as_str().unwrap_or_default().to_owned();
    cluster.processes().into_iter().map(of).collect()
}

#[track_caller]
fn check(cluster: &Cluster, store: &str) {
    let kubectl = &cluster.kubectl;
    assert!(processes(cluster).contains(&store.to_owned()), "{:?}", processes(cluster));
    crate::streams::load_busybox(cluster);
    kubectl.ok(&["create", "configmap", "before", "--from-literal=a=1"]);
    kubectl.apply(&pod("kept"));
    runs(cluster, "kept");
    let container = |name: &str| {
        let pod = kubectl.json(&["get", "pod", name]).expect("it is there");
        pod["status"]["containerStatuses"][0]["containerID"].clone()
    };
    let running = container("kept");

    let file = cluster.state().join("backup").display().to_string();
    cluster.coxswain_ok(&["backup", &file]);
    kubectl.ok(&["delete", "configmap", "before"]);
    kubectl.ok(&["create", "configmap", "after", "--from-literal=a=1"]);
    let version = |name: &str| -> u64 {
        let object = kubectl.json(&["get", "configmap", name]).expect("it is there");
        object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).expect("it has a version")
    };
    let newest = version("after");
    let none = cluster.state().join("none").display().to_string();
    std::fs::write(&none, "no backup").expect("a file can be written");
    let refused = cluster.coxswain(&["restore", &none]);
    assert!(refused.code != 0 && refused.stderr.contains("could not restore"), "{}", refused.stderr);
    assert!(exists(cluster, "configmap", "after"), "a file that is no backup changes nothing");

    cluster.coxswain_ok(&["restore", &file]);
    until("the state is that of the backup", PATIENCE, || {
        exists(cluster, "configmap", "before") && !exists(cluster, "configmap", "after")
    });
    kubectl.apply(&pod("new"));
    runs(cluster, "new");
    assert_eq!(container("kept"), running, "what ran goes on");
    if store == "etcd-lite" {
        kubectl.ok(&["create", "configmap", "later", "--from-literal=a=1"]);
        assert!(version("later") > newest, "no version means two things");
    }
}

#[test]
fn a_backup_of_etcd_lite_brings_back_what_was_deleted() {
    check(&Cluster::up("backup", 1), "etcd-lite");
}

#[test]
fn a_backup_of_etcd_brings_back_what_was_deleted() {
    check(&Cluster::up_with("backup-etcd", 1, &["--etcd"]), "etcd");
}

/// Ends with the test.
struct Etcd(Child);

impl Etcd {
    fn start(netns: &Netns, data: &std::path::Path) -> Self {
        let mut command = Command::new("etcd");
        let peer = "http://127.0.0.1:12380";
        command.args(["--listen-client-urls", URL, "--advertise-client-urls", URL]);
        command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--data-dir"]).arg(data);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        netns.enter(&mut command);
        Self(command.spawn().expect("etcd is installed"))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_etcd_that_is_there_already_keeps_the_state_and_outlives_the_cluster() {
    let data = tempfile::TempDir::new().expect("a temporary directory can be made");
    let mut etcd = None;
    let start = |host: &Netns| etcd = Some(Etcd::start(host, data.path()));
    let cluster = Cluster::up_after("external", 1, &["--etcd-servers", URL], start);
    assert!(processes(&cluster).iter().all(|name| !name.starts_with("etcd")), "{:?}", processes(&cluster));
    cluster.kubectl.ok(&["create", "configmap", "kept", "--from-literal=a=1"]);
    let file = cluster.state().join("backup");
    cluster.coxswain_ok(&["backup", &file.display().to_string()]);
    assert!(std::fs::metadata(&file).expect("it is there").len() > 0);
    let refused = cluster.coxswain(&["restore", &file.display().to_string()]);
    assert!(refused.code != 0 && refused.stderr.contains("somebody else runs"), "{}", refused.stderr);
    cluster.coxswain_ok(&["down"]);
    let again = ["up", "--nodes", "1", "--etcd-servers", URL];
    cluster.coxswain_ok(&again);
    assert!(exists(&cluster, "configmap", "kept"), "the state outlived the cluster");
    drop(cluster);
    drop(etcd);
}
