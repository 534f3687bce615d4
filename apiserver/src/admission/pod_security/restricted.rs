//! The checks that the level "restricted" adds.

use serde_json::Value;

use super::{Finding, Pod, named, quoted};

const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "image",
];

pub(super) fn all(pod: &Pod<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let windows = pod.spec.pointer("/os/name").and_then(Value::as_str) == Some("windows");
    let escalates =
        pod.which(|c| c.pointer("/securityContext/allowPrivilegeEscalation") != Some(&Value::Bool(false)));
    if !escalates.is_empty() && !windows {
        let why = format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            named("container", &escalates)
        );
        found.push(("allowPrivilegeEscalation != false", why));
    }
    if !windows {
        capabilities(pod, &mut found);
    }
    volumes(pod, &mut found);
    non_root(pod, &mut found);
    root_user(pod, &mut found);
    if !windows {
        seccomp(pod, &mut found);
    }
    found
}

fn words(container: &Value, field: &str) -> Vec<String> {
    let list = container.pointer(&format!("/securityContext/capabilities/{field}")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn capabilities(pod: &Pod<'_>, found: &mut Vec<Finding>) {
    let mut why = Vec::new();
    let keeps = pod.which(|c| !words(c, "drop").iter().any(|w| w == "ALL"));
    if !keeps.is_empty() {
        why.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            named("container", &keeps)
        ));
    }
    let added =
        |c: &Value| words(c, "add").into_iter().filter(|w| w != "NET_BIND_SERVICE").collect::<Vec<_>>();
    let adders = pod.which(|c| !added(c).is_empty());
    if !adders.is_empty() {
        let all: Vec<_> = pod.containers().flat_map(|(_, c)| added(c)).collect();
        why.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            named("container", &adders),
            quoted(all.iter().map(String::as_str))
        ));
    }
    if !why.is_empty() {
        found.push(("unrestricted capabilities", why.join("; ")));
    }
}

fn volumes(pod: &Pod<'_>, found: &mut Vec<Finding>) {
    let kind = |v: &Value| {
        let fields = v.as_object().into_iter().flatten();
        let set = fields.filter(|(key, value)| *key != "name" && !value.is_null());
        set.map(|(key, _)| key.clone()).find(|key| !VOLUMES.contains(&key.as_str()))
    };
    let bad: Vec<_> =
        pod.volumes().filter_map(|v| Some((v["name"].as_str().unwrap_or_default(), kind(v)?))).collect();
    if bad.is_empty() {
        return;
    }
    let names: Vec<_> = bad.iter().map(|(name, _)| *name).collect();
    let mut kinds: Vec<_> = bad.iter().map(|(_, kind)| kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let noun = if kinds.len() == 1 { "type" } else { "types" };
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let why =
        format!("{} {verb} restricted volume {noun} {}", named("volume", &names), quoted(kinds.into_iter()));
    found.push(("restricted volume types", why));
}

fn non_root(pod: &Pod<'_>, found: &mut Vec<Finding>) {
    let at = |v: &Value| v.pointer("/securityContext/runAsNonRoot").and_then(Value::as_bool);
    let whole = at(pod.spec);
    let mut why = Vec::new();
    let mut setters = Vec::new();
    if whole == Some(false) {
        setters.push("pod".to_owned());
    }
    let refusing = pod.which(|c| at(c) == Some(false));
    if !refusing.is_empty() {
        setters.push(named("container", &refusing));
    }
    if !setters.is_empty() {
        why.push(format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and ")));
    }
    let silent = pod.which(|c| at(c).is_none());
    if whole.is_none() && !silent.is_empty() {
        why.push(format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            named("container", &silent)
        ));
    }
    if !why.is_empty() {
        found.push(("runAsNonRoot != true", why.join("; ")));
    }
}

fn root_user(pod: &Pod<'_>, found: &mut Vec<Finding>) {
    let is_root = |v: &Value| v.pointer("/securityContext/runAsUser").and_then(Value::as_i64) == Some(0);
    let mut setters = Vec::new();
    if is_root(pod.spec) {
        setters.push("pod".to_owned());
    }
    let own = pod.which(is_root);
    if !own.is_empty() {
        setters.push(named("container", &own));
    }
    if !setters.is_empty() {
        found.push(("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and "))));
    }
}

fn seccomp(pod: &Pod<'_>, found: &mut Vec<Finding>) {
    let at = |v: &Value| {
        v.pointer("/securityContext/seccompProfile/type").and_then(Value::as_str).map(str::to_owned)
    };
    let good = |t: &str| matches!(t, "RuntimeDefault" | "Localhost");
    let whole = at(pod.spec);
    let mut why = Vec::new();
    let mut setters = Vec::new();
    let mut bad = Vec::new();
    if let Some(own) = whole.as_deref().filter(|t| !good(t)) {
        setters.push("pod".to_owned());
        bad.push(own.to_owned());
    }
    let wrong = pod.which(|c| at(c).is_some_and(|t| !good(&t)));
    if !wrong.is_empty() {
        setters.push(named("container", &wrong));
        bad.extend(pod.containers().filter_map(|(_, c)| at(c)).filter(|t| !good(t)));
    }
    if !setters.is_empty() {
        why.push(format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            setters.join(" and "),
            quoted(bad.iter().map(String::as_str))
        ));
    }
    let silent = pod.which(|c| at(c).is_none());
    if !whole.as_deref().is_some_and(good) && !silent.is_empty() {
        why.push(format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named("container", &silent)
        ));
    }
    if !why.is_empty() {
        found.push(("seccompProfile", why.join("; ")));
    }
}
