//! The roles and bindings that every cluster begins with, as Kubernetes documents them under "Default roles and role
//! bindings" (authorization of the reference), one line a rule.

mod cluster;
mod controllers;
mod namespaces;

use api::openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

/// One rule, its lists separated by blanks; the group `core` is the unnamed one.
#[derive(Clone, Copy)]
struct Rule {
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    urls: &'static str,
}

const fn rule(verbs: &'static str, groups: &'static str, resources: &'static str) -> Rule {
    Rule { verbs, groups, resources, names: "", urls: "" }
}

const fn named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> Rule {
    Rule { verbs, groups, resources, names, urls: "" }
}

const fn urls(verbs: &'static str, urls: &'static str) -> Rule {
    Rule { verbs, groups: "", resources: "", names: "", urls }
}

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const ALL: &str = "create delete deletecollection get list patch update watch";

/// What a component needs in order to report what it did.
const EVENTS: Rule = rule("create patch update", "core events.k8s.io", "events");

impl Rule {
    fn value(&self) -> Value {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut value = json!({"verbs": words(self.verbs)});
        if self.urls.is_empty() {
            let groups = words(self.groups).into_iter().map(|g| if g == "core" { String::new() } else { g });
            value["apiGroups"] = groups.collect();
            value["resources"] = json!(words(self.resources));
        } else {
            value["nonResourceURLs"] = json!(words(self.urls));
        }
        if !self.names.is_empty() {
            value["resourceNames"] = json!(words(self.names));
        }
        value
    }
}

/// One object of the policy.
#[derive(Clone, Debug)]
pub struct Default {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace, empty for ClusterRoles and their bindings.
    pub namespace: &'static str,
    /// The document.
    pub document: Value,
}

fn metadata(name: &str, labels: &[&str]) -> Value {
    let mut all = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    for label in labels {
        all[*label] = "true".into();
    }
    json!({
        "name": name,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        "labels": all,
    })
}

fn role(name: &str, rules: &[Rule]) -> Value {
    let rules: Vec<_> = rules.iter().map(Rule::value).collect();
    json!({"metadata": metadata(name, &[]), "rules": rules})
}

fn subject(text: &str) -> Value {
    let group = "rbac.authorization.k8s.io";
    match text.split_once(' ') {
        Some(("User", name)) => json!({"kind": "User", "apiGroup": group, "name": name}),
        Some(("Group", name)) => json!({"kind": "Group", "apiGroup": group, "name": name}),
        _ => {
            let account = text.trim_start_matches("Account ");
            json!({"kind": "ServiceAccount", "namespace": "kube-system", "name": account})
        }
    }
}

fn binding(name: &str, kind: &str, role: &str, subjects: &[&str]) -> Value {
    let subjects: Vec<_> = subjects.iter().map(|s| subject(s)).collect();
    json!({
        "metadata": metadata(name, &[]),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": subjects,
    })
}

/// What any kubelet may do: the rules of `system:node`.
pub fn node_rules() -> Vec<PolicyRule> {
    cluster::NODE.iter().filter_map(|rule| api::decode::decode(&rule.value()).ok()).collect()
}

/// Every default role and binding, the roles before the bindings.
pub fn defaults() -> Vec<Default> {
    let mut all = Vec::new();
    all.extend(cluster::roles());
    all.extend(controllers::roles());
    all.extend(namespaces::roles());
    all.extend(cluster::bindings());
    all.extend(controllers::bindings());
    all.extend(namespaces::bindings());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binding_names_a_role_of_the_policy_and_no_name_is_taken_twice() {
        let all = defaults();
        let name = |d: &Default| d.document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let keys: Vec<_> = all.iter().map(|d| (d.kind, d.namespace, name(d))).collect();
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "{key:?} is there twice");
        }
        for binding in all.iter().filter(|d| d.kind.ends_with("Binding")) {
            let role = &binding.document["roleRef"];
            let found = all.iter().any(|d| {
                d.kind == role["kind"]
                    && name(d) == role["name"]
                    && (d.kind == "ClusterRole" || d.namespace == binding.namespace)
            });
            assert!(found, "{} refers to a role that is not there", name(binding));
        }
    }

    #[test]
    fn rules_are_complete() {
        for default in defaults().iter().filter(|d| d.kind.ends_with("Role")) {
            for rule in default.document["rules"].as_array().into_iter().flatten() {
                let filled = |field: &str| rule[field].as_array().is_some_and(|list| !list.is_empty());
                let what = default.document["metadata"]["name"].to_string();
                assert!(filled("verbs"), "{what}: {rule}");
                assert!(
                    filled("nonResourceURLs") || filled("apiGroups") && filled("resources"),
                    "{what}: {rule}"
                );
            }
        }
    }
}
