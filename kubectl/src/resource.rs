//! What the server serves, and how people name it.

pub mod discovery;
pub mod targets;

use serde::{Deserialize, Serialize};

use crate::session::encode;

/// One resource of one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Kind of its objects.
    pub kind: String,
    /// Plural name, as in paths.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Abbreviations.
    pub short_names: Vec<String>,
    /// Groups of kinds such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What can be done.
    pub verbs: Vec<String>,
    /// Names of subresources.
    pub subresources: Vec<String>,
}

impl Resource {
    /// `apps/v1`, or `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, or `pods`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `deployment.apps/web`, or `pod/web`: how one object is named in messages.
    pub fn slashed(&self, name: &str) -> String {
        format!("{}/{name}", self.singular_qualified())
    }

    /// `deployment.apps`, or `pod`.
    pub fn singular_qualified(&self) -> String {
        let kind = self.kind.to_lowercase();
        if self.group.is_empty() { kind } else { format!("{kind}.{}", self.group) }
    }

    /// Whether a verb is served.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Whether a subresource is served.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|s| s == subresource)
    }

    /// Whether this is a resource of a group by its plural name.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// The path of the collection; an empty namespace means all of them.
    pub fn path(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        let scope = match self.namespaced && !namespace.is_empty() {
            true => format!("/namespaces/{}", encode(namespace)),
            false => String::new(),
        };
        format!("{root}/{}{scope}/{}", self.version, self.plural)
    }

    /// The path of an object.
    pub fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.path(namespace), encode(name))
    }
}

/// Everything that a server serves, in the order in which it says so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// Every resource of every version; a group's preferred version comes first.
    pub resources: Vec<Resource>,
    /// Every group and version, also those without resources.
    pub versions: Vec<String>,
    /// Groups that could not be asked.
    #[serde(default)]
    pub stale: Vec<String>,
    /// Whether this was asked in this session rather than read from the cache.
    #[serde(skip)]
    pub fresh: bool,
}

impl Catalog {
    /// The resource that is meant by a plural, singular, short name or kind, alone or followed by
    /// `.group` or `.version.group`.
    pub fn find(&self, text: &str) -> Option<&Resource> {
        let lower = text.to_lowercase();
        if let Some(found) = self.find_in(&lower, |_| true) {
            return Some(found);
        }
        let (name, rest) = lower.split_once('.')?;
        let by_group = self.find_in(name, |r| r.group == rest);
        by_group.or_else(|| {
            let (version, group) = rest.split_once('.').unwrap_or((rest, ""));
            self.find_in(name, |r| r.version == version && r.group == group)
        })
    }

    fn find_in(&self, name: &str, wanted: impl Fn(&Resource) -> bool) -> Option<&Resource> {
        let named = |test: &dyn Fn(&Resource) -> bool| self.resources.iter().find(|r| wanted(r) && test(r));
        named(&|r| r.plural == name)
            .or_else(|| named(&|r| r.singular == name || r.kind.to_lowercase() == name))
            .or_else(|| named(&|r| r.short_names.iter().any(|s| s == name)))
    }

    /// The resource of a document.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.resources.iter().find(|r| r.group == group && r.version == version && r.kind == kind)
    }

    /// The resources of a category, each in its preferred version.
    pub fn category(&self, name: &str) -> Vec<&Resource> {
        let mut found: Vec<&Resource> = Vec::new();
        for resource in &self.resources {
            let known = found.iter().any(|r| r.group == resource.group && r.plural == resource.plural);
            if !known && resource.can("list") && resource.categories.iter().any(|c| c == name) {
                found.push(resource);
            }
        }
        found
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn resource(group: &str, version: &str, kind: &str, plural: &str, short: &[&str]) -> Resource {
        Resource {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short_names: short.iter().map(|s| (*s).to_owned()).collect(),
            categories: vec!["all".into()],
            namespaced: kind != "Node",
            verbs: vec!["list".into(), "get".into()],
            subresources: Vec::new(),
        }
    }

    pub(crate) fn catalog() -> Catalog {
        Catalog {
            resources: vec![
                resource("", "v1", "Pod", "pods", &["po"]),
                resource("", "v1", "Event", "events", &["ev"]),
                resource("", "v1", "Node", "nodes", &["no"]),
                resource("", "v1", "Service", "services", &["svc"]),
                resource("apps", "v1", "Deployment", "deployments", &["deploy"]),
                resource("events.k8s.io", "v1", "Event", "events", &["ev"]),
                resource("example.com", "v2", "Widget", "widgets", &[]),
                resource("example.com", "v1", "Widget", "widgets", &[]),
            ],
            ..Catalog::default()
        }
    }

    #[track_caller]
    fn check(text: &str, want: Option<&str>) {
        let catalog = catalog();
        let found = catalog.find(text).map(|r| format!("{}/{}", r.api_version(), r.plural));
        assert_eq!(found.as_deref(), want);
    }

    #[test]
    fn resources_are_found_by_every_name() {
        for text in
            ["deploy", "deployment", "deployments", "Deployment", "deployments.apps", "deploy.v1.apps"]
        {
            check(text, Some("apps/v1/deployments"));
        }
        check("ev", Some("v1/events"));
        check("events.events.k8s.io", Some("events.k8s.io/v1/events"));
        check("widget", Some("example.com/v2/widgets"));
        check("widgets.v1.example.com", Some("example.com/v1/widgets"));
        check("pods.v1", Some("v1/pods"));
        check("pods.v1.", Some("v1/pods"));
        check("nothing", None);
        check("pods.apps", None);
    }

    #[test]
    fn categories_hold_each_resource_once() {
        let catalog = catalog();
        let all = catalog.category("all");
        assert_eq!(all.iter().filter(|r| r.plural == "widgets").count(), 1);
    }

    #[test]
    fn paths_name_group_version_and_namespace() {
        let deployment = resource("apps", "v1", "Deployment", "deployments", &[]);
        assert_eq!(deployment.object_path("a b", "w/x"), "/apis/apps/v1/namespaces/a%20b/deployments/w%2Fx");
        assert_eq!(resource("", "v1", "Node", "nodes", &[]).path("default"), "/api/v1/nodes");
    }
}
