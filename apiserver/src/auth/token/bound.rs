//! What a token is bound to must still be there: its account, and its pod, Secret or node.

use api::Object;
use jiff::Timestamp;
use serde_json::Value;

use super::{DELETION_LEEWAY, Objects, account_groups, text};
use crate::auth::User;

const EXTRA: &str = "authentication.kubernetes.io";

/// Whether an object is the one that was meant and is not long gone.
fn check(what: &str, found: Option<Object>, name: &str, uid: &str, now: Timestamp) -> Result<Object, String> {
    let Some(object) = found else {
        return Err(format!("{what} {name:?} not found"));
    };
    let ends = object.deletion_timestamp().and_then(|t| t.parse::<Timestamp>().ok());
    if ends.is_some_and(|t| t.saturating_add(DELETION_LEEWAY).unwrap_or(t) < now) {
        return Err(format!("{what} has been deleted"));
    }
    if object.uid() != uid {
        return Err(format!("the {what} UID ({}) does not match the claim ({uid})", object.uid()));
    }
    Ok(object)
}

/// The bearer of a token that was made by TokenRequest.
///
/// # Errors
/// Names what is missing or another one by now.
pub fn user(claims: &Value, objects: &dyn Objects, now: Timestamp) -> Result<User, String> {
    let own = claims.get("kubernetes.io").ok_or("the token has no claim \"kubernetes.io\"")?;
    let namespace = text(own, "/namespace");
    let (account, uid) = (text(own, "/serviceaccount/name"), text(own, "/serviceaccount/uid"));
    let name = format!("system:serviceaccount:{namespace}:{account}");
    if text(claims, "/sub") != name {
        return Err("the subject is not the service account of the token".into());
    }
    check("service account", objects.get("ServiceAccount", namespace, account), account, uid, now)?;
    let mut user = User { name, uid: uid.to_owned(), groups: account_groups(namespace), ..User::default() };
    let mut note = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("{EXTRA}/{key}"), vec![value.to_owned()]);
        }
    };
    if let Some(jti) = claims.get("jti").and_then(Value::as_str) {
        note("credential-id", &format!("JTI={jti}"));
    }
    if let Some(secret) = own.get("secret") {
        let (name, uid) = (text(secret, "/name"), text(secret, "/uid"));
        check("secret", objects.get("Secret", namespace, name), name, uid, now)?;
    }
    if let Some(pod) = own.get("pod") {
        let (name, uid) = (text(pod, "/name"), text(pod, "/uid"));
        check("pod", objects.get("Pod", namespace, name), name, uid, now)?;
        note("pod-name", name);
        note("pod-uid", uid);
    }
    if let Some(node) = own.get("node") {
        let (name, uid) = (text(node, "/name"), text(node, "/uid"));
        // A pod's node is told; a token that is bound to the node alone lives no longer than it.
        if own.get("pod").is_none() {
            check("node", objects.get("Node", "", name), name, uid, now)?;
        }
        note("node-name", name);
        note("node-uid", uid);
    }
    Ok(user)
}

/// The bearer of a token that stands in a Secret of type `kubernetes.io/service-account-token`.
///
/// # Errors
/// Names what is missing or another one by now.
pub fn legacy(claims: &Value, token: &str, objects: &dyn Objects) -> Result<User, String> {
    let claim = |name: &str| {
        claims.get(format!("{}/{name}", super::LEGACY_ISSUER)).and_then(Value::as_str).unwrap_or_default()
    };
    let namespace = claim("namespace");
    let (account, uid, secret) =
        (claim("service-account.name"), claim("service-account.uid"), claim("secret.name"));
    let name = format!("system:serviceaccount:{namespace}:{account}");
    if text(claims, "/sub") != name || [namespace, account, uid, secret].contains(&"") {
        return Err("the claims of the token are incomplete".into());
    }
    let found = objects.get("Secret", namespace, secret).ok_or("token has been invalidated")?;
    if found.deletion_timestamp().is_some() || decoded(&found, "token") != token.as_bytes() {
        return Err("token does not match server's copy".into());
    }
    let holder = objects.get("ServiceAccount", namespace, account);
    let holder = holder.ok_or_else(|| format!("service account {account:?} not found"))?;
    if holder.deletion_timestamp().is_some() {
        return Err(format!("ServiceAccount {namespace}/{account} has been deleted"));
    }
    if holder.uid() != uid {
        return Err(format!("ServiceAccount UID ({}) does not match claim ({uid})", holder.uid()));
    }
    Ok(User { name, uid: uid.to_owned(), groups: account_groups(namespace), ..User::default() })
}

/// A value of a Secret, decoded; empty when there is none.
pub fn decoded(secret: &Object, key: &str) -> Vec<u8> {
    use base64::Engine;
    let encoded =
        secret.pointer("/data").and_then(|d| d.get(key)).and_then(Value::as_str).unwrap_or_default();
    base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default()
}
