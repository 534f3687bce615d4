//! What a node does for a pod beside running it: probes of every kind, hooks, last words, logs that are cut, and a
//! node that was deleted.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Cluster, is_ready, until, until_some};
use tokio::sync::{oneshot, watch};
use tonic_health::ServingStatus;

use crate::streams::BUSYBOX;

const PATIENCE: Duration = Duration::from_secs(60);
/// The port at which the health service of a test listens in a node's network.
const GRPC_PORT: u16 = 50051;
/// A log of this many bytes is put aside.
const LOG_BYTES: &str = "64Ki";
/// Lines that are written while the log is put aside and followed, at ten in a tenth of a second: for longer than
/// the kubelet waits before it looks at the sizes of logs.
const LINES: usize = 1600;

fn pod(name: &str, mut container: Value, spec: Value) -> Value {
    container["name"] = json!("main");
    container["image"] = json!(BUSYBOX);
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    });
    if let (Some(to), Some(from)) = (pod["spec"].as_object_mut(), spec.as_object()) {
        to.extend(from.clone());
    }
    pod
}

fn shell(script: &str) -> Value {
    json!({"command": ["/bin/busybox", "sh", "-c", script]})
}

/// A container with more in it than its command.
fn with(mut container: Value, more: Value) -> Value {
    if let (Some(to), Some(from)) = (container.as_object_mut(), more.as_object()) {
        to.extend(from.clone());
    }
    container
}

fn get(cluster: &Cluster, name: &str) -> Value {
    cluster.kubectl.json(&["get", "pod", name]).unwrap_or_default()
}

fn status(cluster: &Cluster, name: &str) -> Value {
    get(cluster, name)["status"]["containerStatuses"][0].clone()
}

/// Whether an event of a pod begins so.
fn told(cluster: &Cluster, pod: &str, reason: &str, message: &str) -> bool {
    let selector = format!("involvedObject.name={pod},reason={reason}");
    let events = cluster.kubectl.items(&["get", "events", "--field-selector", &selector]);
    events.iter().any(|e| e["message"].as_str().is_some_and(|m| m.starts_with(message)))
}

fn await_event(cluster: &Cluster, pod: &str, reason: &str, message: &str) {
    until_some(&format!("{pod} is told of {reason}: {message}"), PATIENCE, || {
        told(cluster, pod, reason, message).then_some(()).ok_or_else(|| cluster.overview("default"))
    });
}

#[test]
fn a_node_probes_hooks_and_remembers() {
    let limit = format!("kubelet=--container-log-max-size={LOG_BYTES}");
    let cluster = Cluster::up_with("hooks", 1, &["--extra-arg", &limit]);
    crate::streams::load_busybox(&cluster);
    let health = Health::serve(&cluster);
    let mut all: Vec<Value> = vec![scroll(), slow_start(), posted(), badly_posted(), speaker(), mute()];
    all.extend(stoppers());
    all.extend(probed());
    let list = json!({"apiVersion": "v1", "kind": "List", "items": all});
    cluster.kubectl.apply(&list.to_string());
    let log = follow(&cluster, "scroll");
    a_grpc_probe_asks_the_health_service(&cluster, &health);
    a_tcp_probe_connects(&cluster);
    a_startup_probe_holds_the_others_back(&cluster);
    a_post_start_hook_runs_before_the_container_is_running(&cluster);
    last_words_are_shown(&cluster);
    pre_stop_hooks_come_before_the_signal(&cluster);
    nothing_is_lost_when_a_followed_log_is_cut(log);
    a_deleted_node_comes_back(&cluster);
}

fn probed() -> [Value; 3] {
    let probe = |handler: Value| with(handler, json!({"periodSeconds": 1, "failureThreshold": 1}));
    let httpd = shell("sleep 1; busybox httpd -f -p 8081 -h /tmp");
    [
        pod(
            "tcp",
            with(
                httpd,
                json!({
                    "ports": [{"name": "web", "containerPort": 8081}],
                    "readinessProbe": probe(json!({"tcpSocket": {"port": "web"}})),
                }),
            ),
            json!({}),
        ),
        pod(
            "closed",
            with(shell("sleep 600"), json!({"readinessProbe": probe(json!({"tcpSocket": {"port": 9}}))})),
            json!({}),
        ),
        pod(
            "grpc",
            with(
                shell("sleep 600"),
                json!({"readinessProbe": probe(json!({"grpc": {"port": GRPC_PORT, "service": "shop"}}))}),
            ),
            json!({"hostNetwork": true}),
        ),
    ]
}

fn a_tcp_probe_connects(cluster: &Cluster) {
    cluster.ready_pods("default", "app=tcp", 1, PATIENCE);
    await_event(cluster, "closed", "Unhealthy", "Readiness probe failed: dial tcp ");
    assert!(!is_ready(&get(cluster, "closed")), "{}", cluster.overview("default"));
}

/// A health service in the network of the first node, where a pod with `hostNetwork` could be listening.
struct Health {
    serving: watch::Sender<ServingStatus>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Health {
    fn serve(cluster: &Cluster) -> Self {
        let netns = cluster.node("node-1");
        let (serving, mut status) = watch::channel(ServingStatus::NotServing);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            netns.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime starts").block_on(async {
                    let (reporter, service) = tonic_health::server::health_reporter();
                    let report = async {
                        loop {
                            let now = *status.borrow_and_update();
                            reporter.set_service_status("shop", now).await;
                            if status.changed().await.is_err() {
                                std::future::pending::<()>().await;
                            }
                        }
                    };
                    let address = (std::net::Ipv4Addr::UNSPECIFIED, GRPC_PORT).into();
                    let server = tonic::transport::Server::builder().add_service(service).serve(address);
                    tokio::select! {
                        () = report => {}
                        served = server => served.expect("the port is free in the node's network"),
                        _ = stopped => {}
                    }
                });
            });
        });
        Self { serving, stop: Some(stop), thread: Some(thread) }
    }

    fn set(&self, status: ServingStatus) {
        self.serving.send_replace(status);
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the thread is printed already, and the probe that found nothing fails the test.
            let _ = thread.join();
        }
    }
}

fn a_grpc_probe_asks_the_health_service(cluster: &Cluster, health: &Health) {
    let failed = "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")";
    await_event(cluster, "grpc", "Unhealthy", failed);
    assert!(!is_ready(&get(cluster, "grpc")), "{}", cluster.overview("default"));
    health.set(ServingStatus::Serving);
    until("grpc is ready", PATIENCE, || is_ready(&get(cluster, "grpc")));
    health.set(ServingStatus::NotServing);
    until("grpc is not ready any more", PATIENCE, || !is_ready(&get(cluster, "grpc")));
}

/// What lives only once it has started would be restarted at once if it were asked before.
fn slow_start() -> Value {
    let ask = |failures: u32| json!({"exec": {"command": ["/bin/busybox", "cat", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": failures});
    let more = json!({"startupProbe": ask(60), "livenessProbe": ask(1), "readinessProbe": ask(1)});
    pod("slow", with(shell("sleep 3; touch /tmp/ok; sleep 600"), more), json!({}))
}

fn a_startup_probe_holds_the_others_back(cluster: &Cluster) {
    cluster.ready_pods("default", "app=slow", 1, PATIENCE);
    let now = status(cluster, "slow");
    assert_eq!((&now["restartCount"], &now["started"]), (&json!(0), &json!(true)), "{now}");
    await_event(cluster, "slow", "Unhealthy", "Startup probe failed: ");
    for other in ["Liveness", "Readiness"] {
        assert!(!told(cluster, "slow", "Unhealthy", other), "{}", cluster.overview("default"));
    }
}

fn posted() -> Value {
    let script = "until [ -e /tmp/posted ]; do sleep 0.1; done; echo hook came; sleep 600";
    let hook = json!({"postStart": {"exec": {"command": ["/bin/busybox", "sh", "-c", "sleep 1; touch /tmp/posted"]}}});
    pod("posted", with(shell(script), json!({"lifecycle": hook})), json!({}))
}

fn badly_posted() -> Value {
    let hook = json!({"postStart": {"exec": {"command": ["/bin/busybox", "sh", "-c", "echo no such luck; exit 9"]}}});
    pod("bad-post", with(shell("sleep 600"), json!({"lifecycle": hook})), json!({}))
}

fn a_post_start_hook_runs_before_the_container_is_running(cluster: &Cluster) {
    cluster.ready_pods("default", "app=posted", 1, PATIENCE);
    // Ready means that the hook has ended.
    until("the container has seen the hook's file", PATIENCE, || {
        cluster.kubectl.ok(&["logs", "posted"]) == "hook came\n"
    });
    await_event(cluster, "bad-post", "FailedPostStartHook", "PostStartHook failed");
    until("the container is started again", PATIENCE, || {
        status(cluster, "bad-post")["restartCount"].as_i64() >= Some(1)
    });
}

/// Writes its last words to a file of its own choice, and more than is kept of them to its log.
fn speaker() -> Value {
    let more = json!({"terminationMessagePath": "/tmp/words"});
    let script = "echo to the log; echo -n farewell > /tmp/words; exit 3";
    pod("speaker", with(shell(script), more), json!({"restartPolicy": "Never"}))
}

/// Writes no last words; its log stands in.
fn mute() -> Value {
    let more = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    pod("mute", with(shell("echo it broke; exit 4"), more), json!({"restartPolicy": "Never"}))
}

fn last_words_are_shown(cluster: &Cluster) {
    for (name, code, words) in [("speaker", 3, "farewell"), ("mute", 4, "it broke\n")] {
        let ended = until_some(&format!("{name} has ended"), PATIENCE, || {
            let state = status(cluster, name)["state"]["terminated"].clone();
            if state.is_null() { Err(cluster.overview("default")) } else { Ok(state) }
        });
        assert_eq!((&ended["exitCode"], &ended["message"]), (&json!(code), &json!(words)), "{ended}");
    }
}

/// Each says when it hears the signal. Its hook is heard before.
fn stoppers() -> [Value; 3] {
    let waits = "trap 'echo signal; exit 0' TERM; while true; do sleep 0.1; done";
    // Answers one request, after it has told of it.
    let answer =
        "read -r method path rest; echo hook $path > /proc/1/fd/1; printf 'HTTP/1.1 200 OK\\r\\n\\r\\n'";
    let answers = format!(
        "echo \"{}\" > /tmp/answer; busybox nc -l -p 8082 -e /bin/busybox sh /tmp/answer & ",
        answer.replace('$', "\\$")
    );
    let hook = |handler: Value| json!({"lifecycle": {"preStop": handler}});
    let long = json!({"terminationGracePeriodSeconds": 30});
    let exec = json!({"exec": {"command": ["/bin/busybox", "sh", "-c", "echo hook > /proc/1/fd/1"]}});
    let http = json!({"httpGet": {"path": "/bye", "port": 8082}});
    [
        pod("stop-exec", with(shell(waits), hook(exec)), long.clone()),
        pod("stop-http", with(shell(&format!("{answers}{waits}")), hook(http)), long.clone()),
        pod("stop-sleep", with(shell(waits), hook(json!({"sleep": {"seconds": 3}}))), long),
    ]
}

fn pre_stop_hooks_come_before_the_signal(cluster: &Cluster) {
    let stop = |name: &str| {
        cluster.ready_pods("default", &format!("app={name}"), 1, PATIENCE);
        let log = follow(cluster, name);
        let began = Instant::now();
        cluster.kubectl.ok(&["delete", "pod", name]);
        (log.rest(), began.elapsed())
    };
    assert_eq!(stop("stop-exec").0, "hook\nsignal\n");
    assert_eq!(stop("stop-http").0, "hook /bye\nsignal\n");
    let (heard, took) = stop("stop-sleep");
    assert_eq!(heard, "signal\n");
    assert!(took >= Duration::from_secs(3), "the hook was not waited for: {took:?}");
}

/// `kubectl logs -f`, killed when dropped.
struct Follow(Child);

fn follow(cluster: &Cluster, name: &str) -> Follow {
    until(&format!("{name} has started"), PATIENCE, || !status(cluster, name)["state"]["running"].is_null());
    let mut command = cluster.kubectl.command(&["logs", "-f", name]);
    Follow(command.stdout(Stdio::piped()).spawn().expect("kubectl starts"))
}

impl Follow {
    /// All that comes until the container has ended.
    fn rest(mut self) -> String {
        let mut text = String::new();
        let mut output = self.0.stdout.take().expect("it is piped");
        output.read_to_string(&mut text).expect("the log is text");
        assert!(self.0.wait().expect("following ends with the container").success());
        text
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes numbered lines, long enough that the log is put aside at least once.
fn scroll() -> Value {
    let filler = "x".repeat(120);
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do echo $i {filler}; i=$((i+1)); \
         if [ $((i % 10)) -eq 0 ]; then sleep 0.1; fi; done"
    );
    pod("scroll", shell(&script), json!({"restartPolicy": "Never"}))
}

fn nothing_is_lost_when_a_followed_log_is_cut(mut log: Follow) {
    let lines = BufReader::new(log.0.stdout.take().expect("it is piped")).lines();
    let number = |line: String| line.split(' ').next().and_then(|n| n.parse::<usize>().ok());
    let seen: Vec<_> = lines.map_while(Result::ok).filter_map(number).collect();
    let expected: Vec<_> = (0..LINES).collect();
    let wrong = seen.iter().zip(&expected).find(|(a, b)| a != b);
    assert!(seen == expected, "{} of {LINES} lines came; first wrong: {wrong:?}", seen.len());
}

fn a_deleted_node_comes_back(cluster: &Cluster) {
    let node = || cluster.kubectl.json(&["get", "node", "node-1"]).unwrap_or_default();
    let before = node()["metadata"]["uid"].clone();
    cluster.kubectl.ok(&["delete", "node", "node-1"]);
    until("the node is registered again and Ready", PATIENCE, || {
        let now = node();
        now["metadata"]["uid"].is_string() && now["metadata"]["uid"] != before && is_ready(&now)
    });
    until("its lease is its own", PATIENCE, || {
        let lease = cluster.kubectl.json(&["-n", "kube-node-lease", "get", "lease", "node-1"]);
        let owner = lease.map(|l| l["metadata"]["ownerReferences"][0]["uid"].clone());
        owner.is_some_and(|uid| uid == node()["metadata"]["uid"])
    });
    let late = pod("late", shell("sleep 600"), json!({}));
    cluster.kubectl.apply(&late.to_string());
    cluster.ready_pods("default", "app=late", 1, PATIENCE);
}
