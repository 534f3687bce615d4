//! What `kubectl auth can-i --list` shows: the rules of a SelfSubjectRulesReview, one row each.

use serde_json::Value;

/// A rule as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    groups: Vec<String>,
    resources: Vec<String>,
    urls: Vec<String>,
    names: Vec<String>,
    verbs: Vec<String>,
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The rules of a review, taken apart.
fn parts(status: &Value) -> Vec<Rule> {
    let list = |field: &str| status[field].as_array().cloned().unwrap_or_default();
    let mut parts = Vec::new();
    for rule in list("resourceRules") {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                let names = strings(&rule["resourceNames"]);
                let each: Vec<Vec<String>> =
                    if names.is_empty() { vec![names] } else { names.into_iter().map(|n| vec![n]).collect() };
                for names in each {
                    parts.push(Rule {
                        groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        names,
                        verbs: strings(&rule["verbs"]),
                        ..Rule::default()
                    });
                }
            }
        }
    }
    for rule in list("nonResourceRules") {
        for url in strings(&rule["nonResourceURLs"]) {
            parts.push(Rule { urls: vec![url], verbs: strings(&rule["verbs"]), ..Rule::default() });
        }
    }
    parts
}

/// Joins what differs in its verbs alone.
fn joined(parts: Vec<Rule>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for part in parts {
        let same = |r: &&mut Rule| {
            r.groups == part.groups
                && r.resources == part.resources
                && r.urls == part.urls
                && r.names == part.names
        };
        match rules.iter_mut().find(same) {
            Some(rule) => {
                for verb in part.verbs {
                    if !rule.verbs.contains(&verb) {
                        rule.verbs.push(verb);
                    }
                }
            }
            None => rules.push(part),
        }
    }
    rules
}

/// In the form by which upstream sorts.
fn compact(rule: &Rule) -> String {
    let quoted = |list: &[String]| list.iter().map(|i| format!("{i:?}")).collect::<Vec<_>>().join(" ");
    let mut parts = Vec::new();
    for (name, list) in [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.urls),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ] {
        if !list.is_empty() {
            parts.push(format!("{name}:[{}]", quoted(list)));
        }
    }
    format!("{{{}}}", parts.join(", "))
}

/// `deployments.apps/scale`: a resource with its group.
fn qualified(resource: &str, group: &str) -> String {
    match (resource.split_once('/'), group) {
        (_, "") => resource.to_owned(),
        (Some((main, sub)), group) => format!("{main}.{group}/{sub}"),
        (None, group) => format!("{resource}.{group}"),
    }
}

/// The rows of the table, cells separated by tabs.
pub fn rows(review: &Value) -> Vec<String> {
    let mut rules = joined(parts(&review["status"]));
    rules.sort_by_key(compact);
    let list = |list: &[String]| format!("[{}]", list.join(" "));
    let row = |rule: &Rule| {
        let resource = match (rule.resources.first(), rule.groups.first()) {
            (Some(resource), Some(group)) => qualified(resource, group),
            _ => String::new(),
        };
        format!("{resource}\t{}\t{}\t{}", list(&rule.urls), list(&rule.names), list(&rule.verbs))
    };
    rules.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_are_taken_apart_joined_and_sorted() {
        let review = json!({"status": {
            "resourceRules": [
                {"verbs": ["get"], "apiGroups": ["", "apps"], "resources": ["pods", "x/scale"]},
                {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]},
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a", "b"]},
            ],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/api", "/version"]}],
        }});
        assert_eq!(
            rows(&review),
            [
                "pods\t[]\t[]\t[get list]",
                "x/scale\t[]\t[]\t[get]",
                "*.*\t[]\t[a]\t[*]",
                "*.*\t[]\t[b]\t[*]",
                "pods.apps\t[]\t[]\t[get]",
                "x.apps/scale\t[]\t[]\t[get]",
                "\t[/api]\t[]\t[get]",
                "\t[/version]\t[]\t[get]",
            ]
        );
    }
}
