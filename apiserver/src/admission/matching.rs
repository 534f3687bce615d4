//! Which requests a webhook or a policy is asked about: rules, and selectors of namespaces and objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::decode::decode;
use api::openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use api::selector::Selector;
use api::status::StatusError;
use api::{Kind, Object};
use serde_json::Value;

use super::intent::{Change, Intent};
use crate::custom::Table;
use crate::storage::Hub;
use crate::storage::layout::storage_kind;

/// One of `rules`, as in `RuleWithOperations`; with names, as in `NamedRuleWithOperations`.
#[derive(Debug, Default)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
    names: Vec<String>,
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get(field).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

impl Rule {
    fn read(value: &Value) -> Self {
        Self {
            operations: texts(value, "operations"),
            groups: texts(value, "apiGroups"),
            versions: texts(value, "apiVersions"),
            resources: texts(value, "resources"),
            scope: value.get("scope").and_then(Value::as_str).unwrap_or("*").to_owned(),
            names: texts(value, "resourceNames"),
        }
    }

    /// The rules in a list.
    pub fn list(value: Option<&Value>) -> Vec<Self> {
        value.and_then(Value::as_array).into_iter().flatten().map(Self::read).collect()
    }

    /// Whether the rule is about a request, if its resource goes by the name `kind`.
    pub fn matches(&self, intent: &Intent<'_>, kind: &Kind) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|v| v == "*" || v == wanted);
        any(&self.operations, intent.operation.name())
            && any(&self.groups, kind.group)
            && any(&self.versions, kind.version)
            && self.resources.iter().any(|r| covers(r, kind.plural, intent.subresource()))
            && (self.names.is_empty() || self.names.iter().any(|n| n == intent.name))
            && match self.scope.as_str() {
                "Namespaced" => !intent.namespace.is_empty(),
                "Cluster" => intent.namespace.is_empty(),
                _ => true,
            }
    }
}

/// Whether an entry of `resources` names a resource or a part of it. `*` is every resource and no part, `pods/*` is
/// every part of pods and `*/*` is everything.
fn covers(entry: &str, plural: &str, subresource: &str) -> bool {
    let (resource, part) = entry.split_once('/').unwrap_or((entry, ""));
    (resource == "*" || resource == plural) && (part == "*" || part == subresource)
}

/// Everything that a webhook or policy says about when it is asked.
#[derive(Debug)]
pub struct Matcher {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    exact: bool,
    namespaces: Selector,
    objects: Selector,
}

impl Matcher {
    /// What a webhook, or the `matchConstraints` of a policy, says. `rules` is the name of the list of rules.
    pub fn read(value: &Value, rules: &str) -> Self {
        let selector = |field: &str| match value.get(field) {
            None | Some(Value::Null) => Selector::everything(),
            // What is refused on write, and yet there, selects nothing.
            Some(selector) => decode::<LabelSelector>(selector)
                .ok()
                .and_then(|s| Selector::from_typed(Some(&s)).ok())
                .unwrap_or_else(Selector::nothing),
        };
        Self {
            rules: Rule::list(value.get(rules)),
            excluded: Rule::list(value.get("excludeResourceRules")),
            exact: value.get("matchPolicy").and_then(Value::as_str) == Some("Exact"),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// The same, about every resource if there are no rules: those of a binding only narrow down what its policy matches.
    pub fn or_everything(mut self) -> Self {
        if self.rules.is_empty() {
            let all = || vec!["*".to_owned()];
            let resources = vec!["*/*".to_owned()];
            let (operations, groups, versions, scope) = (all(), all(), all(), "*".to_owned());
            self.rules.push(Rule { operations, groups, versions, resources, scope, names: Vec::new() });
        }
        self
    }

    /// Under which kind the request is to be shown, if the rules are about it. Equivalent rules may know the objects
    /// under another version or group than the client does.
    fn kind(
        &self,
        intent: &Intent<'_>,
        others: impl FnOnce() -> Vec<&'static Kind>,
    ) -> Option<&'static Kind> {
        let any = |rules: &[Rule], kind: &Kind| rules.iter().any(|rule| rule.matches(intent, kind));
        if any(&self.excluded, intent.kind) {
            return None;
        }
        if any(&self.rules, intent.kind) {
            return Some(intent.kind);
        }
        if self.exact {
            return None;
        }
        let others = others();
        if others.iter().any(|kind| any(&self.excluded, kind)) {
            return None;
        }
        others.into_iter().find(|kind| any(&self.rules, kind))
    }

    fn objects_match(&self, change: Change<'_>) -> bool {
        if self.objects.is_everything() {
            return true;
        }
        [change.new, change.old].into_iter().flatten().any(|o| self.objects.matches(&o.labels()))
    }
}

/// What must be known of the cluster to tell whether a request matches.
pub struct Surroundings {
    /// The copies, for the labels of namespaces.
    pub hub: Arc<Hub>,
    /// The table, for the other names of a custom kind.
    pub table: Arc<Table>,
}

impl Surroundings {
    /// The other kinds under which the objects of a kind are served.
    fn others(&self, kind: &'static Kind) -> Vec<&'static Kind> {
        let other = |k: &&'static Kind| !std::ptr::eq(*k, kind);
        if kind.custom.is_some() {
            let same = |k: &&'static Kind| k.group == kind.group && k.plural == kind.plural;
            return self.table.custom().into_iter().filter(same).filter(other).collect();
        }
        let stored = storage_kind(kind);
        let same = |k: &&'static Kind| k.is_stored() && std::ptr::eq(storage_kind(k), stored);
        api::kinds::KINDS.iter().filter(same).filter(other).collect()
    }

    /// The namespace of a request as it is; of a Namespace that is written, as it will be.
    pub fn namespace(&self, intent: &Intent<'_>, change: Change<'_>) -> Result<Option<Object>, StatusError> {
        if intent.is_namespace() && intent.subresource.is_none() {
            return Ok(change.new.or(change.old).cloned());
        }
        let name = intent.scope();
        if name.is_empty() {
            return Ok(None);
        }
        let kind = Kind::find("", "Namespace").expect("Namespace is in the table");
        let entry = self.hub.cache(kind).get(name).ok_or_else(|| StatusError::not_found(kind, name))?;
        Object::parse(&entry.json).map(Some).map_err(StatusError::internal)
    }

    /// Under which kind a request is to be shown to whoever asks for what matches; nothing when it does not.
    ///
    /// # Errors
    /// 404 when its namespace is not known.
    pub fn matches(
        &self,
        matcher: &Matcher,
        intent: &Intent<'_>,
        change: Change<'_>,
    ) -> Result<Option<&'static Kind>, StatusError> {
        let Some(kind) = matcher.kind(intent, || self.others(intent.kind)) else { return Ok(None) };
        if !matcher.objects_match(change) {
            return Ok(None);
        }
        if !matcher.namespaces.is_everything()
            && let Some(namespace) = self.namespace(intent, change)?
            && !matcher.namespaces.matches(&labels_of(intent, &namespace))
        {
            return Ok(None);
        }
        Ok(Some(kind))
    }
}

/// The labels of a namespace. Its name is one, also before it was written.
fn labels_of(intent: &Intent<'_>, namespace: &Object) -> BTreeMap<String, String> {
    let mut labels = namespace.labels();
    if intent.is_namespace() {
        labels.entry("kubernetes.io/metadata.name".into()).or_insert_with(|| namespace.name().to_owned());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Operation;
    use crate::admission::intent::Options;
    use crate::auth::User;
    use api::Subresource;
    use serde_json::json;

    #[test]
    fn an_entry_covers_resources_and_their_parts() {
        for (entry, yes, no) in [
            ("pods", vec!["pods"], vec!["pods/status", "services"]),
            ("pods/*", vec!["pods/status", "pods/exec", "pods"], vec!["services/status"]),
            ("*", vec!["pods", "services"], vec!["pods/status"]),
            ("*/*", vec!["pods", "pods/status"], vec![]),
            ("*/scale", vec!["deployments/scale"], vec!["deployments", "deployments/status"]),
        ] {
            let covered = |what: &&str| {
                let (plural, part) = what.split_once('/').unwrap_or((what, ""));
                covers(entry, plural, part)
            };
            assert!(yes.iter().all(covered), "{entry}");
            assert!(!no.iter().any(covered), "{entry}");
        }
    }

    #[track_caller]
    fn check(value: &Value, group: &str, kind: &str, sub: Option<Subresource>, wanted: Option<&str>) {
        let user = User::anonymous();
        let kind = Kind::find(group, kind).expect("a kind");
        let namespace = if kind.namespaced { "n" } else { "" };
        let intent = Intent {
            user: &user,
            kind,
            subresource: sub,
            operation: Operation::Create,
            namespace,
            name: "a",
            options: Options::DryRun(false),
        };
        let stored = storage_kind(kind);
        let others = || {
            let same = |k: &&'static Kind| k.is_stored() && std::ptr::eq(storage_kind(k), stored);
            api::kinds::KINDS.iter().filter(same).filter(|k| !std::ptr::eq(*k, kind)).collect()
        };
        let found = Matcher::read(value, "rules").kind(&intent, others).map(|k| k.api_version);
        assert_eq!(found, wanted, "{value}");
    }

    #[test]
    fn rules_find_the_kind_under_which_a_request_is_shown() {
        let rule = |group: &str, version: &str, resource: &str, scope: &str, policy: &str| {
            json!({"matchPolicy": policy, "rules": [{"operations": ["CREATE"], "apiGroups": [group],
                "apiVersions": [version], "resources": [resource], "scope": scope}]})
        };
        let exact = "Exact";
        check(&rule("", "v1", "pods", "*", exact), "", "Pod", None, Some("v1"));
        check(&rule("*", "*", "*", "Namespaced", exact), "", "Pod", None, Some("v1"));
        check(&rule("*", "*", "*", "Cluster", exact), "", "Pod", None, None);
        check(&rule("*", "*", "*", "Cluster", exact), "", "Namespace", None, Some("v1"));
        check(&rule("", "v1", "pods", "*", exact), "", "Pod", Some(Subresource::Status), None);
        let events = rule("", "v1", "events", "*", exact);
        check(&events, "events.k8s.io", "Event", None, None);
        let events = rule("", "v1", "events", "*", "Equivalent");
        check(&events, "events.k8s.io", "Event", None, Some("v1"));
        let mut one = rule("", "v1", "pods", "*", exact);
        one["excludeResourceRules"] = one["rules"].clone();
        check(&one, "", "Pod", None, None);
    }
}
