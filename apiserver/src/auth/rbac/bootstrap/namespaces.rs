//! Roles that hold in one namespace, and who holds them.

use super::{Default, EVENTS, READ, Rule, binding, named, role, rule};

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";

const ROLES: &[(&str, &str, &[Rule])] = &[
    (
        SYSTEM,
        "extension-apiserver-authentication-reader",
        &[named(READ, "core", "configmaps", "extension-apiserver-authentication")],
    ),
    (SYSTEM, "system:controller:bootstrap-signer", &[rule(READ, "core", "secrets")]),
    (
        SYSTEM,
        "system:controller:cloud-provider",
        &[rule("create get list patch update watch", "core", "configmaps")],
    ),
    (SYSTEM, "system:controller:token-cleaner", &[rule("delete get list watch", "core", "secrets"), EVENTS]),
    (
        SYSTEM,
        "system::leader-locking-kube-controller-manager",
        &[
            rule("watch", "core", "configmaps"),
            named("get update", "core", "configmaps", "kube-controller-manager"),
        ],
    ),
    (
        SYSTEM,
        "system::leader-locking-kube-scheduler",
        &[rule("watch", "core", "configmaps"), named("get update", "core", "configmaps", "kube-scheduler")],
    ),
    (
        PUBLIC,
        "system:controller:bootstrap-signer",
        &[rule(READ, "core", "configmaps"), named("update", "core", "configmaps", "cluster-info"), EVENTS],
    ),
];

const MANAGER: &str = "User system:kube-controller-manager";
const SCHEDULER: &str = "User system:kube-scheduler";

const BINDINGS: &[(&str, &str, &str, &[&str])] = &[
    (
        SYSTEM,
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        &[MANAGER, SCHEDULER],
    ),
    (
        SYSTEM,
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
        &[MANAGER, "Account kube-controller-manager"],
    ),
    (
        SYSTEM,
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
        &[SCHEDULER, "Account kube-scheduler"],
    ),
    (
        SYSTEM,
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &["Account bootstrap-signer", MANAGER],
    ),
    (
        SYSTEM,
        "system:controller:cloud-provider",
        "system:controller:cloud-provider",
        &["Account cloud-provider", MANAGER],
    ),
    (
        SYSTEM,
        "system:controller:token-cleaner",
        "system:controller:token-cleaner",
        &["Account token-cleaner", MANAGER],
    ),
    (
        PUBLIC,
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &["Account bootstrap-signer", MANAGER],
    ),
];

/// The Roles.
pub(super) fn roles() -> impl Iterator<Item = Default> {
    ROLES.iter().map(|(namespace, name, rules)| Default {
        kind: "Role",
        namespace,
        document: role(name, rules),
    })
}

/// The RoleBindings.
pub(super) fn bindings() -> impl Iterator<Item = Default> {
    BINDINGS.iter().map(|(namespace, name, role, subjects)| Default {
        kind: "RoleBinding",
        namespace,
        document: binding(name, "Role", role, subjects),
    })
}
