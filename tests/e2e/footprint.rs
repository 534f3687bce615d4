//! What a cluster leaves behind: nothing.

use std::collections::BTreeSet;
use std::process::Command;

use support::{Cluster, repository};

/// What a host consists of, as far as a cluster could change it.
fn host() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut lines = |what: &str, program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
        all.extend(String::from_utf8_lossy(&output.stdout).lines().map(|line| format!("{what}: {line}")));
    };
    lines("interface", "sh", &["-c", "ls /sys/class/net"]);
    lines("route", "ip", &["route", "show", "table", "all"]);
    lines("table", "nft", &["list", "tables"]);
    lines("mount", "sh", &["-c", "grep -E 'coxswain|cx-' /proc/self/mountinfo | cut -d' ' -f5"]);
    lines("cgroup", "sh", &["-c", "find /sys/fs/cgroup -maxdepth 3 -type d -name '*coxswain*'"]);
    lines(
        "file",
        "sh",
        &["-c", "ls -d /var/lib/coxswain* /run/coxswain* /run/netns/*coxswain* /etc/cni/net.d/* 2>/dev/null"],
    );
    lines(
        "process",
        "sh",
        &[
            "-c",
            "ps -eo args= | grep -E 'kube-|kubelet|coxswain|containerd' | grep -vE 'grep|cargo|nextest|/deps/'",
        ],
    );
    all
}

/// Differences that concern one cluster: others may come and go while this test runs.
fn of(cluster: &str, difference: &BTreeSet<String>) -> Vec<String> {
    difference.iter().filter(|line| line.contains(cluster)).cloned().collect()
}

#[test]
fn down_leaves_the_host_as_it_was() {
    let before = host();
    let cluster = Cluster::up("footprint", 2);
    let sample = repository().join("deploy/samples/web.yaml");
    cluster.kubectl.ok(&["apply", "-f", &sample.display().to_string()]);
    cluster.kubectl.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=60s"]);

    let name = cluster.name.clone();
    let during: BTreeSet<_> = host().difference(&before).cloned().collect();
    assert!(!of(&name, &during).is_empty(), "a running cluster can be seen");

    let inside = || {
        let links =
            cluster.host.run(|| Command::new("ip").args(["-o", "link"]).output().expect("ip runs").stdout);
        let routes =
            cluster.host.run(|| Command::new("ip").args(["route"]).output().expect("ip runs").stdout);
        let tables = cluster
            .host
            .run(|| Command::new("nft").args(["list", "tables"]).output().expect("nft runs").stdout);
        [links, routes, tables].map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    assert!(inside()[0].lines().count() > 1, "the bridge can be seen: {:?}", inside());
    cluster.coxswain_ok(&["down"]);
    let [links, routes, tables] = inside();
    assert_eq!(links.lines().count(), 1, "only loopback is left: {links}");
    assert_eq!((routes.as_str(), tables.as_str()), ("", ""));
    assert!(!cluster.state().join(&name).exists(), "the state directory is gone");
    let config = std::fs::read_to_string(&cluster.kubectl.kubeconfig).unwrap_or_default();
    assert!(!config.contains(&name), "the context is gone from the kubeconfig: {config}");
    drop(cluster);

    let after: BTreeSet<_> = host().difference(&before).cloned().collect();
    assert_eq!(of(&name, &after), Vec::<String>::new());
}
