//! Logs and exec, with our kubectl and upstream's, through the node tunnel.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::Duration;

use coxswain::images::{Image, write};
use support::{Cluster, Kubectl, until};

/// An image with one static program that is many.
pub const BUSYBOX: &str = "test.local/busybox:1";

/// The program within it.
const BB: &str = "/bin/busybox";

const PATIENCE: Duration = Duration::from_secs(60);

/// Builds [`BUSYBOX`] from Debian's static busybox and loads it into every node.
pub fn load_busybox(cluster: &Cluster) {
    let program = std::fs::read("/bin/busybox").expect("the package busybox-static is installed");
    let image = Image {
        name: BUSYBOX.into(),
        program: program.leak(),
        path: "bin/busybox".into(),
        user: "0:0".into(),
        port: None,
        dirs: vec!["bin".into(), "etc".into(), "tmp".into()],
    };
    load(cluster, "busybox", image);
}

/// Loads an image into every node through an archive, as a user would.
pub fn load(cluster: &Cluster, name: &str, image: Image) {
    let path = cluster.state().join(format!("{name}.tar"));
    let file = std::fs::File::create(&path).expect("the state directory is writable");
    write(&[image], file).expect("the archive can be written");
    cluster.coxswain_ok(&["image", "load", &path.display().to_string()]);
}

/// What the container writes to its standard output.
const LINES: &str = "line 0\nline 1\nline 2\nline 3\nline 4\n";

#[test]
fn logs_and_exec_reach_the_container() {
    let cluster = Cluster::up("streams", 1);
    load_busybox(&cluster);
    let script = "i=0; while [ $i -lt 5 ]; do echo line $i; i=$((i+1)); done; echo oops >&2; while true; do sleep 1; done";
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker", "labels": {"app": "talker"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": BUSYBOX, "command": ["/bin/busybox", "sh", "-c", script]}]}});
    cluster.kubectl.apply(&pod.to_string());
    cluster.ready_pods("default", "app=talker", 1, PATIENCE);
    check(&cluster, &cluster.kubectl);
    crate::attach::check(&cluster, &cluster.kubectl, "ours");
    if let Some(upstream) = cluster.upstream_kubectl() {
        check(&cluster, &upstream);
        crate::attach::check(&cluster, &upstream, "upstreams");
    }
    crate::websocket::check(&cluster, "talker");
    follow(&cluster);
}

fn check(cluster: &Cluster, kubectl: &Kubectl) {
    // The runtime reads both outputs of a container, in no order between them.
    let all = || kubectl.run(&["logs", "talker"]).stdout;
    until("the container has written", PATIENCE, || all().lines().count() == 6);
    let written = all();
    assert!(written.contains("oops\n") && written.replace("oops\n", "") == LINES, "{written}");
    let last_two = written.split_inclusive('\n').skip(4).collect::<String>();
    assert_eq!(kubectl.ok(&["logs", "talker", "--tail=2"]), last_two);
    assert!(kubectl.ok(&["logs", "talker", "--timestamps"]).starts_with("20"));
    assert_ne!(kubectl.run(&["logs", "nobody"]).code, 0);
    assert_ne!(kubectl.run(&["logs", "talker", "-c", "nobody"]).code, 0);

    assert_eq!(kubectl.ok(&["exec", "talker", "--", BB, "echo", "hello"]), "hello\n");
    let failed = kubectl.run(&["exec", "talker", "--", BB, "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (42, "out\n"), "{failed:?}");
    assert!(failed.stderr.starts_with("err\n"), "{failed:?}");
    let missing = kubectl.run(&["exec", "talker", "--", "/no/such/program"]);
    assert_ne!(missing.code, 0, "{missing:?}");

    // Input ends, and so does the command that reads it; nothing of a large text is lost.
    let text: String = (0..200_000).map(|i| format!("{i}\n")).collect();
    let echoed = kubectl.run_with_input(&["exec", "-i", "talker", "--", BB, "cat"], &text);
    assert_eq!(echoed.code, 0, "{}", echoed.stderr);
    assert!(echoed.stdout == text, "{} of {} bytes came back", echoed.stdout.len(), text.len());
    // A command that leaves its input unread ends all the same, with its output and its code.
    let script = "echo before; sleep 1; echo after; exit 5";
    let unread = kubectl.run_with_input(&["exec", "-i", "talker", "--", BB, "sh", "-c", script], &text);
    assert_eq!((unread.code, unread.stdout.as_str()), (5, "before\nafter\n"), "{unread:?}");
    terminal(cluster, kubectl);
}

/// A terminal, which `script` provides: `test -t 0` holds only on one.
fn terminal(cluster: &Cluster, kubectl: &Kubectl) {
    let inner = format!(
        "{} exec -it talker -- {BB} sh -c 'test -t 0 && echo on a terminal'",
        kubectl.program.display()
    );
    let mut command = Command::new("script");
    command
        .args(["-qec", &inner, "/dev/null"])
        .env("KUBECONFIG", &kubectl.kubeconfig)
        .env("HOME", cluster.state());
    let output = kubectl.netns.enter(&mut command).output().expect("script is part of Debian's base system");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("on a terminal"), "{text}");
}

fn follow(cluster: &Cluster) {
    let mut command = cluster.kubectl.command(&["logs", "-f", "talker"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("kubectl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    // It follows once it has printed what was there.
    let printed: Vec<_> = lines.by_ref().take(6).collect::<Result<_, _>>().expect("the log is text");
    assert!(printed.contains(&"oops".to_owned()), "the log is printed: {printed:?}");
    cluster.kubectl.ok(&["delete", "pod", "talker"]);
    assert_eq!(lines.map_while(Result::ok).count(), 0, "nothing was written later, and following ends");
    assert!(child.wait().expect("following ends with the container").success());
}
