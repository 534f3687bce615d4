//! The checks of the level "baseline".

use serde_json::Value;

use super::{Finding, Pod, named, quoted};

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SYSCTLS: &[&str] = &[
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
const SELINUX_TYPES: &[&str] =
    &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn is_true(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool) == Some(true)
}

/// What the level "restricted" checks, too.
pub(super) fn shared(pod: &Pod<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    app_armor(pod, &mut found);
    let hosts: Vec<_> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if !hosts.is_empty() {
        found.push(("host namespaces", hosts.join(", ")));
    }
    let paths: Vec<_> = pod
        .volumes()
        .filter(|v| v.get("hostPath").is_some_and(|p| !p.is_null()))
        .map(|v| text(v, "/name"))
        .collect();
    if !paths.is_empty() {
        found.push(("hostPath volumes", named("volume", &paths)));
    }
    host_ports(pod, &mut found);
    let privileged = pod.which(|c| is_true(c, "/securityContext/privileged"));
    if !privileged.is_empty() {
        let why = format!("{} must not set securityContext.privileged=true", named("container", &privileged));
        found.push(("privileged", why));
    }
    let mount = |c: &Value| !matches!(text(c, "/securityContext/procMount"), "" | "Default");
    let mounts = pod.which(mount);
    if !mounts.is_empty() {
        let kinds =
            pod.containers().filter(|(_, c)| mount(c)).map(|(_, c)| text(c, "/securityContext/procMount"));
        let why = format!(
            "{} must not set securityContext.procMount to {}",
            named("container", &mounts),
            quoted(kinds)
        );
        found.push(("procMount", why));
    }
    selinux(pod, &mut found);
    let sysctls = pod.spec.pointer("/securityContext/sysctls").and_then(Value::as_array);
    let forbidden: Vec<_> = sysctls
        .into_iter()
        .flatten()
        .map(|s| text(s, "/name"))
        .filter(|name| !SYSCTLS.contains(name))
        .collect();
    if !forbidden.is_empty() {
        found.push(("forbidden sysctls", forbidden.join(", ")));
    }
    let host_process = "/securityContext/windowsOptions/hostProcess";
    let mut setters = Vec::new();
    if is_true(pod.spec, host_process) {
        setters.push("pod".to_owned());
    }
    let own = pod.which(|c| is_true(c, host_process));
    if !own.is_empty() {
        setters.push(named("container", &own));
    }
    if !setters.is_empty() {
        let why =
            format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.join(" and "));
        found.push(("hostProcess", why));
    }
    found
}

/// What the level "restricted" has stricter checks for.
pub(super) fn replaced(pod: &Pod<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let added = |c: &Value| -> Vec<String> {
        let list = c.pointer("/securityContext/capabilities/add").and_then(Value::as_array);
        let words = list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned));
        words.filter(|word| !CAPABILITIES.contains(&word.as_str())).collect()
    };
    let adders = pod.which(|c| !added(c).is_empty());
    if !adders.is_empty() {
        let words: Vec<_> = pod.containers().flat_map(|(_, c)| added(c)).collect();
        let why = format!(
            "{} must not include {} in securityContext.capabilities.add",
            named("container", &adders),
            quoted(words.iter().map(String::as_str))
        );
        found.push(("non-default capabilities", why));
    }
    let profile = "/securityContext/seccompProfile/type";
    let mut setters = Vec::new();
    if text(pod.spec, profile) == "Unconfined" {
        setters.push("pod".to_owned());
    }
    let own = pod.which(|c| text(c, profile) == "Unconfined");
    if !own.is_empty() {
        setters.push(named("container", &own));
    }
    if !setters.is_empty() {
        let why = format!(
            "{} must not set securityContext.seccompProfile.type to \"Unconfined\"",
            setters.join(" and ")
        );
        found.push(("seccompProfile", why));
    }
    found
}

fn app_armor(pod: &Pod<'_>, found: &mut Vec<Finding>) {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut bad = Vec::new();
    let annotations = pod.metadata["annotations"].as_object();
    for (key, value) in annotations.into_iter().flatten().filter(|(key, _)| key.starts_with(PREFIX)) {
        let value = value.as_str().unwrap_or_default();
        if !matches!(value, "" | "runtime/default") && !value.starts_with("localhost/") {
            bad.push(format!("annotation \"{key}={value}\""));
        }
    }
    let profile = "/securityContext/appArmorProfile/type";
    let unconfined = |v: &Value| text(v, profile) == "Unconfined";
    if unconfined(pod.spec) {
        bad.push("pod must not set AppArmor profile type to \"Unconfined\"".into());
    }
    let own = pod.which(unconfined);
    if !own.is_empty() {
        bad.push(format!(
            "{} must not set AppArmor profile type to \"Unconfined\"",
            named("container", &own)
        ));
    }
    if !bad.is_empty() {
        let name = if bad.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
        found.push((name, bad.join(", ")));
    }
}

fn host_ports(pod: &Pod<'_>, found: &mut Vec<Finding>) {
    let ports = |c: &Value| -> Vec<i64> {
        let list = c["ports"].as_array();
        list.into_iter().flatten().filter_map(|p| p["hostPort"].as_i64()).filter(|p| *p != 0).collect()
    };
    let users = pod.which(|c| !ports(c).is_empty());
    if users.is_empty() {
        return;
    }
    let mut all: Vec<_> = pod.containers().flat_map(|(_, c)| ports(c)).collect();
    all.sort_unstable();
    all.dedup();
    let list: Vec<_> = all.iter().map(ToString::to_string).collect();
    let verb = if users.len() == 1 { "uses" } else { "use" };
    let noun = if list.len() == 1 { "hostPort" } else { "hostPorts" };
    found.push(("hostPort", format!("{} {verb} {noun} {}", named("container", &users), list.join(", "))));
}

fn selinux(pod: &Pod<'_>, found: &mut Vec<Finding>) {
    let options = "/securityContext/seLinuxOptions";
    let bad = |v: &Value| {
        let at = |field: &str| text(v, &format!("{options}/{field}"));
        !SELINUX_TYPES.contains(&at("type")) || !at("user").is_empty() || !at("role").is_empty()
    };
    let mut setters = Vec::new();
    if bad(pod.spec) {
        setters.push("pod".to_owned());
    }
    let own = pod.which(bad);
    if !own.is_empty() {
        setters.push(named("container", &own));
    }
    if setters.is_empty() {
        return;
    }
    let all: Vec<_> = std::iter::once(pod.spec).chain(pod.containers().map(|(_, c)| c)).collect();
    let values = |field: &str| {
        let pointer = format!("{options}/{field}");
        all.iter().map(|v| text(v, &pointer)).filter(|v| !v.is_empty()).collect::<Vec<_>>()
    };
    let mut parts = Vec::new();
    let types: Vec<_> = values("type").into_iter().filter(|t| !SELINUX_TYPES.contains(t)).collect();
    if !types.is_empty() {
        let noun = if types.len() == 1 { "type" } else { "types" };
        parts.push(format!("{noun} {}", quoted(types.into_iter())));
    }
    for field in ["user", "role"] {
        if !values(field).is_empty() {
            parts.push(format!("{field} may not be set"));
        }
    }
    let why = format!(
        "{} set forbidden securityContext.seLinuxOptions: {}",
        setters.join(" and "),
        parts.join("; ")
    );
    found.push(("seLinuxOptions", why));
}
