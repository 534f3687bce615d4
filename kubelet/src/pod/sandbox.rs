//! What the runtime is told when it makes a pod's sandbox.

use std::collections::HashMap;

use api::meta::MetaExt;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{ContainerPort, Pod, PodSpec};

use super::security;
use crate::dns;
use crate::resources::{self, all_containers};
use crate::runtime::{POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL};

/// What a sandbox is made from besides the pod.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// The cluster's name service.
    pub dns: dns::ClusterDns,
    /// The node's own resolver.
    pub resolv: Option<dns::Resolv>,
    /// The directory of all pods' logs.
    pub log_root: String,
}

/// The directory of a pod's logs.
pub fn log_directory(root: &str, pod: &Pod) -> String {
    format!("{}/{}_{}_{}", root.trim_end_matches('/'), pod.namespace(), pod.name(), pod.uid())
}

/// The labels by which a pod's sandboxes and containers are found again.
pub fn identity_labels(pod: &Pod) -> HashMap<String, String> {
    [(POD_NAME_LABEL, pod.name()), (POD_NAMESPACE_LABEL, pod.namespace()), (POD_UID_LABEL, pod.uid())]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// Sysctls that a pod may set without the node's consent.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The sysctls of a pod; the first one that is not allowed is the error.
pub fn sysctls(spec: &PodSpec) -> Result<HashMap<String, String>, String> {
    let asked = spec.security_context.as_ref().and_then(|s| s.sysctls.as_ref());
    let pairs = asked.into_iter().flatten().map(|s| (s.name.replace('/', "."), s.value.clone()));
    pairs
        .map(
            |(name, value)| if SAFE_SYSCTLS.contains(&name.as_str()) { Ok((name, value)) } else { Err(name) },
        )
        .collect()
}

fn port_mapping(port: &ContainerPort, host_network: bool) -> Option<cri::PortMapping> {
    let host_port = port.host_port.filter(|p| *p != 0 && !host_network)?;
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => cri::Protocol::Udp,
        Some("SCTP") => cri::Protocol::Sctp,
        Some(_) | None => cri::Protocol::Tcp,
    };
    Some(cri::PortMapping {
        protocol: protocol as i32,
        container_port: port.container_port,
        host_port,
        host_ip: port.host_ip.clone().unwrap_or_default(),
    })
}

/// The configuration of a pod's sandbox. It is also sent with each container, and must not vary.
pub fn config(pod: &Pod, attempt: u32, cgroup_parent: &str, node: &Node) -> cri::PodSandboxConfig {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let host_network = spec.host_network == Some(true);
    let hostname = dns::hostname(spec, pod.name(), &node.name);
    let full = (spec.set_hostname_as_fqdn == Some(true))
        .then(|| dns::fqdn(spec, &hostname, pod.namespace(), &node.dns.domain))
        .flatten();
    let mut labels: HashMap<_, _> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(identity_labels(pod));
    let mut annotations: HashMap<_, _> =
        pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    annotations.insert("kubernetes.io/config.source".into(), "api".into());
    let ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        // With the host's network the runtime takes the host's name by itself.
        hostname: if host_network { String::new() } else { full.unwrap_or(hostname) },
        log_directory: log_directory(&node.log_root, pod),
        dns_config: Some(dns::config(spec, pod.namespace(), &node.dns, node.resolv.as_ref())),
        port_mappings: ports.filter_map(|p| port_mapping(p, host_network)).collect(),
        labels,
        annotations,
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.to_owned(),
            security_context: Some(security::of_sandbox(spec)),
            sysctls: sysctls(spec).unwrap_or_default(),
            overhead: Some(overhead(spec)),
            resources: Some(limits(spec)),
        }),
        ..Default::default()
    }
}

fn overhead(spec: &PodSpec) -> cri::LinuxContainerResources {
    let amount = |resource: &str| {
        let quantity = spec.overhead.as_ref().and_then(|o| o.get(resource));
        quantity.and_then(|q| api::quantity::Amount::try_from(q).ok()).unwrap_or_default()
    };
    cri::LinuxContainerResources {
        cpu_shares: if amount("cpu").to_milli() > 0 {
            resources::cpu_shares(amount("cpu").to_milli())
        } else {
            0
        },
        memory_limit_in_bytes: amount("memory").to_units(),
        ..Default::default()
    }
}

fn limits(spec: &PodSpec) -> cri::LinuxContainerResources {
    let cpu = resources::pod_limit(spec, "cpu").map_or(0, |a| a.to_milli());
    let shares: i64 =
        all_containers(spec).map(|c| resources::request(c, "cpu").unwrap_or_default().to_milli()).sum();
    cri::LinuxContainerResources {
        cpu_period: resources::CPU_PERIOD,
        cpu_quota: resources::cpu_quota(cpu),
        cpu_shares: resources::cpu_shares(shares),
        memory_limit_in_bytes: resources::pod_limit(spec, "memory").map_or(0, |a| a.to_units()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sandbox_bears_the_pods_identity_and_ports() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u-1", "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}, {"containerPort": 81}]}]}}))
        .unwrap();
        let node = Node { log_root: "/var/log/pods".into(), ..Node::default() };
        let made = config(&pod, 2, "/kubepods/podu-1", &node);
        assert_eq!(made.log_directory, "/var/log/pods/default_web_u-1");
        assert_eq!(made.labels.get(POD_UID_LABEL).map(String::as_str), Some("u-1"));
        assert_eq!(made.labels.get("app").map(String::as_str), Some("x"));
        assert_eq!(made.metadata.map(|m| m.attempt), Some(2));
        assert_eq!(made.port_mappings.len(), 1);
        assert_eq!((made.port_mappings[0].host_port, made.port_mappings[0].protocol), (8080, 1));
        assert_eq!(made.hostname, "web");
    }

    #[test]
    fn only_safe_sysctls_are_allowed() {
        let spec = |name: &str| -> PodSpec {
            serde_json::from_value(
                json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}),
            )
            .unwrap()
        };
        assert!(sysctls(&spec("net/ipv4/tcp_syncookies")).is_ok());
        assert_eq!(sysctls(&spec("kernel.msgmax")), Err("kernel.msgmax".into()));
    }
}
