//! Custom resources: from the definition that brings a kind to the one that takes it away.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Http, Server, block_on, text};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const BOATS: &str = "/apis/example.com/v1/namespaces/default/boats";

fn boats() -> Value {
    let spec = json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "maxLength": 20},
        "oars": {"type": "integer", "minimum": 2, "maximum": 16, "default": 8},
        "port": {"x-kubernetes-int-or-string": true},
        "crew": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["seat"],
            "items": {"type": "object", "required": ["seat"], "properties": {
                "seat": {"type": "integer"}, "name": {"type": "string"}}}}},
        "x-kubernetes-validations": [
            {"rule": "self.oars % 2 == 0", "message": "oars come in pairs"},
            {"rule": "self.name == oldSelf.name", "message": "a boat keeps its name"}]});
    let schema = json!({"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {"spec": spec,
        "status": {"type": "object", "properties": {"afloat": {"type": "boolean"}, "replicas": {"type": "integer"}}}}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "shortNames": ["bt"], "categories": ["all"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": schema,
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.oars", "statusReplicasPath": ".status.replicas"}},
                    "selectableFields": [{"jsonPath": ".spec.name"}],
                    "additionalPrinterColumns": [
                        {"name": "Oars", "type": "integer", "jsonPath": ".spec.oars"},
                        {"name": "Afloat", "type": "boolean", "jsonPath": ".status.afloat"},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]},
                {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
}

fn boat(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": name}, "spec": spec})
}

/// Waits until a path answers with a code.
async fn until(http: &Http, path: &str, code: u16) -> Value {
    let wait = async {
        loop {
            let (found, answer) = http.get(path).await;
            if found == code {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap_or_else(|_| panic!("{path} is not {code}"))
}

fn causes(error: &Value) -> Vec<String> {
    let causes = error.pointer("/details/causes").and_then(Value::as_array).cloned().unwrap_or_default();
    causes.iter().map(|c| format!("{}: {}", text(c, "/field"), text(c, "/message"))).collect()
}

#[test]
fn a_definition_brings_a_kind_and_takes_it_away() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(DEFINITIONS, boats()).await;
        until(&http, BOATS, 200).await;
        let (_, resources) = http.get("/apis/example.com/v1").await;
        let names: Vec<_> =
            resources["resources"].as_array().unwrap().iter().map(|r| text(r, "/name")).collect();
        assert_eq!(names, ["boats", "boats/scale", "boats/status"]);
        let (_, group) = http.get("/apis/example.com").await;
        assert_eq!(text(&group, "/preferredVersion/version"), "v1");

        let made = http.create(BOATS, boat("a", json!({"name": "Isis", "odd": 1}))).await;
        assert_eq!(made["spec"], json!({"name": "Isis", "oars": 8}), "pruned and filled in");
        assert_eq!(made["metadata"]["generation"], 1);
        let strict = format!("{BOATS}?fieldValidation=Strict");
        let (code, error) = http.post(&strict, &boat("b", json!({"name": "B", "odd": 1}))).await;
        assert_eq!(code, 400, "{error}");
        assert!(text(&error, "/message").contains("unknown field \"spec.odd\""), "{error}");

        let wrong = boat("b", json!({"oars": 1, "port": true, "crew": [{"seat": 1}, {"seat": 1}]}));
        let (code, error) = http.post(BOATS, &wrong).await;
        assert_eq!((code, text(&error, "/reason")), (422, "Invalid"), "{error}");
        assert_eq!(
            causes(&error),
            [
                "spec.name: Required value",
                "spec.crew[1]: Duplicate value: {\"seat\":1}",
                "spec.oars: Invalid value: 1: spec.oars in body should be greater than or equal to 2",
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
                "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; \
                 correct the existing errors to complete validation"
            ]
        );
        let (code, error) = http.post(BOATS, &boat("b", json!({"name": "B", "oars": 3}))).await;
        assert_eq!(
            (code, causes(&error)),
            (422, vec!["spec: Invalid value: \"object\": oars come in pairs".to_owned()])
        );
        let one = format!("{BOATS}/a");
        let (code, error) = http.patch(&one, "merge", &json!({"spec": {"name": "Other"}})).await;
        assert_eq!(
            (code, causes(&error)),
            (422, vec!["spec: Invalid value: \"object\": a boat keeps its name".to_owned()])
        );
        let (code, _) = http.patch(&one, "strategic-merge", &json!({"spec": {}})).await;
        assert_eq!(code, 415);

        // The status is its own path's, and counts no generation.
        let patch = json!({"status": {"afloat": true, "replicas": 8}, "spec": {"oars": 4}});
        let (code, shown) = http.patch(&format!("{one}/status"), "merge", &patch).await;
        assert_eq!(
            (code, &shown["status"]["afloat"], &shown["spec"]["oars"]),
            (200, &json!(true), &json!(8)),
            "{shown}"
        );
        assert_eq!(shown["metadata"]["generation"], 1);
        let (code, scale) =
            http.patch(&format!("{one}/scale"), "merge", &json!({"spec": {"replicas": 6}})).await;
        assert_eq!(
            (code, &scale["spec"]["replicas"], &scale["status"]["replicas"]),
            (200, &json!(6), &json!(8)),
            "{scale}"
        );
        let (_, changed) = http.get(&one).await;
        assert_eq!((&changed["spec"]["oars"], &changed["metadata"]["generation"]), (&json!(6), &json!(2)));

        // Another version of the same object.
        let (code, beta) = http.get("/apis/example.com/v1beta1/namespaces/default/boats/a").await;
        assert_eq!((code, text(&beta, "/apiVersion")), (200, "example.com/v1beta1"));
        http.create(BOATS, boat("b", json!({"name": "Bee"}))).await;
        let (_, found) = http.get(&format!("{BOATS}?fieldSelector=spec.name%3DBee")).await;
        assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "{found}");
        assert_eq!(http.get(&format!("{BOATS}?fieldSelector=spec.oars%3D1")).await.0, 400);

        // A changed schema holds at once, and a watch that began before must begin anew.
        let mut watch = http.watch(&format!("{BOATS}?watch=1")).await.unwrap();
        let (_, mut definition) = http.get(&format!("{DEFINITIONS}/boats.example.com")).await;
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            ["flag"] = json!({"type": "string", "default": "red"});
        let (code, answer) = http.put(&format!("{DEFINITIONS}/boats.example.com"), &definition).await;
        assert_eq!(code, 200, "{answer}");
        while let Some(event) = watch.next().await {
            if text(&event, "/type") == "ERROR" {
                break;
            }
        }
        let wait = async {
            loop {
                let (_, seen) = http.get(&one).await;
                if text(&seen, "/spec/flag") == "red" {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the default is seen by readers");

        let (code, answer) = http.delete(&format!("{DEFINITIONS}/boats.example.com"), "").await;
        assert_eq!(code, 200, "{answer}");
        until(&http, &format!("{DEFINITIONS}/boats.example.com"), 404).await;
        until(&http, BOATS, 404).await;
        // Whoever defines the kind again finds no objects of before.
        http.create(DEFINITIONS, boats()).await;
        let list = until(&http, BOATS, 200).await;
        assert_eq!(list["items"], json!([]));
        server.stop().await;
    });
}

#[test]
fn a_name_that_is_taken_is_not_given_twice() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(DEFINITIONS, boats()).await;
        until(&http, BOATS, 200).await;
        let mut other = boats();
        other["metadata"]["name"] = "ships.example.com".into();
        other["spec"]["names"] =
            json!({"plural": "ships", "singular": "ship", "kind": "Boat", "shortNames": ["sh"]});
        http.create(DEFINITIONS, other).await;
        let path = format!("{DEFINITIONS}/ships.example.com");
        let wait = async {
            loop {
                let (_, seen) = http.get(&path).await;
                let conditions = seen["status"]["conditions"].as_array().cloned().unwrap_or_default();
                if let Some(names) = conditions.iter().find(|c| c["type"] == "NamesAccepted") {
                    return names.clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let names = tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it is decided");
        assert_eq!((text(&names, "/status"), text(&names, "/reason")), ("False", "KindConflict"), "{names}");
        assert_eq!(http.get("/apis/example.com/v1/ships").await.0, 404);
        server.stop().await;
    });
}

/// Upstream's kubectl, with what it printed on both ways out.
async fn kubectl(server: &Server, arguments: &[&str], input: &str) -> (bool, String) {
    use tokio::io::AsyncWriteExt;
    let file = |name: &str| server.dir.path().join(name).display().to_string();
    let mut child = tokio::process::Command::new("kubectl")
        .args([
            "--server",
            &format!("https://{}", server.address),
            "--certificate-authority",
            &file("ca-server.crt"),
        ])
        .args(["--client-certificate", &file("admin.crt"), "--client-key", &file("admin.key")])
        .args(arguments)
        .env("HOME", server.dir.path())
        .env("KUBECONFIG", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kubectl starts");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&both).into_owned())
}

#[test]
fn upstreams_kubectl_knows_a_custom_kind() {
    if std::process::Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        eprintln!("there is no kubectl on PATH");
        return;
    }
    block_on(async {
        let server = Server::start().await;
        let (done, said) = kubectl(&server, &["create", "-f", "-"], &boats().to_string()).await;
        assert!(
            done && said.contains("customresourcedefinition.apiextensions.k8s.io/boats.example.com created"),
            "{said}"
        );
        let wait = ["wait", "--for=condition=Established", "crd/boats.example.com", "--timeout=60s"];
        let (done, said) = kubectl(&server, &wait, "").await;
        assert!(done, "{said}");
        let a = boat("a", json!({"name": "Isis", "oars": 8})).to_string();
        let (done, said) = kubectl(&server, &["create", "-f", "-"], &a).await;
        assert!(done && said.contains("boat.example.com/a created"), "{said}");
        let (done, said) = kubectl(&server, &["get", "bt"], "").await;
        let lines: Vec<Vec<&str>> = said.lines().map(|l| l.split_whitespace().collect()).collect();
        assert!(done, "{said}");
        assert_eq!(lines[0], ["NAME", "OARS", "AFLOAT", "AGE"], "{said}");
        assert_eq!(lines[1][..2], ["a", "8"], "{said}");
        let odd = boat("b", json!({"name": "B", "oars": 3})).to_string();
        let (done, said) = kubectl(&server, &["create", "-f", "-"], &odd).await;
        assert!(!done, "{said}");
        let wanted = "The Boat \"b\" is invalid: spec: Invalid value: \"object\": oars come in pairs";
        assert!(said.contains(wanted), "{said}");
        let (done, said) = kubectl(&server, &["scale", "boat/a", "--replicas=4"], "").await;
        assert!(done && said.contains("boat.example.com/a scaled"), "{said}");
        let more = boat("a", json!({"name": "Isis", "oars": 6})).to_string();
        let (done, said) = kubectl(&server, &["apply", "--server-side", "-f", "-"], &more).await;
        assert!(!done && said.contains("conflict"), "the oars are another manager's: {said}");
        let crew =
            boat("a", json!({"name": "Isis", "oars": 4, "crew": [{"seat": 1, "name": "Ann"}]})).to_string();
        let force = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let (done, said) = kubectl(&server, &force, &crew).await;
        assert!(done && said.contains("boat.example.com/a serverside-applied"), "{said}");
        let (done, said) = kubectl(&server, &["api-resources", "--api-group=example.com"], "").await;
        assert!(done && said.contains("boats") && said.contains("bt"), "{said}");
        let (done, said) =
            kubectl(&server, &["delete", "crd", "boats.example.com", "--timeout=60s"], "").await;
        assert!(done, "{said}");
        let (done, said) = kubectl(&server, &["get", "boats"], "").await;
        // It may remember the kind from before.
        let gone = ["the server doesn't have a resource type \"boats\"", "(NotFound)"];
        assert!(!done && gone.iter().any(|text| said.contains(text)), "{said}");
        server.stop().await;
    });
}
