//! Who may do what, until role-based access control decides it: the admin and the control plane everything,
//! a kubelet what concerns its node, anybody else health and version.

use std::sync::Arc;

use api::{Kind, Subresource};

use super::{User, node};
use crate::storage::Hub;

/// The identities that may do everything, beside the group `system:masters`.
const COMPONENTS: &[&str] =
    &["system:kube-scheduler", "system:kube-controller-manager", "system:kube-proxy", "system:apiserver"];
/// Paths that everybody may read.
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];
/// Paths that everybody with a certificate may read: what is there, not what it holds.
const DISCOVERY: &[&str] = &["/api", "/apis", "/openapi"];

/// A request for an object or a collection.
#[derive(Clone, Debug)]
pub struct Resource<'a> {
    /// The kind.
    pub kind: &'static Kind,
    /// The namespace; empty for cluster-scoped kinds and for all namespaces.
    pub namespace: &'a str,
    /// The object's name; empty for collections and creations.
    pub name: &'a str,
    /// The part of the object.
    pub subresource: Option<Subresource>,
    /// The field selector of a list or watch.
    pub field_selector: &'a str,
}

/// What a user asks for.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    /// An object or a collection, with upstream's verb: `get`, `list`, `watch`, `create`, `update`, `patch`,
    /// `delete`, `deletecollection`.
    Resource(&'static str, Resource<'a>),
    /// Any other path, with the HTTP method in lower case.
    Path(&'a str, &'a str),
}

/// Decides requests.
pub struct Authorizer {
    hub: Arc<Hub>,
}

impl Authorizer {
    /// An authorizer that looks at the pods of a node in the copies.
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Whether a user may do something.
    ///
    /// # Errors
    /// 403 in upstream's wording.
    pub fn authorize(&self, user: &User, request: &Request<'_>) -> Result<(), api::StatusError> {
        let allowed = match (user.node(), request) {
            _ if user.is_in("system:masters") || COMPONENTS.contains(&user.name.as_str()) => true,
            (_, Request::Path("get", path)) if is_beneath(path, PUBLIC) => true,
            (_, Request::Path("get", path)) if is_beneath(path, DISCOVERY) => {
                user.is_in("system:authenticated")
            }
            (Some(node), Request::Resource(verb, resource)) => {
                return node::authorize(node, verb, resource, &node::Pods(&self.hub)).map_err(|why| {
                    let why = why.map(|w| format!(": {w}")).unwrap_or_default();
                    forbidden(user, request, &why)
                });
            }
            _ => false,
        };
        if allowed { Ok(()) } else { Err(forbidden(user, request, "")) }
    }
}

fn is_beneath(path: &str, roots: &[&str]) -> bool {
    roots
        .iter()
        .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn forbidden(user: &User, request: &Request<'_>, why: &str) -> api::StatusError {
    match request {
        Request::Path(verb, path) => api::StatusError::new(
            403,
            "Forbidden",
            format!("forbidden: User {:?} cannot {verb} path {path:?}{why}", user.name),
        ),
        Request::Resource(verb, resource) => {
            let kind = resource.kind;
            let plural = match resource.subresource {
                Some(sub) => format!("{}/{}", kind.plural, sub.path()),
                None => kind.plural.to_owned(),
            };
            let scope = match resource.namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            api::StatusError::forbidden(
                kind,
                resource.name,
                format!(
                    "User {:?} cannot {verb} resource {plural:?} in API group {:?} {scope}{why}",
                    user.name, kind.group
                ),
            )
        }
    }
}
