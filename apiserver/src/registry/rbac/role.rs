//! The rules of Roles and ClusterRoles.

use api::openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use api::openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::strategy::{Column, NAME, Strategy};

const COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Created At",
        "CreationTimestamp is the server time when this object was created, in RFC 3339 form.",
    ),
];

fn row(meta: &ObjectMeta) -> Vec<Value> {
    let created = meta.creation_timestamp.as_ref().map(|t| json!(t)).unwrap_or_else(|| json!("<unknown>"));
    vec![json!(meta.name), created]
}

fn validate(rules: Option<&Vec<PolicyRule>>, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, rule) in rules.into_iter().flatten().enumerate() {
        let field = |name: &str| format!("rules[{i}].{name}");
        let len = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        if rule.verbs.is_empty() {
            errors.push(FieldError::required(field("verbs"), "verbs must contain at least one value"));
        }
        if len(&rule.non_resource_urls) > 0 {
            let urls = json!(rule.non_resource_urls);
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(field("nonResourceURLs"), urls.clone(), detail));
            }
            if len(&rule.api_groups) + len(&rule.resources) + len(&rule.resource_names) > 0 {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(field("nonResourceURLs"), urls, detail));
            }
            continue;
        }
        if len(&rule.api_groups) == 0 {
            let detail = "resource rules must supply at least one api group";
            errors.push(FieldError::required(field("apiGroups"), detail));
        }
        if len(&rule.resources) == 0 {
            let detail = "resource rules must supply at least one resource";
            errors.push(FieldError::required(field("resources"), detail));
        }
    }
    errors
}

macro_rules! strategy {
    ($name:ident, $kind:ident, $namespaced:literal) => {
        #[doc = concat!("The rules of ", stringify!($kind), "s.")]
        pub struct $name;

        impl Strategy for $name {
            type K = $kind;

            fn validate(&self, role: &$kind) -> Vec<FieldError> {
                validate(role.rules.as_ref(), $namespaced)
            }

            fn validate_name(&self, name: &str) -> Vec<String> {
                super::validate_name(name)
            }

            fn columns(&self) -> &'static [Column] {
                COLUMNS
            }

            fn row(&self, role: &$kind, _: Timestamp) -> Vec<Value> {
                row(&role.metadata)
            }
        }
    };
}

strategy!(RoleStrategy, Role, true);
strategy!(ClusterRoleStrategy, ClusterRole, false);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: Value, namespaced: bool, wanted: &[&str]) {
        let rules: Vec<PolicyRule> = serde_json::from_value(json!([rule])).expect("a rule");
        let fields: Vec<_> = validate(Some(&rules), namespaced).into_iter().map(|e| e.field).collect();
        assert_eq!(fields, wanted);
    }

    #[test]
    fn a_rule_is_about_resources_or_about_paths() {
        let whole = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        check(whole, true, &[]);
        check(json!({"verbs": []}), false, &["rules[0].verbs", "rules[0].apiGroups", "rules[0].resources"]);
        let paths = json!({"verbs": ["get"], "nonResourceURLs": ["/a"]});
        check(paths.clone(), false, &[]);
        check(paths, true, &["rules[0].nonResourceURLs"]);
        let both = json!({"verbs": ["get"], "nonResourceURLs": ["/a"], "resources": ["pods"]});
        check(both, false, &["rules[0].nonResourceURLs"]);
    }
}
