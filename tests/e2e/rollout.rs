//! Rollouts under load: no request fails, a bad image stalls and is undone.

use std::net::SocketAddr;
use std::time::Duration;

use coxswain::images::built_in;
use support::{Cluster, Load, repository, until};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_rollout_fails_no_request_and_a_bad_one_is_undone() {
    let cluster = Cluster::up("rollout", 3);
    let kubectl = &cluster.kubectl;
    let sample = repository().join("deploy/samples/web.yaml");
    kubectl.ok(&["apply", "-f", &sample.display().to_string()]);
    kubectl.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=60s"]);
    let image = kubectl.ok(&[
        "-n",
        "web",
        "get",
        "deployment",
        "web",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].image}",
    ]);
    let other = second_version(&cluster, &image);

    let addr = SocketAddr::from((cluster.node_ip("node-1"), cluster.node_port("web", "web")));
    cluster.page("node-1", addr, "/");
    let load = Load::start(&cluster.host, addr, "/");
    until("the load is served", PATIENCE, || load.tally().ok() > 20);

    kubectl.ok(&["-n", "web", "set", "image", "deployment/web", &format!("web={other}")]);
    kubectl.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=120s"]);
    let pods = cluster.ready_pods("web", "app=web", 3, PATIENCE);
    assert!(
        pods.iter().all(|p| p["spec"]["containers"][0]["image"] == other.as_str()),
        "all pods run {other}"
    );

    // A bad image: the old pods stay, all but those that maxUnavailable lets go.
    kubectl.ok(&[
        "-n",
        "web",
        "patch",
        "deployment",
        "web",
        "-p",
        r#"{"spec":{"progressDeadlineSeconds":5}}"#,
    ]);
    kubectl.ok(&["-n", "web", "set", "image", "deployment/web", "web=nobody.invalid/nothing:1"]);
    let stalled = kubectl.run(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_ne!(stalled.code, 0, "{}", stalled.stdout);
    assert!(stalled.stderr.contains("exceeded its progress deadline"), "{}", stalled.stderr);
    let waiting = kubectl.ok(&["-n", "web", "get", "pods"]);
    assert!(waiting.contains("ImagePullBackOff") || waiting.contains("ErrImagePull"), "{waiting}");

    kubectl.ok(&["-n", "web", "rollout", "undo", "deployment/web"]);
    kubectl.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=60s"]);
    let pods = cluster.ready_pods("web", "app=web", 3, PATIENCE);
    assert!(
        pods.iter().all(|p| p["spec"]["containers"][0]["image"] == other.as_str()),
        "undo went back to {other}"
    );
    let history = kubectl.ok(&["-n", "web", "rollout", "history", "deployment/web"]);
    assert!(history.starts_with("deployment.apps/web"), "{history}");

    let tally = load.stop();
    assert!(tally.failed.is_empty(), "{} of {} failed: {:?}", tally.failed.len(), tally.ok(), tally.failed);
}

/// Loads the sample's image under another tag.
fn second_version(cluster: &Cluster, image: &str) -> String {
    let mut second =
        built_in().into_iter().find(|i| i.name == image).expect("the sample runs a built-in image");
    second.name =
        image.rsplit_once(':').map(|(name, _)| format!("{name}:second")).expect("the image has a tag");
    let name = second.name.clone();
    crate::streams::load(cluster, "second", second);
    name
}
