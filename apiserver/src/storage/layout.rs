//! Where objects live in etcd: the same keys as upstream's.

use std::borrow::Cow;

use api::Kind;
use api::kinds::KINDS;

/// The kind under which a kind is stored: both groups of Event share the core one, and both versions of the
/// HorizontalPodAutoscaler the newer one.
pub fn storage_kind(kind: &'static Kind) -> &'static Kind {
    let (group, name) = match (kind.group, kind.version, kind.kind) {
        ("events.k8s.io", _, "Event") => ("", "Event"),
        ("autoscaling", "v1", name) => ("autoscaling", name),
        _ => return kind,
    };
    Kind::find(group, name).expect("the stored kind is in the table")
}

/// Whether a PUT makes an object of a kind that does not exist, as upstream permits for these.
pub fn created_by_update(kind: &Kind) -> bool {
    match kind.group {
        "" => matches!(kind.kind, "Endpoints" | "Event" | "LimitRange" | "PodTemplate" | "Service"),
        "coordination.k8s.io" => kind.kind == "Lease",
        "rbac.authorization.k8s.io" => true,
        _ => false,
    }
}

/// The kinds that have a place of their own in the store.
pub fn stored_kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| kind.is_stored() && std::ptr::eq(storage_kind(kind), *kind))
}

/// The path of a resource beneath the prefix, such as `services/specs`.
pub fn resource_path(kind: &Kind) -> Cow<'static, str> {
    if kind.custom.is_some() {
        return format!("{}/{}", kind.group, kind.plural).into();
    }
    let path = match (kind.group, kind.kind) {
        ("", "Service") => "services/specs",
        ("", "Endpoints") => "services/endpoints",
        ("", "Node") => "minions",
        ("", "ReplicationController") => "controllers",
        ("networking.k8s.io", "Ingress") => "ingress",
        ("apiextensions.k8s.io", _) => "apiextensions.k8s.io/customresourcedefinitions",
        ("apiregistration.k8s.io", _) => "apiregistration.k8s.io/apiservices",
        _ => kind.plural,
    };
    path.into()
}

/// `{prefix}/{resource}/`: what the keys of a resource begin with.
pub fn resource_prefix(prefix: &str, kind: &Kind) -> String {
    format!("{prefix}/{}/", resource_path(kind))
}

/// The key after all keys that begin with `prefix`.
pub fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // Prefixes end with '/', so the last byte can always be counted up.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_laid_out_as_upstream_does() {
        let path = |group, kind| resource_prefix("/registry", Kind::find(group, kind).expect("a kind"));
        assert_eq!(path("", "Node"), "/registry/minions/");
        assert_eq!(path("", "Service"), "/registry/services/specs/");
        assert_eq!(path("apps", "Deployment"), "/registry/deployments/");
        assert_eq!(path("", "ReplicationController"), "/registry/controllers/");
        assert_eq!(path("networking.k8s.io", "Ingress"), "/registry/ingress/");
        assert_eq!(prefix_end("/registry/pods/"), b"/registry/pods0");
    }

    #[test]
    fn no_resource_lies_beneath_another() {
        let prefixes: Vec<_> = stored_kinds().map(|k| resource_prefix("", k)).collect();
        for a in &prefixes {
            assert_eq!(prefixes.iter().filter(|b| b.starts_with(a.as_str())).count(), 1, "{a}");
        }
    }
}
