//! What one rule of a role allows, and whether rules cover one another.

use api::openapi::api::rbac::v1::PolicyRule;

use crate::auth::Request;

const ALL: &str = "*";

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == ALL || item == wanted)
}

fn some(list: &Option<Vec<String>>) -> &[String] {
    list.as_deref().unwrap_or_default()
}

/// Whether a rule allows a request.
pub fn allows(rule: &PolicyRule, request: &Request<'_>) -> bool {
    match request {
        Request::Resource(verb, resource) => {
            let names = some(&rule.resource_names);
            has(&rule.verbs, verb)
                && has(some(&rule.api_groups), resource.group)
                && some(&rule.resources)
                    .iter()
                    .any(|r| names_resource(r, resource.resource, resource.subresource))
                && (names.is_empty() || names.iter().any(|name| name == resource.name))
        }
        Request::Path(verb, path) => {
            has(&rule.verbs, verb) && some(&rule.non_resource_urls).iter().any(|url| covers_path(url, path))
        }
    }
}

/// Whether `pods`, `pods/log`, `*/scale` or `*` names a resource and its subresource.
fn names_resource(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == ALL {
        return true;
    }
    match pattern.split_once('/') {
        None => subresource.is_empty() && pattern == resource,
        Some((main, sub)) => {
            !subresource.is_empty() && sub == subresource && (main == ALL || main == resource)
        }
    }
}

/// Whether a path is meant: itself, or whatever begins like a pattern that ends in a star.
pub fn covers_path(pattern: &str, path: &str) -> bool {
    pattern == ALL
        || pattern == path
        || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
}

/// The parts of `wanted` that no rule of `owned` covers; each part is a rule of one verb and one resource or path.
pub fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let parts = wanted.iter().flat_map(break_down);
    parts.filter(|part| !owned.iter().any(|rule| covers(rule, part))).collect()
}

/// A rule in its smallest parts.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    let names = some(&rule.resource_names);
    for verb in &rule.verbs {
        for group in some(&rule.api_groups) {
            for resource in some(&rule.resources) {
                let part = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    ..PolicyRule::default()
                };
                if names.is_empty() {
                    parts.push(part);
                    continue;
                }
                let named =
                    |name: &String| PolicyRule { resource_names: Some(vec![name.clone()]), ..part.clone() };
                parts.extend(names.iter().map(named));
            }
        }
        for url in some(&rule.non_resource_urls) {
            parts.push(PolicyRule {
                verbs: vec![verb.clone()],
                non_resource_urls: Some(vec![url.clone()]),
                ..PolicyRule::default()
            });
        }
    }
    parts
}

fn covers(owner: &PolicyRule, part: &PolicyRule) -> bool {
    let all = |owned: &[String], wanted: &[String]| wanted.iter().all(|w| has(owned, w));
    if !all(&owner.verbs, &part.verbs) {
        return false;
    }
    if part.non_resource_urls.is_some() {
        let urls = some(&owner.non_resource_urls);
        return some(&part.non_resource_urls).iter().all(|w| urls.iter().any(|own| covers_path(own, w)));
    }
    let names = some(&owner.resource_names);
    let wanted = some(&part.resource_names);
    let named = names.is_empty() || !wanted.is_empty() && wanted.iter().all(|w| names.contains(w));
    named
        && all(some(&owner.api_groups), some(&part.api_groups))
        && some(&part.resources).iter().all(|w| {
            let of_all = w.split_once('/').map(|(_, sub)| format!("*/{sub}"));
            has(some(&owner.resources), w) || of_all.is_some_and(|w| some(&owner.resources).contains(&w))
        })
}

/// A rule in one line, as messages show it.
pub fn compact(rule: &PolicyRule) -> String {
    let list = |items: &[String]| {
        let quoted: Vec<_> = items.iter().map(|i| format!("{i:?}")).collect();
        format!("[{}]", quoted.join(" "))
    };
    let mut parts = Vec::new();
    for (name, items) in [
        ("APIGroups", some(&rule.api_groups)),
        ("Resources", some(&rule.resources)),
        ("NonResourceURLs", some(&rule.non_resource_urls)),
        ("ResourceNames", some(&rule.resource_names)),
        ("Verbs", &rule.verbs),
    ] {
        if !items.is_empty() {
            parts.push(format!("{name}:{}", list(items)));
        }
    }
    format!("{{{}}}", parts.join(", "))
}

/// Joins rules that differ in their verbs alone, for lists that people read.
pub fn simplify(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut simple: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let same =
            |other: &&mut PolicyRule| PolicyRule { verbs: rule.verbs.clone(), ..(**other).clone() } == rule;
        match simple.iter_mut().find(same) {
            Some(found) => {
                for verb in rule.verbs {
                    if !found.verbs.contains(&verb) {
                        found.verbs.push(verb);
                    }
                }
            }
            None => simple.push(rule),
        }
    }
    simple
}
