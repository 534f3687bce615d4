//! Tokens of service accounts: which are genuine and still count, and how new ones are made.

pub mod bound;
pub mod issue;
pub mod options;

use std::sync::Arc;

use api::{Kind, Object};
use component::clock::Clock;
use component::jwt::{KeySet, SigningKey};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::User;
use crate::storage::Hub;

/// Who issues tokens, and whose are trusted.
#[derive(Debug, Default)]
pub struct TokenConfig {
    /// `--service-account-issuer`: the first one issues, all are trusted.
    pub issuers: Vec<String>,
    /// `--api-audiences`: whom a token must be meant for; the issuers unless told otherwise.
    pub api_audiences: Vec<String>,
    /// `--service-account-key-file`.
    pub keys: KeySet,
    /// `--service-account-signing-key-file`.
    pub signing: Option<SigningKey>,
    /// `--service-account-max-token-expiration`.
    pub max_expiration: Option<SignedDuration>,
    /// `--service-account-extend-token-expiration`.
    pub extend_expiration: bool,
    /// `--service-account-jwks-uri`.
    pub jwks_uri: Option<String>,
}

/// The issuer of tokens in Secrets, which is the same in every cluster.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// How far the clocks of issuer and server may be apart.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
/// For how long an object that is being deleted still vouches for its tokens.
const DELETION_LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// What a token says about its bearer.
#[derive(Clone, Debug, PartialEq)]
pub struct Authenticated {
    /// The bearer.
    pub user: User,
    /// For whom the token is meant, among those who were asked about.
    pub audiences: Vec<String>,
}

/// Tells who bears a service account's token.
pub struct Tokens {
    config: Arc<TokenConfig>,
    hub: Arc<Hub>,
    clock: Clock,
}

impl Tokens {
    /// Over the copies, in which everything that a token is bound to must still be.
    pub fn new(config: Arc<TokenConfig>, hub: Arc<Hub>, clock: Clock) -> Self {
        Self { config, hub, clock }
    }

    /// The settings.
    pub fn config(&self) -> &Arc<TokenConfig> {
        &self.config
    }

    /// Whether a token claims to come from here, so that nobody else needs to be asked.
    pub fn claims(&self, token: &str) -> bool {
        let Ok(claims) = component::jwt::claims(token) else { return false };
        let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        issuer == LEGACY_ISSUER || self.config.issuers.iter().any(|i| i == issuer)
    }

    /// Who bears a token that is meant for one of `audiences`; the API's own when there are none.
    ///
    /// # Errors
    /// Why the token does not count.
    pub fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Authenticated, String> {
        let claims = self.config.keys.verify(token).map_err(|e| e.to_string())?;
        let wanted = if audiences.is_empty() { &self.config.api_audiences } else { audiences };
        let objects = Copies(&self.hub);
        if text(&claims, "/iss") == LEGACY_ISSUER {
            let user = bound::legacy(&claims, token, &objects)?;
            let api = |a: &&String| self.config.api_audiences.contains(a);
            let meant: Vec<_> = wanted.iter().filter(api).cloned().collect();
            if meant.is_empty() {
                return Err(audience_error(&self.config.api_audiences, wanted));
            }
            return Ok(Authenticated { user, audiences: meant });
        }
        let issuer = text(&claims, "/iss");
        if !self.config.issuers.iter().any(|i| i == issuer) {
            return Err("invalid issuer".into());
        }
        in_time(&claims, self.clock.now())?;
        let own = strings(claims.get("aud"));
        let meant: Vec<_> = wanted.iter().filter(|a| own.contains(a)).cloned().collect();
        if meant.is_empty() {
            return Err(audience_error(&own, wanted));
        }
        let user = bound::user(&claims, &objects, self.clock.now())?;
        Ok(Authenticated { user, audiences: meant })
    }
}

fn audience_error(own: &[String], wanted: &[String]) -> String {
    let quoted = |list: &[String]| list.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(" ");
    format!("token audiences [{}] is invalid for the target audiences [{}]", quoted(own), quoted(wanted))
}

fn in_time(claims: &Value, now: Timestamp) -> Result<(), String> {
    let second = |field: &str| claims.get(field).and_then(Value::as_i64);
    let at = |s: i64| Timestamp::from_second(s).unwrap_or(Timestamp::MAX);
    if second("exp").is_none_or(|s| now.saturating_sub(LEEWAY).unwrap_or(now) > at(s)) {
        return Err("service account token has expired".into());
    }
    if second("nbf").is_some_and(|s| now.saturating_add(LEEWAY).unwrap_or(now) < at(s)) {
        return Err("service account token is not valid yet".into());
    }
    Ok(())
}

/// The string at a pointer, or the empty one.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A string or a list of strings.
fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => all.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// Where a token's account, pod, secret and node are looked up.
pub trait Objects {
    /// An object of the core group.
    fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Object>;
}

/// The server's copies.
pub struct Copies<'a>(pub &'a Arc<Hub>);

impl Objects for Copies<'_> {
    fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Object> {
        let kind = Kind::find("", kind)?;
        let entry = self.0.cache(kind).get(&api::meta::key_of(namespace, name))?;
        Object::parse(&entry.json).ok()
    }
}

/// The groups of a service account.
pub fn account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

/// Namespace and name of a service account's user name.
pub fn split_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

#[cfg(test)]
mod tests;
