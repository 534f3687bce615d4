//! PodSecurity: what the labels of a namespace allow its pods, by the Pod Security Standards.

mod baseline;
mod restricted;

use std::collections::BTreeMap;

use serde_json::Value;

/// How much a pod may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Privileged,
    /// Nothing by which it is known to become its node.
    Baseline,
    /// What is known as good practice.
    Restricted,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// What happens when a pod goes beyond its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    Enforce,
    /// The client is warned.
    Warn,
}

/// Level and version that a namespace asks for. Whoever writes another level than there is gets the strictest.
pub fn policy(labels: &BTreeMap<String, String>, mode: Mode) -> (Level, String) {
    let key = match mode {
        Mode::Enforce => "pod-security.kubernetes.io/enforce",
        Mode::Warn => "pod-security.kubernetes.io/warn",
    };
    let level = match labels.get(key).map(String::as_str) {
        None | Some("privileged") => Level::Privileged,
        Some("baseline") => Level::Baseline,
        Some(_) => Level::Restricted,
    };
    let version = labels.get(&format!("{key}-version")).cloned().unwrap_or_else(|| "latest".into());
    (level, version)
}

/// What a pod's metadata and spec have beyond a level, as the end of a sentence that begins with "violates"; nothing
/// when they keep within it.
pub fn violations(level: Level, version: &str, metadata: &Value, spec: &Value) -> Option<String> {
    let pod = Pod { metadata, spec };
    let found = match level {
        Level::Privileged => return None,
        Level::Baseline => [baseline::shared(&pod), baseline::replaced(&pod)].concat(),
        Level::Restricted => [baseline::shared(&pod), restricted::all(&pod)].concat(),
    };
    let all: Vec<_> = found.iter().map(|(what, why)| format!("{what} ({why})")).collect();
    (!all.is_empty()).then(|| format!(" PodSecurity \"{}:{version}\": {}", level.name(), all.join(", ")))
}

/// Where the pods of a kind are described.
fn root(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController" => {
            Some("/spec/template")
        }
        "PodTemplate" => Some("/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Whether objects of a kind are pods, or make some.
pub fn makes_pods(kind: &str) -> bool {
    root(kind).is_some()
}

/// Metadata and spec of the pods that an object makes, for the kinds that make pods.
pub fn template<'a>(kind: &str, object: &'a Value) -> Option<(&'a Value, &'a Value)> {
    let root = root(kind)?;
    let spec = object.pointer(&format!("{root}/spec"))?;
    Some((object.pointer(&format!("{root}/metadata")).unwrap_or(&Value::Null), spec))
}

/// A check's name and what it found.
type Finding = (&'static str, String);

struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
}

impl<'a> Pod<'a> {
    /// Name and container, of all sorts of containers.
    fn containers(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let spec = self.spec;
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let all = lists.into_iter().flat_map(move |field| spec[field].as_array().into_iter().flatten());
        all.map(|c| (c["name"].as_str().unwrap_or_default(), c))
    }

    /// The names of the containers that have something.
    fn which(&self, has: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|(_, c)| has(c)).map(|(name, _)| name).collect()
    }

    fn volumes(&self) -> impl Iterator<Item = &'a Value> {
        self.spec["volumes"].as_array().into_iter().flatten()
    }
}

/// `container "a"`, `containers "a", "b"`.
fn named(noun: &str, names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|n| format!("{n:?}")).collect();
    format!("{noun}{} {}", if names.len() == 1 { "" } else { "s" }, quoted.join(", "))
}

/// Words in quotation marks, each once, in the order of the alphabet.
fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut words: Vec<_> = words.collect();
    words.sort_unstable();
    words.dedup();
    words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(level: Level, spec: Value, wanted: Option<&str>) {
        assert_eq!(violations(level, "latest", &json!({}), &spec).as_deref(), wanted);
    }

    fn good() -> Value {
        json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            }}],
        })
    }

    #[test]
    fn a_plain_pod_is_within_the_baseline_and_not_restricted() {
        let plain = json!({"containers": [{"name": "c"}]});
        check(Level::Privileged, plain.clone(), None);
        check(Level::Baseline, plain.clone(), None);
        check(Level::Restricted, good(), None);
        check(
            Level::Restricted,
            plain,
            Some(
                " PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set \
                 securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
                 securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
                 securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
                 securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
            ),
        );
    }

    #[test]
    fn what_opens_the_node_is_beyond_the_baseline() {
        for (change, wanted) in [
            (
                json!({"hostNetwork": true, "hostPID": true}),
                "host namespaces (hostNetwork=true, hostPID=true)",
            ),
            (
                json!({"containers": [{"name": "a", "securityContext": {"privileged": true}}]}),
                "privileged (container \"a\" must not set securityContext.privileged=true)",
            ),
            (
                json!({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}}]}),
                "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
            ),
            (
                json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}]}),
                "hostPath volumes (volumes \"v\", \"w\")",
            ),
            (
                json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}]}]}),
                "hostPort (container \"a\" uses hostPort 80)",
            ),
            (
                json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
                "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}),
                "forbidden sysctls (kernel.msgmax)",
            ),
            (
                json!({"containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]}),
                "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
            ),
        ] {
            check(Level::Baseline, change, Some(&format!(" PodSecurity \"baseline:latest\": {wanted}")));
        }
    }

    #[test]
    fn restricted_pods_use_no_volumes_of_the_node_and_no_root() {
        let mut pod = good();
        pod["volumes"] = json!([{"name": "v", "nfs": {}}, {"name": "t", "projected": {}}]);
        pod["securityContext"]["runAsUser"] = 0.into();
        check(
            Level::Restricted,
            pod,
            Some(
                " PodSecurity \"restricted:latest\": restricted volume types (volume \"v\" uses restricted volume \
                 type \"nfs\"), runAsUser=0 (pod must not set runAsUser=0)",
            ),
        );
        let mut pod = good();
        pod["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["NET_BIND_SERVICE"]);
        check(Level::Restricted, pod, None);
    }

    #[test]
    fn a_namespace_says_how_much_its_pods_may() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| (format!("pod-security.kubernetes.io/{k}"), (*v).to_owned())).collect()
        };
        assert_eq!(policy(&labels(&[]), Mode::Enforce), (Level::Privileged, "latest".into()));
        let all = labels(&[("enforce", "baseline"), ("enforce-version", "v1.30"), ("warn", "restricted")]);
        assert_eq!(policy(&all, Mode::Enforce), (Level::Baseline, "v1.30".into()));
        assert_eq!(policy(&all, Mode::Warn).0, Level::Restricted);
        assert_eq!(policy(&labels(&[("enforce", "nonsense")]), Mode::Enforce).0, Level::Restricted);
    }
}
