//! Prometheus' discovery of what runs in a cluster (`kubernetes_sd_configs`).
//!
//! Debian builds its Prometheus without this part, and packages another program that reads the same configuration:
//! VictoriaMetrics' agent.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Answer, ControlPlane, get_through, until_some};

use crate::packages::debian;

const ROLES: [&str; 6] = ["node", "pod", "service", "endpoints", "endpointslice", "ingress"];
const PORT: u16 = 8429;

const OBJECTS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: default}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: web, image: 'a:1', ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: web}
subsets: [{addresses: [{ip: 10.244.0.10}], ports: [{name: http, port: 8081}]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.11], conditions: {ready: true}}]
ports: [{name: http, port: 8082}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {rules: [{host: web.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
";

/// What is found of them: the role, and the address.
const FOUND: [&str; 6] = [
    "endpoints 10.244.0.10:8081",
    "endpointslice 10.244.0.11:8082",
    "ingress web.example.com",
    "node 192.0.2.7:0",
    "pod 10.244.0.9:8080",
    "service web.default.svc:80",
];

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The body, without the frames in which a server may send it.
fn body(answer: &Answer) -> String {
    if answer.headers.get("transfer-encoding").is_none_or(|value| value != "chunked") {
        return answer.body.clone();
    }
    let (mut rest, mut whole) = (answer.body.as_str(), String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some((chunk, more)) = after.split_at_checked(size).filter(|_| size > 0) else { break };
        whole.push_str(chunk);
        rest = more.trim_start_matches("\r\n");
    }
    whole
}

/// The targets, each by role and address.
fn targets(plane: &ControlPlane) -> Result<BTreeSet<String>, String> {
    let answer = get_through(&plane.netns, SocketAddr::from(([127, 0, 0, 1], PORT)), "/api/v1/targets")?;
    let all: Value = serde_json::from_str(&body(&answer)).map_err(|e| e.to_string())?;
    let active = all["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one =
        |t: &Value| format!("{} {}", text(&t["labels"]["job"]), text(&t["discoveredLabels"]["__address__"]));
    Ok(active.iter().map(one).collect())
}

#[test]
fn targets_appear_and_disappear() {
    let Some(program) = debian("victoria-metrics", "usr/bin/vmagent") else { return };
    let plane = ControlPlane::api("discovery");
    let mut config = "scrape_configs:\n".to_owned();
    for role in ROLES {
        let kubeconfig = plane.kubeconfig().display();
        writeln!(config, "- {{job_name: {role}, scrape_interval: 1h, scrape_timeout: 1s, kubernetes_sd_configs: [{{role: {role}, kubeconfig_file: {kubeconfig}}}]}}").unwrap();
    }
    std::fs::write(plane.scratch.join("scrape.yml"), config).unwrap();
    let log = std::fs::File::create(plane.scratch.join("agent.log")).unwrap();
    let mut command = plane.client(program);
    command.args(["-promscrape.config=scrape.yml", "-remoteWrite.url=http://127.0.0.1:1/"]);
    // It looks at what its watches told it so often.
    command.arg("-promscrape.kubernetesSDCheckInterval=1s");
    command.args([&format!("-httpListenAddr=127.0.0.1:{PORT}"), "-remoteWrite.tmpDataPath=queue"]);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let _agent = Agent(command.spawn().unwrap());

    let ours = |targets: BTreeSet<String>| -> Vec<String> {
        targets.into_iter().filter(|t| FOUND.contains(&t.as_str())).collect()
    };
    let wait = |what: &str, wanted: &[&str]| {
        until_some(what, Duration::from_secs(90), || {
            let seen = targets(&plane)?;
            if ours(seen.clone()) == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    };
    plane.kubectl.apply(OBJECTS);
    let status = |what: &str, name: &str, status: &str| {
        let patch = format!("{{\"status\": {status}}}");
        plane.kubectl.ok(&["patch", what, name, "--subresource=status", "--type=merge", "-p", &patch]);
    };
    status("node", "n1", r#"{"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}"#);
    status("pod", "web", r#"{"phase": "Running", "podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}]}"#);
    wait("everything is found", &FOUND);
    plane.kubectl.ok(&["delete", "pod", "web", "--grace-period=0", "--force"]);
    wait(
        "the pod is forgotten",
        &FOUND.iter().copied().filter(|f| !f.starts_with("pod")).collect::<Vec<_>>(),
    );
    plane.kubectl.ok(&["delete", "service,endpoints,ingress", "web"]);
    plane.kubectl.ok(&["delete", "endpointslice", "web-1"]);
    plane.kubectl.ok(&["delete", "node", "n1"]);
    wait("everything is forgotten", &[]);
}
