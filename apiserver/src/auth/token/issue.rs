//! TokenRequest: makes a token for a service account, bound to a pod, Secret or node if so wished.

use api::openapi::api::authentication::v1::{BoundObjectReference, TokenRequest};
use api::status::StatusError;
use api::validation::FieldError;
use api::{Kind, Object};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Objects, TokenConfig, text};
use crate::auth::User;

const MIN: i64 = 10 * 60;
const MAX: i64 = 1 << 32;
const DEFAULT: i64 = 3600;
/// What the admission asks for in a pod's token volume, so that such a token can be told from others.
const OF_POD: i64 = 60 * 60 + 7;
/// How long such a token really lives, for clients that read theirs only once.
const EXTENDED: i64 = 365 * 24 * 3600;

/// Who asks for what.
pub struct Ask<'a> {
    /// Who.
    pub user: &'a User,
    /// The service account.
    pub account: &'a Object,
    /// The document.
    pub request: TokenRequest,
    /// An identifier for the token.
    pub id: String,
    /// The time.
    pub now: Timestamp,
}

/// Makes the token; the request with its status filled in.
///
/// # Errors
/// 422 for wrong fields, 404 and 409 for what the token is to be bound to, 400 where none can be issued.
pub fn issue(config: &TokenConfig, ask: Ask<'_>, objects: &dyn Objects) -> Result<TokenRequest, StatusError> {
    let Some(signing) = &config.signing else {
        return Err(StatusError::no_such_path());
    };
    let (account, mut request) = (ask.account, ask.request);
    let kind = Kind::find("", "ServiceAccount").expect("ServiceAccount is in the table");
    let meta = &request.metadata;
    for (own, wanted) in [(&meta.name, account.name()), (&meta.namespace, account.namespace())] {
        if own.as_deref().is_some_and(|own| !own.is_empty() && own != wanted) {
            return Err(StatusError::bad_request(format!(
                "the service account of the URL ({}) is not that of the TokenRequest",
                account.key()
            )));
        }
    }
    if request.spec.audiences.is_empty() {
        request.spec.audiences.clone_from(&config.api_audiences);
    }
    let wanted = request.spec.expiration_seconds.unwrap_or(DEFAULT);
    validate(&request, wanted)?;
    let longest = config.max_expiration.map_or(MAX, |d| d.as_secs());
    let lifetime = wanted.min(longest);
    let bound = bind(&request, account, objects)?;
    let to_api = request.spec.audiences.iter().all(|a| config.api_audiences.contains(a));
    let extended = config.extend_expiration && lifetime == OF_POD && to_api && bound.get("pod").is_some();
    if let Some(node) = ask.user.node() {
        let uid = request.spec.bound_object_ref.as_ref().and_then(|r| r.uid.as_deref());
        let why = match bound.get("pod") {
            None => Some("node requested token not bound to a pod"),
            Some(_) if uid.is_none_or(str::is_empty) => {
                Some("node requested token with a pod binding without a uid")
            }
            Some(_) if text(&bound, "/pod-node") != node => {
                Some("node requested token bound to a pod scheduled on a different node")
            }
            Some(_) => None,
        };
        if let Some(why) = why {
            return Err(StatusError::forbidden(kind, account.name(), why));
        }
    }
    let now = ask.now.as_second();
    let mut own = json!({
        "namespace": account.namespace(),
        "serviceaccount": {"name": account.name(), "uid": account.uid()},
    });
    for field in ["pod", "secret", "node"] {
        if let Some(reference) = bound.get(field) {
            own[field] = reference.clone();
        }
    }
    if extended {
        own["warnafter"] = (now + lifetime).into();
    }
    let claims = json!({
        "iss": config.issuers.first(),
        "sub": format!("system:serviceaccount:{}:{}", account.namespace(), account.name()),
        "aud": request.spec.audiences,
        "exp": now + if extended { EXTENDED.min(longest) } else { lifetime },
        "iat": now,
        "nbf": now,
        "jti": ask.id,
        "kubernetes.io": own,
    });
    let token = signing.sign(&claims).map_err(StatusError::internal)?;
    let expires = ask.now.saturating_add(SignedDuration::from_secs(lifetime)).unwrap_or(Timestamp::MAX);
    request.metadata.name = Some(account.name().to_owned());
    request.metadata.namespace = Some(account.namespace().to_owned());
    request.spec.expiration_seconds = Some(lifetime);
    let second = Timestamp::from_second(expires.as_second()).unwrap_or(expires);
    request.status = Some(api::openapi::api::authentication::v1::TokenRequestStatus {
        expiration_timestamp: api::openapi::apimachinery::pkg::apis::meta::v1::Time(second),
        token,
    });
    Ok(request)
}

fn validate(request: &TokenRequest, seconds: i64) -> Result<(), StatusError> {
    let mut errors = Vec::new();
    let field = "spec.expirationSeconds";
    if seconds < MIN {
        errors.push(FieldError::invalid(field, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX {
        errors.push(FieldError::invalid(
            field,
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let name = request.metadata.name.clone().unwrap_or_default();
    let list: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let message = format!("TokenRequest.authentication.k8s.io {name:?} is invalid: {}", list.join(", "));
    let mut error = StatusError::new(422, "Invalid", message);
    error.0.details.get_or_insert_default().causes = Some(errors.iter().map(FieldError::cause).collect());
    Err(error)
}

/// The claims about what the token is bound to; `pod-node` is the node of the pod.
fn bind(request: &TokenRequest, account: &Object, objects: &dyn Objects) -> Result<Value, StatusError> {
    let Some(reference) = &request.spec.bound_object_ref else { return Ok(json!({})) };
    let BoundObjectReference { api_version, kind, name, uid } = reference;
    let (kind, name) = (kind.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
    let wanted = uid.as_deref().unwrap_or_default();
    if api_version.as_deref().is_some_and(|v| v != "v1") || !matches!(kind, "Pod" | "Secret" | "Node") {
        let version = api_version.as_deref().unwrap_or_default();
        return Err(StatusError::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to {version}, Kind={kind}: only Pod, Secret and Node can be bound to",
            account.name()
        )));
    }
    let row = Kind::find("", kind).expect("these are in the table");
    let namespace = if row.namespaced { account.namespace() } else { "" };
    let found = objects.get(kind, namespace, name).ok_or_else(|| StatusError::not_found(row, name))?;
    if !wanted.is_empty() && wanted != found.uid() {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. \
            The object might have been deleted and then recreated"
        );
        return Err(StatusError::conflict(row, name, why));
    }
    let about = |object: &Object| json!({"name": object.name(), "uid": object.uid()});
    match kind {
        "Pod" => {
            if found.str_at("/spec/serviceAccountName") != account.name() {
                let why = format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    account.name()
                );
                return Err(StatusError::bad_request(why));
            }
            let mut bound = json!({"pod": about(&found)});
            let node = found.str_at("/spec/nodeName");
            if !node.is_empty() {
                bound["pod-node"] = node.into();
                let uid = objects.get("Node", "", node).map(|n| n.uid().to_owned());
                bound["node"] = match uid {
                    Some(uid) => json!({"name": node, "uid": uid}),
                    None => json!({"name": node}),
                };
            }
            Ok(bound)
        }
        "Secret" => Ok(json!({"secret": about(&found)})),
        _ => Ok(json!({"node": about(&found)})),
    }
}
