//! What the runtime is told when it makes a container.

use std::collections::HashMap;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::json;

use super::env::expand;
use super::sandbox::identity_labels;
use super::step::HASH_ANNOTATION;
use crate::resources::{self, CPU_PERIOD, cpu_quota, cpu_shares, limit, request};
use crate::runtime::CONTAINER_NAME_LABEL;

/// The annotation that bears a container's restart count.
pub const RESTART_COUNT_ANNOTATION: &str = "io.kubernetes.container.restartCount";
/// The annotation that says where in the container its last words are written.
pub const TERMINATION_PATH_ANNOTATION: &str = "io.kubernetes.container.terminationMessagePath";
/// The annotation that says whether the log stands in for missing last words.
pub const TERMINATION_POLICY_ANNOTATION: &str = "io.kubernetes.container.terminationMessagePolicy";
/// The annotation that bears the preStop hook, for a kubelet that no longer has the pod.
pub const PRE_STOP_ANNOTATION: &str = "io.kubernetes.container.preStopHandler";
/// The annotation that bears the pod's grace in seconds.
pub const GRACE_ANNOTATION: &str = "io.kubernetes.pod.terminationGracePeriod";

/// A number that changes when a container must be made anew: its name and image alone, as all else
/// is immutable in a pod's spec.
pub fn definition_hash(container: &Container) -> String {
    let text = json!({"name": container.name, "image": container.image}).to_string();
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}

/// What a container is made from besides its pod.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The number of the run.
    pub attempt: u32,
    /// The reference under which the runtime has the image.
    pub image_ref: &'a str,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// The mounts.
    pub mounts: Vec<cri::Mount>,
    /// Devices of the host.
    pub devices: Vec<cri::Device>,
    /// Who it runs as, and what it may do.
    pub security: cri::LinuxContainerSecurityContext,
    /// The node's memory in bytes.
    pub memory_capacity: i64,
}

/// The configuration of a container.
pub fn config(pod: &Pod, container: &Container, parts: Parts<'_>) -> cri::ContainerConfig {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let lookup = |name: &str| parts.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let expanded = |list: &Option<Vec<String>>| list.iter().flatten().map(|a| expand(a, lookup)).collect();
    let mut labels = identity_labels(pod);
    labels.insert(CONTAINER_NAME_LABEL.into(), container.name.clone());
    let image = cri::ImageSpec {
        image: parts.image_ref.to_owned(),
        user_specified_image: container.image.clone().unwrap_or_default(),
        ..Default::default()
    };
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: parts.attempt }),
        image: Some(image),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        labels,
        annotations: annotations(pod, spec, container, parts.attempt),
        log_path: format!("{}/{}.log", container.name, parts.attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(linux_resources(spec, container, parts.memory_capacity)),
            security_context: Some(parts.security),
        }),
        mounts: parts.mounts,
        devices: parts.devices,
        envs: parts.env.into_iter().map(|(key, value)| cri::KeyValue { key, value }).collect(),
        ..Default::default()
    }
}

fn annotations(pod: &Pod, spec: &PodSpec, container: &Container, attempt: u32) -> HashMap<String, String> {
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let mut annotations = HashMap::from([
        (HASH_ANNOTATION.to_owned(), definition_hash(container)),
        (RESTART_COUNT_ANNOTATION.to_owned(), attempt.to_string()),
        (TERMINATION_PATH_ANNOTATION.to_owned(), path.to_owned()),
        (TERMINATION_POLICY_ANNOTATION.to_owned(), policy.to_owned()),
    ]);
    let grace = pod.metadata.deletion_grace_period_seconds.or(spec.termination_grace_period_seconds);
    annotations.extend(grace.map(|g| (GRACE_ANNOTATION.to_owned(), g.to_string())));
    let hook = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    let hook = hook.and_then(|h| serde_json::to_string(h).ok());
    annotations.extend(hook.map(|h| (PRE_STOP_ANNOTATION.to_owned(), h)));
    annotations
}

/// Requests and limits as the kernel takes them.
pub fn linux_resources(
    spec: &PodSpec,
    container: &Container,
    memory_capacity: i64,
) -> cri::LinuxContainerResources {
    let cpu_limit = limit(container, "cpu").map_or(0, |a| a.to_milli());
    let quota = cpu_quota(cpu_limit);
    cri::LinuxContainerResources {
        cpu_shares: cpu_shares(request(container, "cpu").map_or(0, |a| a.to_milli())),
        cpu_period: if quota > 0 { CPU_PERIOD } else { 0 },
        cpu_quota: quota,
        memory_limit_in_bytes: limit(container, "memory").map_or(0, |a| a.to_units()),
        oom_score_adj: resources::oom_score_adj(spec, container, memory_capacity),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_takes_command_environment_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u"},
            "spec": {"terminationGracePeriodSeconds": 7, "containers": [{"name": "c", "image": "busybox",
                "command": ["sh", "-c"], "args": ["echo $(A)"], "tty": true,
                "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}]}}))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let made = config(
            &pod,
            container,
            Parts {
                attempt: 3,
                image_ref: "sha256:1",
                env: vec![("A".into(), "1".into())],
                mounts: Vec::new(),
                devices: Vec::new(),
                security: cri::LinuxContainerSecurityContext::default(),
                memory_capacity: 1 << 30,
            },
        );
        assert_eq!(
            (made.command, made.args),
            (vec!["sh".to_owned(), "-c".into()], vec!["echo 1".to_owned()])
        );
        assert_eq!(made.log_path, "c/3.log");
        assert_eq!(made.annotations.get(RESTART_COUNT_ANNOTATION).map(String::as_str), Some("3"));
        assert_eq!(made.annotations.get(GRACE_ANNOTATION).map(String::as_str), Some("7"));
        let resources = made.linux.and_then(|l| l.resources).unwrap();
        assert_eq!((resources.cpu_quota, resources.cpu_shares), (50_000, 512));
        assert_eq!(resources.memory_limit_in_bytes, 64 << 20);
    }

    #[test]
    fn the_hash_follows_the_image_alone() {
        let container = |image: &str, args: &str| Container {
            name: "c".into(),
            image: Some(image.into()),
            args: Some(vec![args.into()]),
            ..Container::default()
        };
        assert_eq!(definition_hash(&container("a", "1")), definition_hash(&container("a", "2")));
        assert_ne!(definition_hash(&container("a", "1")), definition_hash(&container("b", "1")));
    }
}
