//! The rules of RoleBindings and ClusterRoleBindings.

use api::openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use api::openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use api::validation::{FieldError, dns_subdomain};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auth::rbac::GROUP;
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Role", "The role that is given."),
    AGE,
    Column::string("Users", "Users in the roleBinding").wide(),
    Column::string("Groups", "Groups in the roleBinding").wide(),
    Column::string("ServiceAccounts", "ServiceAccounts in the roleBinding").wide(),
];

fn default(role: &mut RoleRef, subjects: Option<&mut Vec<Subject>>) {
    if role.api_group.is_empty() {
        role.api_group = GROUP.into();
    }
    for subject in subjects.into_iter().flatten() {
        if matches!(subject.kind.as_str(), "User" | "Group")
            && subject.api_group.as_deref().unwrap_or_default().is_empty()
        {
            subject.api_group = Some(GROUP.into());
        }
    }
}

fn validate(
    role: &RoleRef,
    kinds: &[&str],
    subjects: Option<&Vec<Subject>>,
    namespaced: bool,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if role.api_group != GROUP {
        errors.push(FieldError::not_supported("roleRef.apiGroup", role.api_group.as_str(), &[GROUP]));
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.push(FieldError::not_supported("roleRef.kind", role.kind.as_str(), kinds));
    }
    if role.name.is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    }
    for problem in super::validate_name(&role.name) {
        errors.push(FieldError::invalid("roleRef.name", role.name.as_str(), &problem));
    }
    for (i, subject) in subjects.into_iter().flatten().enumerate() {
        let field = |name: &str| format!("subjects[{i}].{name}");
        let group = subject.api_group.as_deref().unwrap_or_default();
        if subject.name.is_empty() {
            errors.push(FieldError::required(field("name"), ""));
        }
        let wanted = match subject.kind.as_str() {
            "ServiceAccount" => {
                for problem in dns_subdomain(&subject.name).into_iter().filter(|_| !subject.name.is_empty()) {
                    errors.push(FieldError::invalid(field("name"), subject.name.as_str(), &problem));
                }
                if !namespaced && subject.namespace.as_deref().unwrap_or_default().is_empty() {
                    errors.push(FieldError::required(field("namespace"), ""));
                }
                ""
            }
            "User" | "Group" => GROUP,
            other => {
                let kinds = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(field("kind"), other, &kinds));
                continue;
            }
        };
        if group != wanted {
            errors.push(FieldError::not_supported(field("apiGroup"), group, &[wanted]));
        }
    }
    errors
}

fn validate_update(new: &RoleRef, old: &RoleRef) -> Vec<FieldError> {
    if new == old {
        return Vec::new();
    }
    vec![FieldError::invalid("roleRef", json!(new), "cannot change roleRef")]
}

fn row(meta: &ObjectMeta, role: &RoleRef, subjects: Option<&Vec<Subject>>, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str| {
        let names: Vec<_> = subjects
            .into_iter()
            .flatten()
            .filter(|s| s.kind == kind)
            .map(|s| match (kind, s.namespace.as_deref()) {
                ("ServiceAccount", Some(namespace)) => format!("{namespace}/{}", s.name),
                _ => s.name.clone(),
            })
            .collect();
        json!(names.join(", "))
    };
    vec![
        json!(meta.name),
        json!(format!("{}/{}", role.kind, role.name)),
        json!(age(meta.creation_timestamp.as_ref(), now)),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

macro_rules! strategy {
    ($name:ident, $kind:ident, $kinds:expr, $namespaced:literal) => {
        #[doc = concat!("The rules of ", stringify!($kind), "s.")]
        pub struct $name;

        impl Strategy for $name {
            type K = $kind;

            fn default(&self, binding: &mut $kind) {
                default(&mut binding.role_ref, binding.subjects.as_mut());
            }

            fn validate(&self, binding: &$kind) -> Vec<FieldError> {
                validate(&binding.role_ref, $kinds, binding.subjects.as_ref(), $namespaced)
            }

            fn validate_update(&self, new: &$kind, old: &$kind) -> Vec<FieldError> {
                validate_update(&new.role_ref, &old.role_ref)
            }

            fn validate_name(&self, name: &str) -> Vec<String> {
                super::validate_name(name)
            }

            fn columns(&self) -> &'static [Column] {
                COLUMNS
            }

            fn row(&self, binding: &$kind, now: Timestamp) -> Vec<Value> {
                row(&binding.metadata, &binding.role_ref, binding.subjects.as_ref(), now)
            }
        }
    };
}

strategy!(RoleBindingStrategy, RoleBinding, &["Role", "ClusterRole"], true);
strategy!(ClusterRoleBindingStrategy, ClusterRoleBinding, &["ClusterRole"], false);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(binding: Value, wanted: &[&str]) {
        let mut binding: RoleBinding = serde_json::from_value(binding).expect("a binding");
        RoleBindingStrategy.default(&mut binding);
        let fields: Vec<_> = RoleBindingStrategy.validate(&binding).into_iter().map(|e| e.field).collect();
        assert_eq!(fields, wanted);
    }

    #[test]
    fn a_binding_names_a_role_and_subjects() {
        let role = json!({"apiGroup": "", "kind": "ClusterRole", "name": "system:x"});
        let binding = |subject: Value| json!({"metadata": {}, "roleRef": role, "subjects": [subject]});
        check(binding(json!({"kind": "User", "name": "a"})), &[]);
        check(binding(json!({"kind": "ServiceAccount", "name": "a", "namespace": "n"})), &[]);
        check(
            binding(json!({"kind": "User", "name": "", "apiGroup": "x"})),
            &["subjects[0].name", "subjects[0].apiGroup"],
        );
        check(binding(json!({"kind": "Robot", "name": "a"})), &["subjects[0].kind"]);
        let bad = json!({"metadata": {}, "roleRef": {"apiGroup": "x", "kind": "Pod", "name": ""}});
        check(bad, &["roleRef.apiGroup", "roleRef.kind", "roleRef.name"]);
    }

    #[test]
    fn the_role_of_a_binding_stays() {
        let role = |name: &str| RoleRef { name: name.into(), ..RoleRef::default() };
        assert!(validate_update(&role("a"), &role("a")).is_empty());
        assert_eq!(validate_update(&role("a"), &role("b"))[0].field, "roleRef");
    }
}
