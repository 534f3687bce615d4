//! The launcher on a real host: what it leaves behind after failures and crashes, and who outlives whom.
//!
//! Each cluster stands in a network namespace of its own, with real etcd and containerd. Our own components are
//! replaced by programs that end at once, so that `up` fails halfway. Needs root.
#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tempfile::TempDir;

/// A host of its own, as far as a network namespace, a home and a state directory make one.
struct Host {
    name: String,
    home: TempDir,
}

impl Host {
    fn new(test: &str) -> Self {
        let name = format!("{test}-{}", std::process::id());
        let home = TempDir::with_prefix("coxswain-deploy-").unwrap();
        let host = Self { name, home };
        fs::create_dir(host.home.path().join("bin")).unwrap();
        for component in [
            "etcd-lite",
            "kube-apiserver",
            "kube-scheduler",
            "kube-controller-manager",
            "kubelet",
            "kube-proxy",
        ] {
            let path = host.home.path().join("bin").join(component);
            fs::write(&path, "#!/bin/sh\necho this is not the component >&2\nexit 3\n").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        run("ip", &["netns", "add", &host.netns()]);
        run("ip", &["-n", &host.netns(), "link", "set", "lo", "up"]);
        host
    }

    fn netns(&self) -> String {
        format!("cxtest-{}", self.name)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kube/config")
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .env("COXSWAIN_NAME", &self.name)
            .env("COXSWAIN_STATE_DIR", self.home.path().join("state"))
            .env("COXSWAIN_BIN_DIR", self.home.path().join("bin"))
            .stdin(Stdio::null());
        let file = File::open(Path::new("/run/netns").join(self.netns())).unwrap();
        let enter = move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(std::io::Error::from)
        };
        // SAFETY: setns is a plain system call; nothing between fork and exec allocates or locks.
        unsafe { command.pre_exec(enter) };
        command
    }

    fn coxswain(&self, args: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_coxswain"), args).output().unwrap()
    }

    #[track_caller]
    fn down(&self) {
        let output = self.coxswain(&["down"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(env!("CARGO_BIN_EXE_coxswain"), args);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// What of the machine a cluster could have changed.
    fn traces(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut note = |what: &str, output: &[u8]| {
            let lines = text(output);
            all.extend(
                lines
                    .lines()
                    .filter(|l| what.starts_with("own") || l.contains(&self.name))
                    .map(|l| format!("{what}: {l}")),
            );
        };
        let own = |program: &str, args: &[&str]| self.command(program, args).output().unwrap().stdout;
        note("own link", &own("ip", &["-brief", "link"]));
        note("own address", &own("ip", &["-brief", "address"]));
        note("own route", &own("ip", &["route", "show", "table", "all"]));
        note("own table", &own("nft", &["list", "ruleset"]));
        note("own forwarding", &own("cat", &["/proc/sys/net/ipv4/ip_forward"]));
        note("mount", &fs::read("/proc/self/mountinfo").unwrap());
        note("cgroup", &output("find", &["/sys/fs/cgroup", "-maxdepth", "3", "-type", "d"]));
        note("namespace", &output("ls", &["/run/netns"]));
        note("file", &output("ls", &["/run/coxswain", "/var/lib/coxswain"]));
        note("process", &output("ps", &["-eo", "stat=,args="]));
        let home = output("find", &[self.home.path().to_str().unwrap()]);
        note("own file", &home);
        all
    }

    fn report(&self) -> Value {
        let output = self.coxswain(&["status", "-o", "json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn pid(&self, process: &str) -> Option<i32> {
        let report = self.report();
        let found = report["processes"].as_array().unwrap().iter().find(|p| p["name"] == process)?.clone();
        found["pid"].as_i64().map(|pid| i32::try_from(pid).unwrap())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let down = self.coxswain(&["down"]);
        if !down.status.success() {
            eprintln!("{}", text(&down.stderr));
        }
        run("ip", &["netns", "delete", &self.netns()]);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn output(program: &str, args: &[&str]) -> Vec<u8> {
    Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}")).stdout
}

#[track_caller]
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output.stderr));
}

#[track_caller]
fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !check() {
        assert!(Instant::now() < deadline, "{what}: not within 30 s");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn an_up_that_fails_names_the_step_and_its_log_and_can_be_undone() {
    let host = Host::new("fails");
    fs::create_dir(host.home.path().join("kube")).unwrap();
    fs::write(host.kubeconfig(), "apiVersion: v1\nkind: Config\ncurrent-context: mine\n").unwrap();
    let before = host.traces();
    let up = host.coxswain(&["up", "--etcd", "--nodes", "2", "--egress", "--timeout", "60"]);
    assert_eq!(up.status.code(), Some(1));
    let said = text(&up.stderr);
    for part in [
        "✓ etcd",
        "✗ API server",
        "API server did not come up",
        "kube-apiserver.log",
        "this is not the component",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    assert_ne!(host.traces(), before, "a cluster that is half up can be seen");
    host.down();
    assert_eq!(host.traces(), before);
    assert!(
        text(&host.coxswain(&["down"]).stderr).contains("there is no cluster"),
        "down again does nothing"
    );
}

#[test]
fn an_up_that_is_killed_at_any_moment_can_be_undone() {
    let host = Host::new("killed");
    let before = host.traces();
    for millis in [0, 40, 120, 250, 400, 600, 900] {
        let mut up = host.start(&["up", "--etcd", "--nodes", "2"]);
        std::thread::park_timeout(Duration::from_millis(millis));
        up.kill().unwrap();
        up.wait().unwrap();
        host.down();
        assert_eq!(host.traces(), before, "killed after {millis} ms");
    }
}

#[test]
fn what_lives_when_the_supervisor_dies_is_adopted() {
    let host = Host::new("adopt");
    let mut up = host.start(&["up", "--etcd", "--nodes", "1"]);
    up.wait().unwrap();
    let (etcd, containerd) = (host.pid("etcd").unwrap(), host.pid("node-1/containerd").unwrap());
    let supervisor = host.pid("supervisor").unwrap();
    kill(supervisor);
    until("another supervisor answers", || host.pid("supervisor").is_some_and(|pid| pid != supervisor));
    assert_eq!((host.pid("etcd"), host.pid("node-1/containerd")), (Some(etcd), Some(containerd)));

    // Those that were adopted are restarted like those that were started.
    kill(etcd);
    until("etcd runs again", || host.pid("etcd").is_some_and(|pid| pid != etcd));
    // With its first process the whole node dies, and boots again.
    let machine = host.pid("node-1/machine").unwrap();
    kill(machine);
    until("the node runs again", || {
        let containerd_runs = host.pid("node-1/containerd").is_some_and(|pid| pid != containerd);
        containerd_runs && host.pid("node-1/machine").is_some_and(|pid| pid != machine)
    });
}

#[test]
fn a_stopped_node_is_dead_and_stays_so_until_it_is_started() {
    let host = Host::new("power");
    let mut up = host.start(&["up", "--etcd", "--nodes", "2"]);
    up.wait().unwrap();
    let stopped = host.coxswain(&["node", "stop", "node-2"]);
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    assert_eq!((host.pid("node-2/machine"), host.pid("node-2/containerd")), (None, None));
    assert!(host.pid("node-1/containerd").is_some(), "the other node goes on");
    let netns = format!("/run/netns/coxswain-{}-node-2", host.name);
    assert!(!Path::new(&netns).exists(), "its link is down");
    kill(host.pid("supervisor").unwrap());
    assert_eq!(host.pid("node-2/machine"), None, "another supervisor knows that it was stopped");
    let started = host.coxswain(&["node", "start", "node-2", "--timeout", "0"]);
    assert!(started.status.success(), "{}", text(&started.stderr));
    until("the node runs again", || host.pid("node-2/containerd").is_some());

    let unknown = host.coxswain(&["node", "stop", "node-9"]);
    assert!(text(&unknown.stderr).contains("there are: node-1, node-2"), "{}", text(&unknown.stderr));
}

#[test]
fn two_clusters_on_one_host_do_not_touch_each_other() {
    let host = Host::new("pair");
    let mut up = host.start(&["up", "--etcd", "--nodes", "1"]);
    up.wait().unwrap();
    let etcd = host.pid("etcd").unwrap();
    let other = format!("{}-b", host.name);
    let second = |args: &[&str]| {
        let mut command = host.command(env!("CARGO_BIN_EXE_coxswain"), args);
        command.env("COXSWAIN_NAME", &other).output().unwrap()
    };
    let said = text(&second(&["up", "--etcd", "--nodes", "1"]).stderr);
    assert!(said.contains("✓ etcd") && said.contains("✓ network"), "{said}");
    let down = second(&["down"]);
    assert!(down.status.success(), "{}", text(&down.stderr));
    assert_eq!(host.pid("etcd"), Some(etcd));
    let routes = text(&host.command("ip", &["route"]).output().unwrap().stdout);
    assert_eq!(routes.matches("blackhole").count(), 3, "{routes}");
    let left: Vec<_> = host.traces().into_iter().filter(|trace| trace.contains(&other)).collect();
    assert!(left.is_empty(), "{left:?}");
}
