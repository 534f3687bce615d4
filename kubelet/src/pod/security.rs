//! From security contexts to what the runtime is told.

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};

/// A pod that asks for something that its image or this node does not allow.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum SecurityError {
    /// `runAsNonRoot` and a user of 0.
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    RootUser {
        /// `name_namespace(uid)`.
        pod: String,
        /// The container.
        container: String,
    },
    /// `runAsNonRoot` and an image that runs as root.
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    RootImage {
        /// `name_namespace(uid)`.
        pod: String,
        /// The container.
        container: String,
    },
    /// `runAsNonRoot` and an image whose user has a name.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    NamedUser {
        /// The image's user.
        user: String,
        /// `name_namespace(uid)`.
        pod: String,
        /// The container.
        container: String,
    },
}

/// What an image says of the user that it runs as.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageUser {
    /// The number, if it is one.
    pub uid: Option<i64>,
    /// The name, if it is none.
    pub name: String,
}

fn int(value: i64) -> cri::Int64Value {
    cri::Int64Value { value }
}

/// The kernel namespaces that a pod's containers live in.
pub fn namespaces(spec: &PodSpec) -> cri::NamespaceOption {
    let mode = |host: Option<bool>, otherwise: cri::NamespaceMode| {
        if host == Some(true) { cri::NamespaceMode::Node as i32 } else { otherwise as i32 }
    };
    let pid = if spec.share_process_namespace == Some(true) {
        cri::NamespaceMode::Pod
    } else {
        cri::NamespaceMode::Container
    };
    cri::NamespaceOption {
        network: mode(spec.host_network, cri::NamespaceMode::Pod),
        pid: mode(spec.host_pid, pid),
        ipc: mode(spec.host_ipc, cri::NamespaceMode::Pod),
        ..Default::default()
    }
}

fn profile(profile: Option<&SeccompProfile>) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType::{Localhost, RuntimeDefault, Unconfined};
    let (kind, local) = match profile.map(|p| (p.type_.as_str(), p.localhost_profile.clone())) {
        Some(("RuntimeDefault", _)) => (RuntimeDefault, None),
        Some(("Localhost", path)) => (Localhost, path),
        Some(_) | None => (Unconfined, None),
    };
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref: local.unwrap_or_default() }
}

/// The groups beside the primary one: those that are listed, and that of the volumes.
fn groups(pod: &PodSecurityContext) -> Vec<i64> {
    pod.supplemental_groups.iter().flatten().copied().chain(pod.fs_group).collect()
}

/// The sandbox's own security context.
pub fn of_sandbox(spec: &PodSpec) -> cri::LinuxSandboxSecurityContext {
    let empty = PodSecurityContext::default();
    let pod = spec.security_context.as_ref().unwrap_or(&empty);
    let privileged = crate::resources::all_containers(spec)
        .any(|c| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)));
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        run_as_user: pod.run_as_user.map(int),
        run_as_group: pod.run_as_group.filter(|_| pod.run_as_user.is_some()).map(int),
        supplemental_groups: groups(pod),
        privileged,
        // The sandbox's own process does nothing; the runtime's default profile suits every pod.
        seccomp: Some(cri::SecurityProfile::default()),
        ..Default::default()
    }
}

/// Paths of /proc and /sys that containers do not see, unless `procMount` says otherwise.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
];
const MASKED_SYS: [&str; 2] = ["/sys/firmware", "/sys/devices/virtual/powercap"];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container's security context over its pod's. `image` is who the image runs as.
pub fn of_container(
    pod_label: &str,
    spec: &PodSpec,
    container: &Container,
    image: &ImageUser,
) -> Result<cri::LinuxContainerSecurityContext, SecurityError> {
    let empty = (PodSecurityContext::default(), SecurityContext::default());
    let pod = spec.security_context.as_ref().unwrap_or(&empty.0);
    let own = container.security_context.as_ref().unwrap_or(&empty.1);
    let user = own.run_as_user.or(pod.run_as_user);
    if own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        check_non_root(pod_label, &container.name, user, image)?;
    }
    let privileged = own.privileged == Some(true);
    let (user, username) = match (user, image.uid, image.name.as_str()) {
        (Some(user), _, _) => (Some(user), String::new()),
        (None, Some(uid), _) => (Some(uid), String::new()),
        (None, None, name) => (None, name.to_owned()),
    };
    let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: Some(capabilities(own)),
        privileged,
        namespace_options: Some(namespaces(spec)),
        // Without any user the runtime takes root, which is what an image without a user means.
        run_as_user: user.map(int).or_else(|| username.is_empty().then(|| int(0))),
        run_as_username: username,
        run_as_group: own.run_as_group.or(pod.run_as_group).map(int),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: if unmasked { Vec::new() } else { [list(&MASKED), list(&MASKED_SYS)].concat() },
        readonly_paths: if unmasked { Vec::new() } else { list(&READ_ONLY) },
        seccomp: Some(profile(own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()))),
        ..Default::default()
    })
}

fn check_non_root(
    pod: &str,
    container: &str,
    user: Option<i64>,
    image: &ImageUser,
) -> Result<(), SecurityError> {
    let (pod, container) = (pod.to_owned(), container.to_owned());
    match (user, image.uid, image.name.as_str()) {
        (Some(0), _, _) => Err(SecurityError::RootUser { pod, container }),
        (Some(_), _, _) => Ok(()),
        (None, Some(0), _) | (None, None, "") => Err(SecurityError::RootImage { pod, container }),
        (None, Some(_), _) => Ok(()),
        (None, None, user) => Err(SecurityError::NamedUser { user: user.to_owned(), pod, container }),
    }
}

fn capabilities(own: &SecurityContext) -> cri::Capability {
    let asked = own.capabilities.clone().unwrap_or_default();
    let plain = |list: Option<Vec<String>>| {
        let strip = |c: &String| c.strip_prefix("CAP_").unwrap_or(c).to_owned();
        list.iter().flatten().map(strip).collect()
    };
    cri::Capability {
        add_capabilities: plain(asked.add),
        drop_capabilities: plain(asked.drop),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn context(
        pod: Value,
        own: Value,
        image: &ImageUser,
    ) -> Result<cri::LinuxContainerSecurityContext, SecurityError> {
        let spec: PodSpec = serde_json::from_value(json!({
            "securityContext": pod, "containers": [{"name": "c", "securityContext": own}]}))
        .unwrap();
        of_container("p_n(u)", &spec, &spec.containers[0], image)
    }

    #[test]
    fn the_containers_context_is_over_the_pods() {
        let pod = json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]});
        let own = json!({"runAsUser": 5, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "seccompProfile": {"type": "RuntimeDefault"}, "capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]}});
        let made = context(pod, own, &ImageUser::default()).unwrap();
        assert_eq!(made.run_as_user, Some(int(5)));
        assert_eq!(made.run_as_group, Some(int(2)));
        assert_eq!(made.supplemental_groups, [4, 3]);
        assert!(made.no_new_privs && made.readonly_rootfs && !made.masked_paths.is_empty());
        assert_eq!(made.seccomp.map(|s| s.profile_type), Some(0));
        let caps = made.capabilities.unwrap();
        assert_eq!(
            (caps.add_capabilities, caps.drop_capabilities),
            (vec!["NET_ADMIN".into()], vec!["ALL".into()])
        );
    }

    #[test]
    fn non_root_is_verified_against_the_image() {
        #[track_caller]
        fn check(user: Option<i64>, image: ImageUser, ok: bool) {
            let made = context(json!({"runAsNonRoot": true, "runAsUser": user}), json!({}), &image);
            assert_eq!(made.is_ok(), ok, "{made:?}");
        }
        let uid = |uid| ImageUser { uid: Some(uid), name: String::new() };
        check(Some(1), ImageUser::default(), true);
        check(Some(0), uid(5), false);
        check(None, uid(5), true);
        check(None, uid(0), false);
        check(None, ImageUser::default(), false);
        check(None, ImageUser { uid: None, name: "www".into() }, false);
    }
}
