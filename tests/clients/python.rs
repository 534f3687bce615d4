//! The Python client, and an operator written with kopf.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{ControlPlane, repository, until, until_some};

use crate::packages::python;

fn program(name: &str) -> PathBuf {
    repository().join("tests/clients/python").join(name)
}

fn with_boats(test: &str) -> ControlPlane {
    let plane = ControlPlane::with_controllers(test);
    plane.kubectl.ok(&["apply", "-f", &program("operator.yaml").display().to_string()]);
    plane.kubectl.ok(&["wait", "--for=condition=Established", "crd/boats.example.com", "--timeout=60s"]);
    plane
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_python_client_works() {
    let Some(python) = python() else { return };
    let plane = with_boats("python");
    let said = plane.run_ok(python.join("bin/python"), &[&program("client.py").display().to_string()]);
    assert!(said.contains("all is well"), "{said}");
}

#[test]
fn an_operator_in_kopf_reconciles() {
    let Some(python) = python() else { return };
    let plane = with_boats("kopf");
    let log = std::fs::File::create(plane.scratch.join("kopf.log")).unwrap();
    let mut command: Command = plane.client(python.join("bin/python"));
    command.args(["-m", "kopf", "run", "-n", "default", "--verbose"]).arg(program("boats.py"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut operator = Running(command.spawn().unwrap());
    let patience = Duration::from_secs(90);
    let crew = || {
        let map = plane.kubectl.json(&["get", "configmap", "eight"]);
        map.map(|m| m["data"]["crew"].as_str().unwrap_or_default().to_owned())
    };
    plane.kubectl.apply("{apiVersion: example.com/v1, kind: Boat, metadata: {name: eight}, spec: {crew: 8}}");
    until_some("the operator makes a ConfigMap", patience, || {
        assert_eq!(operator.0.try_wait().unwrap(), None, "the operator ended");
        let log = std::fs::read_to_string(plane.scratch.join("kopf.log")).unwrap_or_default();
        crew().filter(|crew| crew == "8").ok_or(log)
    });
    plane.kubectl.ok(&["patch", "boat", "eight", "--type=merge", "-p", r#"{"spec": {"crew": 4}}"#]);
    until("the operator follows", patience, || crew().as_deref() == Some("4"));
    until("it says so in the status", patience, || {
        plane
            .kubectl
            .json(&["get", "boat", "eight"])
            .is_some_and(|b| b["status"]["create"]["made"] == "eight")
    });
    plane.kubectl.ok(&["delete", "boat", "eight", "--timeout=90s"]);
    assert!(
        plane.kubectl.json(&["get", "configmap", "eight-gone"]).is_some(),
        "its finalizer was not waited for"
    );
    until("what the boat owned is collected", patience, || crew().is_none());
}
