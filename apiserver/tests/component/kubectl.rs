//! Upstream's kubectl, where it is installed: server-side apply, its conflicts, diff, replace and edit.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Server, block_on, text};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// kubectl with a configuration for a test's server.
struct Kubectl {
    dir: PathBuf,
}

/// What one call came to.
struct Output {
    code: i32,
    out: String,
    error: String,
}

impl Kubectl {
    /// Nothing, and a message, where there is no kubectl.
    async fn new(server: &Server) -> Option<Self> {
        let known = Command::new("kubectl").args(["version", "--client"]).output().await;
        if !known.is_ok_and(|o| o.status.success()) {
            eprintln!("skipped: there is no kubectl on PATH");
            return None;
        }
        let dir = server.dir.path().to_owned();
        let file = |name: &str| dir.join(name).display().to_string();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{}", server.address), "tls-server-name": "localhost",
                "certificate-authority": file("ca-server.crt")}}],
            "users": [{"name": "admin", "user": {
                "client-certificate": file("admin.crt"), "client-key": file("admin.key")}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}}],
        });
        std::fs::write(dir.join("kubeconfig"), config.to_string()).unwrap();
        Some(Self { dir })
    }

    async fn run(&self, args: &[&str]) -> Output {
        let output = Command::new("kubectl")
            .args(args)
            .env("KUBECONFIG", self.dir.join("kubeconfig"))
            .env("HOME", &self.dir)
            .env("KUBE_EDITOR", self.dir.join("editor"))
            .current_dir(&self.dir)
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            error: text(&output.stderr),
        }
    }

    /// A call that must succeed; what it says.
    #[track_caller]
    fn ok<'a>(&'a self, args: &'a [&'a str]) -> impl Future<Output = String> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let output = self.run(args).await;
            assert_eq!(output.code, 0, "{caller}: {args:?}: {}{}", output.out, output.error);
            assert!(!output.error.contains("failed"), "{caller}: {args:?}: {}", output.error);
            output.out
        }
    }

    fn write(&self, name: &str, value: &Value) {
        std::fs::write(self.dir.join(name), value.to_string()).unwrap();
    }
}

fn deployment(replicas: i64, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": image}]}}}})
}

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|e| format!("{} {}", text(e, "/manager"), text(e, "/operation"))).collect()
}

#[test]
fn upstream_kubectl_applies_on_the_server() {
    block_on(async {
        let server = Server::start().await;
        let Some(kubectl) = Kubectl::new(&server).await else { return };
        let http = server.http("admin");
        let web = async || http.get(&format!("{DEPLOYMENTS}/web")).await.1;
        kubectl.write("one.json", &deployment(1, "a:1"));
        kubectl.write("two.json", &deployment(2, "a:1"));

        // From applies on its own side to applies on the server.
        assert_eq!(kubectl.ok(&["apply", "-f", "one.json"]).await, "deployment.apps/web created\n");
        assert_eq!(managers(&web().await), ["kubectl-client-side-apply Update"]);
        assert_eq!(kubectl.ok(&["apply", "-f", "one.json"]).await, "deployment.apps/web unchanged\n");
        let applied = kubectl.ok(&["apply", "--server-side", "-f", "two.json"]).await;
        assert_eq!(applied, "deployment.apps/web serverside-applied\n");
        let now = web().await;
        assert_eq!(now["spec"]["replicas"], 2);
        // kubectl keeps its annotation under a name of its own.
        assert_eq!(managers(&now), ["kubectl Apply", "kubectl-last-applied Apply"]);

        // Somebody else wants another number.
        kubectl.write("three.json", &deployment(3, "a:1"));
        let other = ["apply", "--server-side", "--field-manager=other", "-f", "three.json"];
        let conflict = kubectl.run(&other).await;
        assert_eq!(conflict.code, 1);
        let wanted = "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas";
        assert!(conflict.error.contains(wanted), "{}", conflict.error);
        kubectl.ok(&[&other[..], &["--force-conflicts"]].concat()).await;
        let now = web().await;
        assert_eq!((&now["spec"]["replicas"], managers(&now).len()), (&json!(3), 3));
        let shown = kubectl.ok(&["get", "deployment", "web", "-o", "yaml"]).await;
        assert!(!shown.contains("managedFields") && shown.contains("replicas: 3"), "{shown}");
        let shown = kubectl.ok(&["get", "deployment", "web", "-o", "yaml", "--show-managed-fields"]).await;
        assert!(shown.contains("manager: other"), "{shown}");

        // What would change, without changing it.
        let before = web().await;
        let diff = kubectl.run(&["diff", "--server-side", "--force-conflicts", "-f", "two.json"]).await;
        assert_eq!(diff.code, 1, "{}", diff.error);
        assert!(diff.out.contains("-  replicas: 3") && diff.out.contains("+  replicas: 2"), "{}", diff.out);
        let dry = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "two.json"];
        assert_eq!(kubectl.ok(&dry).await, "deployment.apps/web serverside-applied (server dry run)\n");
        assert_eq!(web().await, before);
        let same = kubectl.run(&["diff", "--server-side", "--field-manager=other", "-f", "three.json"]).await;
        assert_eq!((same.code, same.out.as_str()), (0, ""), "{}", same.error);
    });
}

#[test]
fn upstream_kubectl_edits_replaces_and_warns() {
    block_on(async {
        let server = Server::start().await;
        let Some(kubectl) = Kubectl::new(&server).await else { return };
        let http = server.http("admin");
        let web = async || http.get(&format!("{DEPLOYMENTS}/web")).await.1;
        kubectl.write("one.json", &deployment(1, "a:1"));
        kubectl.ok(&["create", "-f", "one.json"]).await;
        assert_eq!(managers(&web().await), ["kubectl-create Update"]);

        let editor = kubectl.dir.join("editor");
        std::fs::write(&editor, "#!/bin/sh\nexec sed -i 's/replicas: 1/replicas: 4/' \"$1\"\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&editor, mode).unwrap();
        assert_eq!(kubectl.ok(&["edit", "deployment", "web"]).await, "deployment.apps/web edited\n");
        let now = web().await;
        assert_eq!(now["spec"]["replicas"], 4);
        assert!(managers(&now).contains(&"kubectl-edit Update".to_owned()), "{:?}", managers(&now));

        kubectl.write("two.json", &deployment(2, "a:2"));
        assert_eq!(kubectl.ok(&["replace", "-f", "two.json"]).await, "deployment.apps/web replaced\n");
        let now = web().await;
        assert_eq!(
            (&now["spec"]["replicas"], text(&now, "/spec/template/spec/containers/0/image")),
            (&json!(2), "a:2")
        );
        assert!(managers(&now).contains(&"kubectl-replace Update".to_owned()), "{:?}", managers(&now));
        assert_eq!(
            kubectl.ok(&["scale", "deployment", "web", "--replicas=6"]).await,
            "deployment.apps/web scaled\n"
        );

        // Fields that there are not, by the three sorts of validation.
        let mut wrong = deployment(2, "a:2");
        wrong["spec"]["foo"] = "bar".into();
        kubectl.write("wrong.json", &wrong);
        let strict = kubectl.run(&["apply", "-f", "wrong.json"]).await;
        assert_eq!(strict.code, 1);
        assert!(strict.error.contains("unknown field \"spec.foo\""), "{}", strict.error);
        let warned = kubectl.run(&["apply", "--validate=warn", "-f", "wrong.json"]).await;
        assert_eq!(warned.code, 0, "{}", warned.error);
        assert!(warned.error.contains("Warning: unknown field \"spec.foo\""), "{}", warned.error);
        let ignored = kubectl.run(&["apply", "--validate=ignore", "-f", "wrong.json"]).await;
        assert!(ignored.code == 0 && !ignored.error.contains("unknown field"), "{}", ignored.error);
        let typed = kubectl.run(&["apply", "--server-side", "--validate=ignore", "-f", "wrong.json"]).await;
        assert_eq!(typed.code, 1);
        assert!(typed.error.contains(".spec.foo: field not declared in schema"), "{}", typed.error);
    });
}

#[test]
fn upstream_kubectl_explains_and_discovers() {
    block_on(async {
        let server = Server::start().await;
        let Some(kubectl) = Kubectl::new(&server).await else { return };
        let explained = kubectl.ok(&["explain", "deployment.spec.replicas"]).await;
        assert!(explained.contains("FIELD: replicas <integer>"), "{explained}");
        assert!(explained.contains("Number of desired pods."), "{explained}");
        let tree = kubectl.ok(&["explain", "pod.spec.containers.ports"]).await;
        assert!(
            tree.contains("containerPort\t<integer> -required-") && tree.contains("<[]ContainerPort>"),
            "{tree}"
        );
        let resources = kubectl.ok(&["api-resources", "-o", "name"]).await;
        assert!(resources.lines().any(|r| r == "deployments.apps"), "{resources}");
        let ready = kubectl.ok(&["get", "--raw", "/readyz?verbose"]).await;
        assert!(ready.contains("[+]etcd ok") && ready.ends_with("readyz check passed\n"), "{ready}");
    });
}
