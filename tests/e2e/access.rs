//! A pod asks the API in its own name, and gets what its role says.

use std::time::Duration;

use serde_json::json;
use support::{Cluster, until};

#[test]
fn a_pod_asks_the_api_with_its_token() {
    let cluster = Cluster::up("access", 1);
    // It is one file that needs nothing else, so that a pod can bring it along.
    let Some(kubectl) = cluster.upstream_kubectl().and_then(|k| k.program.canonicalize().ok()) else {
        eprintln!("no upstream kubectl on PATH: nothing to bring along");
        return;
    };
    cluster.kubectl.ok(&["create", "serviceaccount", "reader"]);
    let pod = |name: &str, account: &str, arguments: &[&str]| {
        let command: Vec<_> = ["/kubectl"].iter().chain(arguments).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "serviceAccountName": account,
                "restartPolicy": "OnFailure",
                "containers": [{
                    "name": "main", "image": "localhost/coxswain/webserver:1",
                    "command": command,
                    "volumeMounts": [{"name": "kubectl", "mountPath": "/kubectl", "readOnly": true}],
                }],
                "volumes": [{"name": "kubectl", "hostPath": {"path": kubectl, "type": "File"}}],
            },
        })
    };
    let logs = |pod: &str| cluster.kubectl.run(&["logs", pod]).stdout;
    // With nothing but the token, the certificates and the environment that every pod finds.
    cluster.kubectl.apply(&pod("stranger", "default", &["auth", "can-i", "list", "pods"]).to_string());
    until("the stranger is told no", Duration::from_secs(90), || logs("stranger").contains("no"));
    cluster.kubectl.apply(
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "reader", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
        })
        .to_string(),
    );
    // What `view` holds has been gathered by a controller.
    cluster.kubectl.apply(&pod("reader", "reader", &["get", "pods", "-o", "name"]).to_string());
    until("the reader sees pods", Duration::from_secs(90), || logs("reader").contains("pod/stranger"));
    let me = cluster.kubectl.ok(&["auth", "whoami"]);
    assert!(me.contains("kubernetes-admin") && me.contains("system:masters"), "{me}");
    let token = cluster.kubectl.ok(&["create", "token", "reader"]);
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    let list =
        cluster.kubectl.ok(&["auth", "can-i", "--list", "--as", "system:serviceaccount:default:reader"]);
    assert!(list.contains("configmaps"), "{list}");
    let secrets = cluster.kubectl.run(&[
        "auth",
        "can-i",
        "get",
        "secrets",
        "--as",
        "system:serviceaccount:default:reader",
    ]);
    assert_eq!((secrets.code, secrets.stdout.trim()), (1, "no"), "{}", secrets.stderr);
}
