//! The same manifests and read commands give the same with upstream's kubectl.

use std::time::Duration;

use support::{Cluster, repository};

/// Read commands whose output must be the same to the letter, ages and their like apart.
const READS: &[&[&str]] = &[
    &["get", "nodes", "-o", "name"],
    &["get", "pods", "-A", "-o", "name"],
    &["-n", "web", "get", "deployments"],
    &["-n", "web", "get", "deploy", "web", "-o", "wide"],
    &["-n", "web", "get", "rs,svc,cm"],
    &["-n", "web", "get", "svc", "web", "-o", "yaml"],
    &["-n", "web", "get", "deploy", "web", "-o", "json"],
    &[
        "-n",
        "web",
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}",
    ],
    &["-n", "web", "get", "pods", "--field-selector", "status.phase=Running", "-o", "name"],
    &[
        "-n",
        "web",
        "get",
        "pods",
        "--no-headers",
        "-o",
        "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName",
    ],
    &["-n", "web", "get", "pods", "nobody"],
    &["-n", "web", "get", "pods", "-l", "app=nobody"],
    &["get", "nonsense"],
    &["api-resources", "-o", "name"],
    &["-n", "web", "rollout", "status", "deployment/web"],
    &["-n", "web", "rollout", "history", "deployment/web"],
    &["-n", "web", "describe", "service", "web"],
    &["-n", "web", "describe", "configmap"],
];

/// Ages move while commands run.
fn normalize(text: &str) -> String {
    let is_age = |word: &str| {
        word.len() > 1
            && word.ends_with(['s', 'm', 'h', 'd'])
            && word.bytes().all(|b| b.is_ascii_digit() || b"smhd".contains(&b))
    };
    text.lines()
        .map(|line| {
            line.split_whitespace().map(|w| if is_age(w) { "AGE" } else { w }).collect::<Vec<_>>().join(" ")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn upstreams_kubectl_sees_the_same() {
    let cluster = Cluster::up("parity", 2);
    let Some(upstream) = cluster.upstream_kubectl() else {
        eprintln!("no upstream kubectl on PATH: nothing to compare with");
        return;
    };
    let sample = repository().join("deploy/samples/web.yaml").display().to_string();
    upstream.ok(&["apply", "-f", &sample]);
    upstream.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.ready_pods("web", "app=web", 3, Duration::from_secs(60));

    let again = cluster.kubectl.ok(&["apply", "-f", &sample]);
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    assert_eq!(upstream.ok(&["apply", "-f", &sample]), again);

    let mut differences = Vec::new();
    for args in READS {
        let (ours, theirs) = (cluster.kubectl.run(args), upstream.run(args));
        let same = ours.code == theirs.code
            && normalize(&ours.stdout) == normalize(&theirs.stdout)
            && normalize(&ours.stderr) == normalize(&theirs.stderr);
        if !same {
            differences.push(format!("kubectl {}\nours: {ours:#?}\nupstream's: {theirs:#?}", args.join(" ")));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));

    upstream.ok(&["-n", "web", "describe", "pods"]);
    upstream.ok(&["describe", "nodes"]);
    upstream.ok(&["-n", "web", "scale", "deployment/web", "--replicas=4"]);
    upstream.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=60s"]);
    upstream.ok(&["-n", "web", "rollout", "restart", "deployment/web"]);
    upstream.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=90s"]);
    upstream.ok(&["-n", "web", "delete", "deployment", "web"]);
    upstream.ok(&["delete", "namespace", "web", "--timeout=60s"]);
}
