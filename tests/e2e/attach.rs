//! Joining the process that a container runs, with our kubectl and upstream's.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use support::{Cluster, Kubectl, until_some};

use crate::streams::BUSYBOX;

const PATIENCE: Duration = Duration::from_secs(60);

/// A pod whose process repeats what it hears, and ends with its input.
fn listener(name: &str, tty: bool) -> String {
    let script = "while read line; do echo heard $line; done; echo no more; exit 0";
    let container = json!({
        "name": "main", "image": BUSYBOX, "command": ["/bin/busybox", "sh", "-c", script],
        "stdin": true, "stdinOnce": true, "tty": tty,
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]},
    });
    pod.to_string()
}

/// A pod that does not stop talking.
fn ticker() -> String {
    let script = "while true; do echo tick; sleep 0.1; done";
    let container =
        json!({"name": "main", "image": BUSYBOX, "command": ["/bin/busybox", "sh", "-c", script]});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ticker", "labels": {"app": "ticker"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    });
    pod.to_string()
}

/// Attaches with a kubectl to pods of its own.
pub fn check(cluster: &Cluster, kubectl: &Kubectl, whose: &str) {
    let (plain, terminal) = (format!("listener-{whose}"), format!("terminal-{whose}"));
    cluster.kubectl.apply(&listener(&plain, false));
    cluster.kubectl.apply(&listener(&terminal, true));
    cluster.kubectl.apply(&ticker());
    cluster.ready_pods("default", "app=ticker", 1, PATIENCE);
    output_is_followed(kubectl);
    cluster.ready_pods("default", &format!("app={plain}"), 1, PATIENCE);
    input_is_heard(cluster, kubectl, &plain);
    cluster.ready_pods("default", &format!("app={terminal}"), 1, PATIENCE);
    a_terminal_is_shared(cluster, kubectl, &terminal);
    assert_ne!(kubectl.run(&["attach", "nobody"]).code, 0);
    let ended = kubectl.run(&["attach", &plain]);
    assert_ne!(ended.code, 0, "{ended:?}");
}

/// Attaching without input shows what is written from then on.
fn output_is_followed(kubectl: &Kubectl) {
    let mut child =
        kubectl.command(&["attach", "ticker"]).stdout(Stdio::piped()).spawn().expect("kubectl starts");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let read = output.read_line(&mut line);
    child.kill().expect("it is running");
    child.wait().expect("it was started");
    assert!(read.is_ok() && line == "tick\n", "{line:?}");
}

fn input_is_heard(cluster: &Cluster, kubectl: &Kubectl, pod: &str) {
    let said = kubectl.run_with_input(&["attach", "-i", pod], "one\ntwo\n");
    assert_eq!(said.code, 0, "{said:?}");
    until_some("the process has heard all and ended", PATIENCE, || {
        let phase = cluster.kubectl.ok(&["get", "pod", pod, "-o", "jsonpath={.status.phase}"]);
        if phase == "Succeeded" { Ok(()) } else { Err(format!("{phase} {said:?}")) }
    });
    assert_eq!(cluster.kubectl.ok(&["logs", pod]), "heard one\nheard two\nno more\n");
    // Attaching may have come after the first words.
    assert!(said.stdout.ends_with("no more\n"), "{said:?}");
}

/// A terminal, which `script` provides on this side.
fn a_terminal_is_shared(cluster: &Cluster, kubectl: &Kubectl, pod: &str) {
    let inner = format!("{} attach -it {pod}", kubectl.program.display());
    let mut command = Command::new("script");
    command
        .args(["-qec", &inner, "/dev/null"])
        .env("KUBECONFIG", &kubectl.kubeconfig)
        .env("HOME", cluster.state())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child =
        kubectl.netns.enter(&mut command).spawn().expect("script is part of Debian's base system");
    let mut input = child.stdin.take().expect("it is piped");
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    // What is typed before the terminals are joined may be lost, and so it is typed until it is heard.
    let typing = std::thread::spawn(move || {
        while input.write_all(b"hello\n").is_ok() {
            pause();
        }
    });
    let mut text = String::new();
    while !text.contains("heard hello") {
        let mut line = String::new();
        let read = output.read_line(&mut line).unwrap_or(0);
        assert!(read > 0, "the terminal ended: {text:?}");
        text.push_str(&line);
    }
    child.kill().expect("it is running");
    child.wait().expect("it was started");
    typing.join().expect("typing ends with its reader");
    cluster.kubectl.ok(&["delete", "pod", pod]);
}

#[allow(clippy::disallowed_methods, reason = "nobody types without a pause")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}
