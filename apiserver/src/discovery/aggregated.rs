//! Aggregated discovery (KEP-3352): everything in one document.

use std::sync::Arc;

use api::Kind;
use serde_json::{Value, json};

use super::plain::groups;
use super::verbs::{of_resource, of_subresource};
use crate::aggregation::remote::Remote;

/// The versions of the aggregated form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `v2`.
    V2,
    /// `v2beta1`, which older clients ask for; the content is the same.
    V2Beta1,
}

impl Version {
    /// The media type of an answer.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }

    const fn api_version(self) -> &'static str {
        match self {
            Self::V2 => "apidiscovery.k8s.io/v2",
            Self::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
        }
    }
}

/// The unnamed group (for `/api`), or all the others (for `/apis`).
pub fn list(kinds: &[&Kind], remotes: &[Arc<Remote>], core: bool, version: Version) -> Value {
    let items: Vec<Value> = if core {
        vec![json!({"metadata": {}, "versions": [one_version(kinds, "", "v1")]})]
    } else {
        let item = |(name, versions): (&str, Vec<&str>)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|v| {
                    match remotes.iter().find(|r| (r.group.as_str(), r.version.as_str()) == (name, *v)) {
                        Some(remote) => remote_version(remote),
                        None => one_version(kinds, name, v),
                    }
                })
                .collect();
            json!({"metadata": {"name": name}, "versions": versions})
        };
        groups(kinds, remotes).into_iter().map(item).collect()
    };
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": version.api_version(), "metadata": {}, "items": items})
}

fn one_version(kinds: &[&Kind], group: &str, version: &str) -> Value {
    let mut resources: Vec<Value> =
        kinds.iter().filter(|k| k.group == group && k.version == version).map(|k| resource(k)).collect();
    resources.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
    json!({"version": version, "freshness": "Current", "resources": resources})
}

/// What others serve is as fresh as they are available.
fn remote_version(remote: &Remote) -> Value {
    let freshness = if remote.available { "Current" } else { "Stale" };
    json!({"version": remote.version, "freshness": freshness, "resources": remote.aggregated()})
}

fn resource(kind: &Kind) -> Value {
    let gvk = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
    let own = (kind.group, kind.version, kind.kind);
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            let facet = of_subresource(kind, *subresource);
            let response = gvk(facet.kind.unwrap_or(own));
            json!({"subresource": subresource.path(), "responseKind": response, "verbs": facet.verbs})
        })
        .collect();
    let mut value = json!({
        "resource": kind.plural, "responseKind": gvk(own),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular(), "verbs": of_resource(kind),
    });
    let lists = [
        ("shortNames", json!(kind.short_names)),
        ("categories", json!(kind.categories)),
        ("subresources", json!(subresources)),
    ];
    for (name, list) in lists {
        if list.as_array().is_some_and(|l| !l.is_empty()) {
            value[name] = list;
        }
    }
    value
}
