//! Nobody grants what he does not hold: what writing a role or a binding asks of the writer.

use api::decode::decode;
use api::openapi::api::rbac::v1::{PolicyRule, RoleRef};
use api::status::StatusError;
use api::{Kind, Object};

use super::{GROUP, Policy, rules};
use crate::auth::{Request, Resource, User};

/// Whether a user may write a role or a binding as it is in `new`. Anything of another group passes.
///
/// # Errors
/// 403 with the rules that are not held, 404 for a binding to a role that is not there.
pub fn decide(
    policy: &Policy,
    user: &User,
    kind: &Kind,
    new: &Object,
    old: Option<&Object>,
) -> Result<(), StatusError> {
    if kind.group != GROUP || user.is_in("system:masters") || old.is_some_and(|old| only_collected(new, old))
    {
        return Ok(());
    }
    match kind.kind {
        "Role" | "ClusterRole" => role(policy, user, kind, new, old),
        "RoleBinding" | "ClusterRoleBinding" => binding(policy, user, kind, new),
        _ => Ok(()),
    }
}

/// Whether a change is one that garbage collection needs: of owners and finalizers alone.
fn only_collected(new: &Object, old: &Object) -> bool {
    let bare = |object: &Object| {
        let mut object = object.clone();
        for field in ["ownerReferences", "finalizers", "resourceVersion", "managedFields", "generation"] {
            object.meta_mut().remove(field);
        }
        object
    };
    bare(new) == bare(old)
}

fn may(policy: &Policy, user: &User, verb: &'static str, plural: &str, namespace: &str, name: &str) -> bool {
    let resource =
        Resource { group: GROUP, version: "v1", resource: plural, namespace, name, ..Resource::default() };
    policy.allows(user, &Request::Resource(verb, resource)).is_ok()
}

fn rules_of(object: &Object) -> Vec<PolicyRule> {
    object.pointer("/rules").and_then(|r| decode(r).ok()).unwrap_or_default()
}

fn role(
    policy: &Policy,
    user: &User,
    kind: &Kind,
    new: &Object,
    old: Option<&Object>,
) -> Result<(), StatusError> {
    if may(policy, user, "escalate", kind.plural, new.namespace(), new.name()) {
        return Ok(());
    }
    confirm(policy, user, kind, new, new.namespace(), &rules_of(new))?;
    let aggregation = |o: &Object| o.pointer("/aggregationRule").filter(|v| !v.is_null()).cloned();
    let wanted = aggregation(new);
    if wanted.is_none() || old.is_some_and(|old| aggregation(old) == wanted) {
        return Ok(());
    }
    // What it will gather is anybody's guess, so that it takes everything.
    let all = || Some(vec!["*".to_owned()]);
    let verbs = vec!["*".to_owned()];
    let everything = [
        PolicyRule { verbs: verbs.clone(), api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs, non_resource_urls: all(), ..PolicyRule::default() },
    ];
    confirm(policy, user, kind, new, "", &everything).map_err(|_| {
        StatusError::forbidden(
            kind,
            new.name(),
            "must have cluster-admin privileges to use the aggregationRule",
        )
    })
}

fn binding(policy: &Policy, user: &User, kind: &Kind, new: &Object) -> Result<(), StatusError> {
    let role = new.pointer("/roleRef").and_then(|r| decode::<RoleRef>(r).ok()).unwrap_or_default();
    let (plural, missing) = match role.kind.as_str() {
        "ClusterRole" => ("clusterroles", Kind::find(GROUP, "ClusterRole")),
        _ => ("roles", Kind::find(GROUP, "Role")),
    };
    if may(policy, user, "bind", plural, new.namespace(), &role.name) {
        return Ok(());
    }
    match policy.role(new.namespace(), &role) {
        Ok(rules) => confirm(policy, user, kind, new, new.namespace(), rules),
        Err(_) => Err(StatusError::not_found(missing.unwrap_or(kind), &role.name)),
    }
}

fn confirm(
    policy: &Policy,
    user: &User,
    kind: &Kind,
    object: &Object,
    namespace: &str,
    wanted: &[PolicyRule],
) -> Result<(), StatusError> {
    let held = policy.held(user, namespace);
    let missing = rules::simplify(rules::uncovered(&held.rules, wanted));
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<_> = missing.iter().map(rules::compact).collect();
    lines.sort();
    let groups: Vec<_> = user.groups.iter().map(|g| format!("{g:?}")).collect();
    let mut message = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        lines.join("\n")
    );
    if !held.errors.is_empty() {
        message += &format!("; resolution errors: [{}]", held.errors.join(", "));
    }
    let name = if object.name().is_empty() { object.str_at("/metadata/generateName") } else { object.name() };
    Err(StatusError::forbidden(kind, name, message))
}
