//! Bad input gets a clear error, in milliseconds, and changes nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Cluster, Kubectl};

/// A manifest and what the message must name.
fn cases() -> Vec<(&'static str, String, &'static str)> {
    let deployment = |change: fn(&mut Value)| {
        let mut value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bad"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "bad"}},
                "template": {"metadata": {"labels": {"app": "bad"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        change(&mut value);
        value.to_string()
    };
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bad"}, "spec": {
        "ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}});
    let name = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "No_Label"}});
    vec![
        ("malformed YAML", "apiVersion: v1\nkind: [oops\nmetadata: {}\n".into(), "line"),
        ("malformed JSON", "{\"apiVersion\": \"v1\", \"kind\": }".into(), ""),
        (
            "an unknown kind",
            json!({"apiVersion": "v1", "kind": "Nonsense", "metadata": {"name": "bad"}}).to_string(),
            "Nonsense",
        ),
        ("a wrong type", deployment(|d| d["spec"]["replicas"] = json!("three")), "replicas"),
        ("a name that is no DNS name", name.to_string(), "metadata.name"),
        (
            "a missing image",
            deployment(|d| d["spec"]["template"]["spec"]["containers"] = json!([{"name": "c"}])),
            "image",
        ),
        (
            "no containers",
            deployment(|d| d["spec"]["template"]["spec"]["containers"] = json!([])),
            "containers",
        ),
        (
            "a selector that does not match",
            deployment(|d| d["spec"]["selector"]["matchLabels"]["app"] = json!("x")),
            "spec.template.metadata.labels",
        ),
        ("negative replicas", deployment(|d| d["spec"]["replicas"] = json!(-1)), "spec.replicas"),
        ("duplicate ports", service.to_string(), "spec.ports[1].name"),
        ("an unknown field", deployment(|d| d["spec"]["nonsense"] = json!(1)), "nonsense"),
    ]
}

fn check(cluster: &Cluster, kubectl: &Kubectl) {
    for (what, manifest, field) in cases() {
        let outcome = kubectl.run_with_input(&["apply", "-f", "-"], &manifest);
        assert_eq!(outcome.code, 1, "{what}: {outcome:?}");
        assert!(outcome.stderr.contains(field), "{what}: {}", outcome.stderr);
    }
    let left = cluster.kubectl.ok(&[
        "get",
        "deployments,services,configmaps",
        "--field-selector",
        "metadata.name=bad",
        "-o",
        "name",
    ]);
    assert_eq!(left, "", "bad input has changed something");
}

#[test]
fn bad_input_is_refused_and_changes_nothing() {
    let cluster = Cluster::up("badinput", 1);
    check(&cluster, &cluster.kubectl);
    if let Some(upstream) = cluster.upstream_kubectl() {
        check(&cluster, &upstream);
    }
    alias_bombs_end_in_milliseconds(&cluster);
}

fn alias_bombs_end_in_milliseconds(cluster: &Cluster) {
    let mut bomb =
        String::from("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\ndata:\n  a0: &a0 lol\n");
    for level in 1..30 {
        let before = level - 1;
        bomb += &format!(
            "  a{level}: &a{level} [*a{before},*a{before},*a{before},*a{before},*a{before},*a{before}]\n"
        );
    }
    let nested = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{}1{}}}",
        "{\"a\":".repeat(50_000),
        "}".repeat(50_000)
    );
    for (what, text) in [("an alias bomb", bomb), ("a deeply nested document", nested)] {
        let began = Instant::now();
        let outcome = cluster.kubectl.run_with_input(&["apply", "-f", "-"], &text);
        assert_eq!(outcome.code, 1, "{what}: {outcome:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "{what} took {:?}", began.elapsed());
    }
}
