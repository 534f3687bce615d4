//! What can be done with a resource and its subresources, and of which kind the answers are.

use api::kinds::Nature;
use api::{Kind, Subresource};

/// The verbs of a resource, in the order of the alphabet.
pub fn of_resource(kind: &Kind) -> &'static [&'static str] {
    match kind.nature {
        Nature::Stored => {}
        Nature::Review => return &["create"],
        Nature::Computed => return &["get", "list"],
    }
    if kind.group.is_empty() && kind.kind == "Namespace" {
        return &["create", "delete", "get", "list", "patch", "update", "watch"];
    }
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
}

/// What a subresource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facet {
    /// Its verbs, in the order of the alphabet.
    pub verbs: &'static [&'static str],
    /// Group, version and kind of what it answers, where they differ from the resource's own.
    pub kind: Option<(&'static str, &'static str, &'static str)>,
}

/// What a subresource is.
pub fn of_subresource(kind: &Kind, subresource: Subresource) -> Facet {
    let (verbs, answer): (&[&str], _) = match subresource {
        Subresource::Status => (&["get", "patch", "update"], None),
        Subresource::Scale => (&["get", "patch", "update"], Some(("autoscaling", "v1", "Scale"))),
        Subresource::Binding => (&["create"], Some(("", "v1", "Binding"))),
        Subresource::Eviction => (&["create"], Some(("policy", "v1", "Eviction"))),
        Subresource::Log => (&["get"], None),
        Subresource::Exec => (&["create", "get"], Some(("", "v1", "PodExecOptions"))),
        Subresource::Attach => (&["create", "get"], Some(("", "v1", "PodAttachOptions"))),
        Subresource::PortForward => (&["create", "get"], Some(("", "v1", "PodPortForwardOptions"))),
        Subresource::Approval => (&["get", "patch", "update"], None),
        Subresource::Finalize => (&["update"], None),
        Subresource::Token => (&["create"], Some(("authentication.k8s.io", "v1", "TokenRequest"))),
        Subresource::Proxy => {
            let options = match kind.kind {
                "Pod" => "PodProxyOptions",
                "Service" => "ServiceProxyOptions",
                _ => "NodeProxyOptions",
            };
            (&["create", "delete", "get", "patch", "update"], Some(("", "v1", options)))
        }
    };
    Facet { verbs, kind: answer }
}
