//! What pods take of a quota, and which pods a scope is about.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Quantity, Resources};

/// Limited under these names; each container must say how much of it.
const DEMANDED: &[&str] =
    &["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
const NAMES: &[&str] = &[
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "pods",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const COMPUTE: &[&str] = &["cpu", "ephemeral-storage", "memory"];

/// Whether a name of `hard` is about pods.
pub(super) fn is_about(name: &str) -> bool {
    let requested = name.strip_prefix("requests.");
    NAMES.contains(&name)
        || name.starts_with("hugepages-")
        || requested.is_some_and(|r| r.starts_with("hugepages-") || is_extended(r))
}

/// Whether a resource is one that somebody has added to nodes.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// What a pod takes.
pub(super) fn usage(used: &mut Resources, pod: &Value) {
    used.set("pods", Quantity::count(1));
    let spec = &pod["spec"];
    named(used, &total(spec, "requests"), &total(spec, "limits"));
}

/// Requests and limits under the names that quotas know.
fn named(used: &mut Resources, requests: &Resources, limits: &Resources) {
    for (name, quantity) in &requests.0 {
        let huge = name.starts_with("hugepages-");
        if COMPUTE.contains(&name.as_str()) || huge {
            used.set(name.as_str(), quantity.clone());
        }
        if COMPUTE.contains(&name.as_str()) || huge || is_extended(name) {
            used.set(format!("requests.{name}"), quantity.clone());
        }
    }
    for (name, quantity) in limits.0.iter().filter(|(name, _)| COMPUTE.contains(&name.as_str())) {
        used.set(format!("limits.{name}"), quantity.clone());
    }
}

/// The requests or limits of a pod as a whole: what its containers have together, or what one of the initial ones has
/// beside those that stay, whichever is more; with the pod's own instead of theirs, and its overhead on top.
fn total(spec: &Value, which: &str) -> Resources {
    let of = |container: &Value| Resources::read(container["resources"].get(which));
    let mut sum = Resources::default();
    for container in spec["containers"].as_array().into_iter().flatten() {
        sum.add(&of(container));
    }
    let (mut most, mut staying) = (Resources::default(), Resources::default());
    for container in spec["initContainers"].as_array().into_iter().flatten() {
        let own = of(container);
        let mut beside = staying.clone();
        beside.add(&own);
        if container["restartPolicy"] == "Always" {
            sum.add(&own);
            staying.add(&own);
        }
        greater(&mut most, beside);
    }
    greater(&mut sum, most);
    for (name, quantity) in of(spec).0 {
        sum.set(name, quantity);
    }
    let overhead = Resources::read(spec.get("overhead"));
    let counted = |name: &str| which == "requests" || sum.0.contains_key(name);
    let overhead = overhead.only(counted);
    sum.add(&overhead);
    sum
}

fn greater(most: &mut Resources, other: Resources) {
    for (name, quantity) in other.0 {
        let own = most.0.entry(name).or_default();
        if quantity.amount > own.amount {
            *own = quantity;
        }
    }
}

/// What containers leave out of what is limited: `limits.cpu for: a,b; memory for: a`. Nothing when they say it all.
pub(super) fn unspecified(pod: &Value, limited: &BTreeSet<&str>) -> Option<String> {
    let spec = &pod["spec"];
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let whole = said(spec);
    let lists = ["containers", "initContainers"].map(|field| spec[field].as_array());
    for container in lists.into_iter().flatten().flatten() {
        let said = said(container);
        let demanded = DEMANDED.iter().copied().filter(|name| limited.contains(name));
        for name in demanded.filter(|name| !said.contains_key(*name) && !whole.contains_key(*name)) {
            missing.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
        }
    }
    let join = |(name, containers): (&str, BTreeSet<&str>)| {
        format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","))
    };
    let all: Vec<String> = missing.into_iter().map(join).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn said(of: &Value) -> BTreeMap<String, Quantity> {
    let read = |which: &str| Resources::read(of["resources"].get(which));
    let mut said = Resources::default();
    named(&mut said, &read("requests"), &read("limits"));
    said.0
}

/// Whether a pod is in a scope, an entry of `scopeSelector.matchExpressions`.
pub(super) fn is_in_scope(scope: &Value, pod: &Value) -> bool {
    let spec = &pod["spec"];
    let terminating = spec["activeDeadlineSeconds"].as_i64().is_some_and(|s| s >= 0);
    match scope["scopeName"].as_str().unwrap_or_default() {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => is_best_effort(spec),
        "NotBestEffort" => !is_best_effort(spec),
        "CrossNamespacePodAffinity" => is_affine_elsewhere(spec),
        "PriorityClass" => {
            let class = spec["priorityClassName"].as_str().unwrap_or_default();
            let listed = || scope["values"].as_array().is_some_and(|v| v.iter().any(|v| v == class));
            match scope["operator"].as_str().unwrap_or_default() {
                "In" => !class.is_empty() && listed(),
                "NotIn" => class.is_empty() || !listed(),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        _ => false,
    }
}

/// Whether no container asks for CPU or memory, nor the pod as a whole.
fn is_best_effort(spec: &Value) -> bool {
    let lists = ["containers", "initContainers"].map(|field| spec[field].as_array());
    let asks = |of: &Value| {
        let some = |q: &Quantity| q.amount != crate::quantity::Amount::ZERO;
        let all = ["requests", "limits"].map(|which| Resources::read(of["resources"].get(which)));
        all.iter().any(|r| ["cpu", "memory"].iter().any(|name| r.0.get(*name).is_some_and(some)))
    };
    !asks(spec) && !lists.into_iter().flatten().flatten().any(asks)
}

/// Whether affinity looks at pods of other namespaces.
fn is_affine_elsewhere(spec: &Value) -> bool {
    let looks = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|n| !n.is_empty()) || term["namespaceSelector"].is_object()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|field| {
        let affinity = &spec["affinity"][*field];
        let list = |name: &str| affinity[name].as_array().cloned().unwrap_or_default();
        list("requiredDuringSchedulingIgnoredDuringExecution").iter().any(looks)
            || list("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|term| looks(&term["podAffinityTerm"]))
    })
}
