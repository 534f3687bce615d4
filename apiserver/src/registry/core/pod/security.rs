//! What is wrong with security contexts and the use of the node's namespaces.

use api::openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext};
use api::validation::FieldError;

use crate::registry::fields::{Errors, between, one_of, optional_one_of, set};

const LARGEST_ID: i64 = i32::MAX as i64;

/// Checks the pod's security context and its host namespaces.
pub fn pod(errors: &mut Errors, field: &str, spec: &PodSpec) {
    let Some(context) = &spec.security_context else { return };
    let at = |name: &str| format!("{field}.securityContext.{name}");
    between(errors, &at("runAsUser"), context.run_as_user, 0, LARGEST_ID);
    between(errors, &at("runAsGroup"), context.run_as_group, 0, LARGEST_ID);
    between(errors, &at("fsGroup"), context.fs_group, 0, LARGEST_ID);
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        between(errors, &at(&format!("supplementalGroups[{i}]")), Some(*group), 0, LARGEST_ID);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(format!("{field}.shareProcessNamespace"), true, detail));
    }
    if spec.host_users == Some(false) {
        let users = [
            ("hostNetwork", spec.host_network, "when `pod.Spec.HostUsers` is false"),
            ("hostPID", spec.host_pid, "when `pod.Spec.HostUsers` is false"),
            ("hostIPC", spec.host_ipc, "when `pod.Spec.HostUsers` is false"),
        ];
        for (name, _, detail) in users.iter().filter(|(_, used, _)| *used == Some(true)) {
            errors.push(FieldError::forbidden(format!("{field}.{name}"), detail));
        }
    }
    let change = context.fs_group_change_policy.as_deref();
    optional_one_of(errors, &at("fsGroupChangePolicy"), change, &["Always", "OnRootMismatch"]);
    let groups = context.supplemental_groups_policy.as_deref();
    optional_one_of(errors, &at("supplementalGroupsPolicy"), groups, &["Merge", "Strict"]);
    seccomp(errors, &at("seccompProfile"), context.seccomp_profile.as_ref());
    app_armor(errors, &at("appArmorProfile"), context.app_armor_profile.as_ref());
    for (i, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let field = at(&format!("sysctls[{i}].name"));
        let shape = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_./".contains(c);
        if sysctl.name.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if sysctl.name.len() > 253 || !sysctl.name.chars().all(shape) {
            let detail = "must have at most 253 characters and match regex \
                ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(FieldError::invalid(field, sysctl.name.as_str(), detail));
        }
    }
}

/// Checks a container's security context.
pub fn container(errors: &mut Errors, field: &str, context: &SecurityContext) {
    let at = |name: &str| format!("{field}.{name}");
    between(errors, &at("runAsUser"), context.run_as_user, 0, LARGEST_ID);
    between(errors, &at("runAsGroup"), context.run_as_group, 0, LARGEST_ID);
    optional_one_of(errors, &at("procMount"), context.proc_mount.as_deref(), &["Default", "Unmasked"]);
    seccomp(errors, &at("seccompProfile"), context.seccomp_profile.as_ref());
    app_armor(errors, &at("appArmorProfile"), context.app_armor_profile.as_ref());
    if context.allow_privilege_escalation == Some(false) {
        let value = serde_json::to_value(context).unwrap_or_default();
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(field, value.clone(), detail));
        }
        let added = context.capabilities.as_ref().and_then(|c| c.add.as_ref());
        if added.is_some_and(|all| all.iter().any(|c| c == "CAP_SYS_ADMIN")) {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(field, value, detail));
        }
    }
}

fn seccomp(errors: &mut Errors, field: &str, profile: Option<&SeccompProfile>) {
    let Some(profile) = profile else { return };
    let types = &["Localhost", "RuntimeDefault", "Unconfined"];
    one_of(errors, &format!("{field}.type"), Some(&profile.type_), types);
    let path = format!("{field}.localhostProfile");
    localhost(errors, path, &profile.type_, profile.localhost_profile.as_deref(), "seccomp");
}

fn app_armor(errors: &mut Errors, field: &str, profile: Option<&AppArmorProfile>) {
    let Some(profile) = profile else { return };
    let types = &["Localhost", "RuntimeDefault", "Unconfined"];
    one_of(errors, &format!("{field}.type"), Some(&profile.type_), types);
    let path = format!("{field}.localhostProfile");
    localhost(errors, path, &profile.type_, profile.localhost_profile.as_deref(), "AppArmor");
}

fn localhost(errors: &mut Errors, field: String, type_: &str, profile: Option<&str>, what: &str) {
    match (type_, set(profile)) {
        ("Localhost", None) => {
            let detail = format!("must be set when {what} type is Localhost");
            errors.push(FieldError::required(field, &detail));
        }
        ("Localhost", Some(path)) if what == "seccomp" => {
            crate::registry::fields::local_path(errors, &field, path);
        }
        ("Localhost", Some(_)) => {}
        (_, Some(path)) => {
            let detail = format!("can only be set when {what} type is Localhost");
            errors.push(FieldError::invalid(field, path, &detail));
        }
        (_, None) => {}
    }
}
