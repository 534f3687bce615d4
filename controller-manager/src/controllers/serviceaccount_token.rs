//! Fills Secrets of type `kubernetes.io/service-account-token` with a token, and removes them with their account.

use api::meta::{MetaExt, key_of};
use api::openapi::ByteString;
use api::openapi::api::core::v1::{Secret, ServiceAccount};
use api::openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use client::{Action, Informer, ListParams, Store, WorkQueue, run_workers};
use component::jwt::SigningKey;
use serde_json::{Value, json};

use crate::context::Context;

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
const ISSUER: &str = "kubernetes/serviceaccount";

/// Runs the controller until leadership ends. It does nothing when no key was given.
pub async fn run(ctx: Context) {
    if ctx.config.token_key.is_none() {
        return;
    }
    let queue = WorkQueue::new("serviceaccount-token");
    let secrets: Informer<Secret> =
        Informer::new(ctx.client.all(), ListParams::fields(format!("type={TYPE}")));
    let q = queue.clone();
    secrets.on_change(move |change| q.add(change.key()));
    secrets.start(&ctx.tasks);
    let (q, store) = (queue.clone(), secrets.store());
    ctx.informers.service_accounts.on_change(move |change| {
        let account = change.object();
        let own = |s: &&std::sync::Arc<Secret>| annotation(s, NAME) == account.name();
        for secret in store.namespace(account.namespace()).iter().filter(own) {
            q.add(key_of(secret.namespace(), secret.name()));
        }
    });
    tokio::join!(secrets.synced(), ctx.informers.service_accounts.synced());
    let (tasks, store) = (ctx.tasks.clone(), secrets.store());
    let reconcile = move |key: String| {
        let (ctx, store) = (ctx.clone(), store.clone());
        async move { reconcile(&ctx, &store, &key).await }
    };
    run_workers(queue, 2, &tasks, reconcile).await;
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> &'a str {
    secret.metadata.annotations.as_ref().and_then(|a| a.get(key)).map(String::as_str).unwrap_or_default()
}

/// One write.
#[derive(Debug, PartialEq)]
enum Op {
    Update(Box<Secret>),
    Delete,
}

fn plan(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    root_ca: Option<&str>,
    sign: impl FnOnce(&Value) -> Option<String>,
) -> Option<Op> {
    if secret.is_deleting() {
        return None;
    }
    let uid = annotation(secret, UID);
    let Some(account) = account.filter(|a| uid.is_empty() || a.uid() == uid) else { return Some(Op::Delete) };
    let mut next = secret.clone();
    next.metadata.annotations.get_or_insert_default().insert(UID.into(), account.uid().into());
    let data = next.data.get_or_insert_default();
    data.insert("namespace".into(), ByteString(secret.namespace().as_bytes().to_vec()));
    if let Some(ca) = root_ca {
        data.insert("ca.crt".into(), ByteString(ca.as_bytes().to_vec()));
    }
    if data.get("token").is_none_or(|token| token.0.is_empty()) {
        let claims = json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{}:{}", account.namespace(), account.name()),
            format!("{ISSUER}/namespace"): account.namespace(),
            format!("{ISSUER}/secret.name"): secret.name(),
            format!("{ISSUER}/service-account.name"): account.name(),
            format!("{ISSUER}/service-account.uid"): account.uid(),
        });
        data.insert("token".into(), ByteString(sign(&claims)?.into_bytes()));
    }
    (next != *secret).then(|| Op::Update(Box::new(next)))
}

async fn reconcile(ctx: &Context, store: &Store<Secret>, key: &str) -> Result<Action, client::Error> {
    let Some(secret) = store.get(key) else { return Ok(Action::Done) };
    let namespace = secret.namespace().to_owned();
    let name = annotation(&secret, NAME).to_owned();
    let mut account = ctx.informers.service_accounts.store().get(&key_of(&namespace, &name));
    if account.is_none() && !name.is_empty() {
        // Nothing is removed on the word of a cache alone.
        let found = ctx.client.namespaced::<ServiceAccount>(&namespace).get_opt(&name).await?;
        account = found.map(std::sync::Arc::new);
    }
    let sign = |claims: &Value| {
        let key: &SigningKey = ctx.config.token_key.as_ref()?;
        let signed = key.sign(claims);
        signed
            .inspect_err(|error| tracing::error!(%error, secret = secret.name(), "could not sign a token"))
            .ok()
    };
    let secrets = ctx.client.namespaced::<Secret>(&namespace);
    let result = match plan(&secret, account.as_deref(), ctx.config.root_ca.as_deref(), sign) {
        None => return Ok(Action::Done),
        Some(Op::Update(next)) => secrets.update(&next).await.map(drop),
        Some(Op::Delete) => {
            let uid = secret.metadata.uid.clone();
            let preconditions = Some(Preconditions { uid, ..Preconditions::default() });
            secrets
                .delete(secret.name(), &DeleteOptions { preconditions, ..DeleteOptions::default() })
                .await
                .map(drop)
        }
    };
    match result {
        Err(error) if error.is_not_found() => Ok(Action::Done),
        Err(error) => Err(error),
        Ok(()) => Ok(Action::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_gets_its_token_and_goes_with_its_account() {
        let secret = |uid: &str| -> Secret {
            let mut annotations = json!({NAME: "robot"});
            if !uid.is_empty() {
                annotations[UID] = uid.into();
            }
            serde_json::from_value(json!({
                "metadata": {"name": "s", "namespace": "d", "annotations": annotations}, "type": TYPE,
            }))
            .expect("a secret")
        };
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": "robot", "namespace": "d", "uid": "u"}}))
                .expect("an account");
        let sign = |claims: &Value| Some(claims["sub"].as_str().unwrap_or_default().to_owned());
        let Some(Op::Update(filled)) = plan(&secret(""), Some(&account), Some("CA"), sign) else {
            panic!("it must be filled")
        };
        let data = filled.data.as_ref().expect("data");
        assert_eq!(data["token"].0, b"system:serviceaccount:d:robot");
        assert_eq!((data["namespace"].0.as_slice(), data["ca.crt"].0.as_slice()), (&b"d"[..], &b"CA"[..]));
        assert_eq!(annotation(&filled, UID), "u");
        assert_eq!(plan(&filled, Some(&account), Some("CA"), |_| panic!("it has a token")), None);
        assert_eq!(plan(&secret("other"), Some(&account), None, sign), Some(Op::Delete));
        assert_eq!(plan(&filled, None, None, sign), Some(Op::Delete));
    }
}
