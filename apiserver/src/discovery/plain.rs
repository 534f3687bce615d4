//! Discovery as it was from the beginning: a document per group and version.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Kind;
use api::kinds::compare_versions;
use serde_json::{Value, json};

use super::verbs::{of_resource, of_subresource};
use crate::aggregation::remote::Remote;

/// Every document by its path.
pub fn documents(kinds: &[&Kind], remotes: &[Arc<Remote>]) -> BTreeMap<String, Value> {
    let mut documents = BTreeMap::new();
    documents.insert(
        "/api".to_owned(),
        json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
    );
    let groups = groups(kinds, remotes);
    let list: Vec<Value> = groups.iter().map(|(name, versions)| group(name, versions)).collect();
    documents.insert("/apis".to_owned(), json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}));
    for (name, versions) in &groups {
        let mut own = group(name, versions);
        own["kind"] = "APIGroup".into();
        own["apiVersion"] = "v1".into();
        documents.insert(format!("/apis/{name}"), own);
        // Others answer for their own versions.
        let served = |v: &&&str| kinds.iter().any(|k| k.group == *name && k.version == **v);
        for version in versions.iter().filter(served) {
            documents.insert(format!("/apis/{name}/{version}"), resources(kinds, name, version));
        }
    }
    documents.insert("/api/v1".to_owned(), resources(kinds, "", "v1"));
    documents
}

/// The groups, the unnamed one excepted, with their versions in order of preference.
pub fn groups<'a>(kinds: &[&'a Kind], remotes: &'a [Arc<Remote>]) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut groups: BTreeMap<&'a str, Vec<&'a str>> = BTreeMap::new();
    for kind in kinds.iter().filter(|k| !k.group.is_empty()) {
        let versions = groups.entry(kind.group).or_default();
        if !versions.contains(&kind.version) {
            versions.push(kind.version);
        }
    }
    for remote in remotes {
        groups.entry(&remote.group).or_default().push(&remote.version);
    }
    groups.values_mut().for_each(|versions| versions.sort_by(|a, b| compare_versions(b, a)));
    groups
}

fn group(name: &str, versions: &[&str]) -> Value {
    let all: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": all, "preferredVersion": all.first()})
}

/// The resources of a group and version, each followed by its subresources.
fn resources(kinds: &[&Kind], group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for kind in kinds.iter().filter(|k| k.group == group && k.version == version) {
        let mut own = json!({
            "name": kind.plural, "singularName": kind.singular(), "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": of_resource(kind),
        });
        if !kind.short_names.is_empty() {
            own["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            own["categories"] = json!(kind.categories);
        }
        list.push(own);
        for subresource in kind.subresources {
            let facet = of_subresource(kind, *subresource);
            let mut part = json!({
                "name": format!("{}/{}", kind.plural, subresource.path()), "singularName": "",
                "namespaced": kind.namespaced, "kind": kind.kind, "verbs": facet.verbs,
            });
            if let Some((group, version, kind)) = facet.kind {
                part["kind"] = kind.into();
                if !group.is_empty() {
                    part["group"] = group.into();
                    part["version"] = version.into();
                }
            }
            list.push(part);
        }
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}
