//! The life of containers: crashes, probes, init containers, configuration, termination.

use std::time::Duration;

use serde_json::{Value, json};
use support::{Cluster, until, until_some};

const PATIENCE: Duration = Duration::from_secs(60);

fn pod(name: &str, spec: Value) -> String {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1},
    });
    if let (Some(to), Some(from)) = (pod["spec"].as_object_mut(), spec.as_object()) {
        to.extend(from.clone());
    }
    pod.to_string()
}

fn shell(script: &str) -> Value {
    json!({"name": "main", "image": crate::streams::BUSYBOX, "command": ["/bin/busybox", "sh", "-c", script]})
}

fn status(cluster: &Cluster, name: &str) -> Value {
    cluster
        .kubectl
        .json(&["get", "pod", name])
        .map(|p| p["status"]["containerStatuses"][0].clone())
        .unwrap_or_default()
}

#[test]
fn containers_live_and_die_as_documented() {
    let cluster = Cluster::up("lifecycle", 2);
    crate::streams::load_busybox(&cluster);
    let all = [
        pod("crasher", json!({"containers": [shell("exit 3")]})),
        pod(
            "unlively",
            json!({"containers": [{
                "name": "main", "image": crate::streams::BUSYBOX,
                "command": ["/bin/busybox", "sh", "-c", "touch /tmp/ok; sleep 3; rm /tmp/ok; sleep 600"],
                "livenessProbe": {"exec": {"command": ["/bin/busybox", "cat", "/tmp/ok"]},
                    "periodSeconds": 1, "failureThreshold": 2},
            }]}),
        ),
        pod("finisher", json!({"restartPolicy": "Never", "containers": [shell("echo done; exit 0")]})),
        pod("failer", json!({"restartPolicy": "Never", "containers": [shell("exit 7")]})),
        configured(),
    ];
    for manifest in &all {
        cluster.kubectl.apply(manifest);
    }
    a_failing_liveness_probe_restarts(&cluster);
    finished_pods_have_their_phase(&cluster);
    configuration_reaches_the_container(&cluster);
    a_failing_readiness_probe_takes_it_out_of_the_service(&cluster);
    a_stubborn_container_is_killed_after_its_grace(&cluster);
    a_crashing_container_backs_off(&cluster);
}

fn a_crashing_container_backs_off(cluster: &Cluster) {
    let finished = |count: i64| {
        until_some(&format!("{count} restarts"), PATIENCE, || {
            let status = status(cluster, "crasher");
            let text = |v: &Value| v.as_str().map(str::to_owned);
            let at = text(&status["lastState"]["terminated"]["finishedAt"]);
            let at = at.or_else(|| text(&status["state"]["terminated"]["finishedAt"]));
            if status["restartCount"].as_i64() >= Some(count) {
                at.ok_or(status.to_string())
            } else {
                Err(status.to_string())
            }
        })
    };
    finished(2);
    until("it waits in CrashLoopBackOff", PATIENCE, || {
        status(cluster, "crasher")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    let last = status(cluster, "crasher");
    assert_eq!(last["lastState"]["terminated"]["exitCode"], 3, "{last}");
    assert_eq!(last["lastState"]["terminated"]["reason"], "Error", "{last}");
    // The third restart comes 20 s after the second container's end, or later.
    let events = cluster.kubectl.items(&[
        "get",
        "events",
        "--field-selector",
        "involvedObject.name=crasher,reason=BackOff",
    ]);
    assert!(!events.is_empty(), "{}", cluster.overview("default"));
    let shown = cluster.kubectl.ok(&["get", "pod", "crasher"]);
    assert!(shown.contains("CrashLoopBackOff"), "{shown}");
}

fn a_failing_liveness_probe_restarts(cluster: &Cluster) {
    until("the unlively container is restarted", PATIENCE, || {
        status(cluster, "unlively")["restartCount"].as_i64() >= Some(1)
    });
    let selector = "involvedObject.name=unlively,reason=Unhealthy";
    let events = cluster.kubectl.items(&["get", "events", "--field-selector", selector]);
    let message = events.first().and_then(|e| e["message"].as_str()).unwrap_or_default().to_owned();
    assert!(message.starts_with("Liveness probe failed"), "{message:?}");
}

fn finished_pods_have_their_phase(cluster: &Cluster) {
    let phase = |name: &str| cluster.kubectl.ok(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]);
    until("finisher has succeeded", PATIENCE, || phase("finisher") == "Succeeded");
    until("failer has failed", PATIENCE, || phase("failer") == "Failed");
    assert_eq!(status(cluster, "failer")["state"]["terminated"]["exitCode"], 7);
    assert_eq!(cluster.kubectl.ok(&["logs", "finisher"]), "done\n");
}

/// Init containers, several containers in one network, environment and every kind of volume.
fn configured() -> String {
    let script = "cat /config/key /secret/password /shared/from-init; echo \"$GREETING $MY_NAME $LEVEL $TOKEN\"; \
                  wget -qO- http://127.0.0.1:8080/hello; cat /host/marker; hostname; sleep 600";
    let manifest = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "from-config\n", "level": "7"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"}, "stringData": {"password": "from-secret\n", "token": "t0ken"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "configured"}, "spec": {
            "terminationGracePeriodSeconds": 1,
            "initContainers": [{"name": "init", "image": crate::streams::BUSYBOX,
                "command": ["/bin/busybox", "sh", "-c", "echo from-init > /shared/from-init; mkdir -p /host; echo from-host > /host/marker"],
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}, {"name": "host", "mountPath": "/host"}]}],
            "containers": [
                {"name": "server", "image": crate::streams::BUSYBOX,
                    "command": ["/bin/busybox", "sh", "-c", "mkdir -p /www; echo hello > /www/hello; busybox httpd -f -p 8080 -h /www"]},
                {"name": "main", "image": crate::streams::BUSYBOX,
                    "command": ["/bin/busybox", "sh", "-c", "until busybox wget -qO /dev/null http://127.0.0.1:8080/hello 2>/dev/null; do sleep 0.1; done; . /script"],
                    "env": [
                        {"name": "GREETING", "value": "hello-$(WHO)-$$(WHO)"}, {"name": "WHO", "value": "unused"},
                        {"name": "MY_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}},
                        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "token"}}}],
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
                    "volumeMounts": [
                        {"name": "config", "mountPath": "/config"}, {"name": "secret", "mountPath": "/secret"},
                        {"name": "shared", "mountPath": "/shared"}, {"name": "host", "mountPath": "/host"},
                        {"name": "script", "mountPath": "/script", "subPath": "script"}]}],
            "volumes": [
                {"name": "config", "configMap": {"name": "settings"}}, {"name": "secret", "secret": {"secretName": "hidden"}},
                {"name": "script", "configMap": {"name": "script"}},
                {"name": "shared", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/tmp/e2e-host", "type": "DirectoryOrCreate"}}]}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "script"}, "data": {"script": script}},
    ]});
    manifest.to_string()
}

fn configuration_reaches_the_container(cluster: &Cluster) {
    let expected = "from-config\nfrom-secret\nfrom-init\nhello-$(WHO)-$(WHO) configured 7 t0ken\nhello\nfrom-host\nconfigured\n";
    until_some("the configured container has written", PATIENCE, || {
        let logs = cluster.kubectl.run(&["logs", "configured", "-c", "main"]);
        if logs.stdout.ends_with("configured\n") {
            Ok(logs)
        } else {
            Err(format!("{logs:?} {}", cluster.overview("default")))
        }
    });
    assert_eq!(cluster.kubectl.ok(&["logs", "configured", "-c", "main"]), expected);
    let class = cluster.kubectl.ok(&["get", "pod", "configured", "-o", "jsonpath={.status.qosClass}"]);
    assert_eq!(class, "Burstable");
}

fn a_failing_readiness_probe_takes_it_out_of_the_service(cluster: &Cluster) {
    let script = "mkdir -p /www; touch /www/ready; busybox httpd -f -p 8080 -h /www";
    let mut container = shell(script);
    container["ports"] = json!([{"containerPort": 8080, "name": "http"}]);
    container["readinessProbe"] =
        json!({"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1});
    cluster.kubectl.apply(&pod("ready", json!({"containers": [container]})));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ready"},
        "spec": {"selector": {"app": "ready"}, "ports": [{"port": 80, "targetPort": "http"}]}});
    cluster.kubectl.apply(&service.to_string());
    cluster.ready_pods("default", "app=ready", 1, PATIENCE);
    let addr = cluster.service("default", "ready");
    cluster.page("node-1", addr, "/ready");
    cluster.kubectl.ok(&["exec", "ready", "--", "/bin/busybox", "rm", "/www/ready"]);
    let netns = cluster.node("node-1");
    until("the Service answers no more", PATIENCE, || support::get_through(&netns, addr, "/").is_err());
    cluster.kubectl.ok(&["exec", "ready", "--", "/bin/busybox", "touch", "/www/ready"]);
    cluster.page("node-1", addr, "/ready");
    assert_eq!(status(cluster, "ready")["restartCount"], 0, "readiness restarts nothing");
}

fn a_stubborn_container_is_killed_after_its_grace(cluster: &Cluster) {
    cluster.kubectl.apply(&pod(
        "stubborn",
        json!({"containers": [shell("trap '' TERM; while true; do sleep 1; done")]}),
    ));
    cluster.ready_pods("default", "app=stubborn", 1, PATIENCE);
    let began = std::time::Instant::now();
    cluster.kubectl.ok(&["delete", "pod", "stubborn", "--grace-period=2"]);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2), "it was not given its grace: {took:?}");
    assert!(took < Duration::from_secs(5), "it was given more than its grace: {took:?}");
}
