//! Who makes a request: by certificate, by token, or anonymous; and on whose behalf, where that is asked for and allowed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::status::StatusError;
use component::tasks::lock;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::token::{Authenticated, Copies, Tokens, account_groups, split_account};
use super::{Authorizer, Request, Resource, User, bootstrap_token};

/// For how long a token that was found good is not looked at again.
const REMEMBER: Duration = Duration::from_secs(10);
/// Tokens that are remembered at most.
const REMEMBERED: usize = 4096;

/// Tells who makes a request.
pub struct Gate {
    tokens: Tokens,
    hub: Arc<crate::storage::Hub>,
    clock: component::clock::Clock,
    authorizer: Arc<Authorizer>,
    known: Mutex<HashMap<[u8; 32], (Authenticated, Instant)>>,
}

impl Gate {
    /// A gate over the keys and copies of `tokens`.
    pub fn new(
        tokens: Tokens,
        hub: Arc<crate::storage::Hub>,
        clock: component::clock::Clock,
        authorizer: Arc<Authorizer>,
    ) -> Self {
        Self { tokens, hub, clock, authorizer, known: Mutex::default() }
    }

    /// The tokens of service accounts.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The copies in which everything is looked up.
    pub fn hub(&self) -> &Arc<crate::storage::Hub> {
        &self.hub
    }

    /// The clock.
    pub fn clock(&self) -> &component::clock::Clock {
        &self.clock
    }

    /// Who makes a request that came over a connection of `peer`.
    ///
    /// # Errors
    /// 401 for a token that does not count, 403 for an impersonation that is not allowed.
    pub async fn admit(&self, peer: &User, headers: &HeaderMap) -> Result<User, StatusError> {
        let user = match bearer(headers) {
            // A certificate says more than a token; both together are a proxy's own affair.
            Some(token) if !peer.is_in("system:authenticated") => {
                let authenticated = self.authenticate(token, &[]).await.map_err(|why| {
                    tracing::debug!(why, "a token was refused");
                    StatusError::unauthorized()
                })?;
                authenticated.user
            }
            _ => peer.clone(),
        };
        if !user.is_in("system:masters") {
            // Right after a start nothing is known of roles; a refusal would be for good to some.
            self.authorizer.rbac().policy().await;
        }
        match Wish::read(headers)? {
            None => Ok(user),
            Some(wish) => self.impersonate(&user, wish),
        }
    }

    /// Who bears a token.
    ///
    /// # Errors
    /// Why it does not count.
    pub async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Authenticated, String> {
        let mut hash = Sha256::new();
        hash.update(token);
        audiences.iter().for_each(|a| hash.update(a));
        let key: [u8; 32] = hash.finalize().into();
        let now = Instant::now();
        if let Some((found, until)) = lock(&self.known).get(&key)
            && *until > now
        {
            return Ok(found.clone());
        }
        // Right after a start the copies know nobody yet.
        self.hub.filled().await;
        let mut found = if self.tokens.claims(token) {
            self.tokens.authenticate(token, audiences)?
        } else if let Some((id, secret)) = bootstrap_token::split(token) {
            let user = bootstrap_token::authenticate(id, secret, &Copies(&self.hub), self.clock.now())?;
            Authenticated { user, audiences: self.tokens.config().api_audiences.clone() }
        } else {
            return Err("nobody knows this token".into());
        };
        found.user.groups.push("system:authenticated".into());
        let mut known = lock(&self.known);
        if known.len() >= REMEMBERED {
            known.retain(|_, (_, until)| *until > now);
        }
        if known.len() < REMEMBERED {
            known.insert(key, (found.clone(), now + REMEMBER));
        }
        Ok(found)
    }

    fn impersonate(&self, user: &User, wish: Wish) -> Result<User, StatusError> {
        for asked in wish.asked() {
            let resource = Resource {
                group: asked.group,
                version: "v1",
                resource: asked.resource,
                subresource: &asked.subresource,
                namespace: &asked.namespace,
                name: &asked.name,
                field_selector: "",
            };
            self.authorizer.authorize(user, &Request::Resource("impersonate", resource))?;
        }
        tracing::debug!(user = user.name, on_behalf_of = wish.user, "impersonation");
        Ok(wish.into_user())
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// On whose behalf somebody wants to act.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: Vec<(String, String)>,
}

/// One thing that must be allowed for it.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    group: &'static str,
    resource: &'static str,
    subresource: String,
    namespace: String,
    name: String,
}

impl Wish {
    fn read(headers: &HeaderMap) -> Result<Option<Self>, StatusError> {
        const EXTRA: &str = "impersonate-extra-";
        let mut wish = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            if !name.starts_with("impersonate-") {
                continue;
            }
            let value = value
                .to_str()
                .map_err(|_| StatusError::bad_request(format!("the header {name} is not plain text")))?;
            match name {
                "impersonate-user" => wish.user = value.to_owned(),
                "impersonate-group" => wish.groups.push(value.to_owned()),
                "impersonate-uid" => wish.uid = value.to_owned(),
                _ => {
                    if let Some(key) = name.strip_prefix(EXTRA) {
                        wish.extra.push((unescape(key), value.to_owned()));
                    }
                }
            }
        }
        if wish == Self::default() {
            return Ok(None);
        }
        if wish.user.is_empty() {
            return Err(StatusError::bad_request(format!(
                "requested [{}] without impersonating a user",
                wish.asked().iter().map(|a| a.name.clone()).collect::<Vec<_>>().join(" ")
            )));
        }
        Ok(Some(wish))
    }

    fn asked(&self) -> Vec<Asked> {
        let one = |group, resource, subresource: &str, namespace: &str, name: &str| Asked {
            group,
            resource,
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let mut asked = Vec::new();
        match split_account(&self.user) {
            Some((namespace, name)) => asked.push(one("", "serviceaccounts", "", namespace, name)),
            None if self.user.is_empty() => {}
            None => asked.push(one("", "users", "", "", &self.user)),
        }
        asked.extend(self.groups.iter().map(|group| one("", "groups", "", "", group)));
        let authentication = "authentication.k8s.io";
        asked.extend(self.extra.iter().map(|(k, v)| one(authentication, "userextras", k, "", v)));
        if !self.uid.is_empty() {
            asked.push(one(authentication, "uids", "", "", &self.uid));
        }
        asked
    }

    fn into_user(self) -> User {
        let mut groups = self.groups;
        if groups.is_empty()
            && let Some((namespace, _)) = split_account(&self.user)
        {
            groups = account_groups(namespace);
        }
        let (in_, out) = ("system:authenticated", "system:unauthenticated");
        let anonymous = self.user == "system:anonymous";
        let implied = if anonymous { out } else { in_ };
        if !groups.iter().any(|g| g == in_ || g == out) {
            groups.push(implied.into());
        }
        let mut user = User { name: self.user, uid: self.uid, groups, ..User::default() };
        for (key, value) in self.extra {
            user.extra.entry(key).or_default().push(value);
        }
        user
    }
}

/// Header names hold no `/` and such; those are written as in a URL.
fn unescape(key: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = key.bytes();
    while let Some(byte) = bytes.next() {
        let mut rest = bytes.clone();
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (byte, digit(rest.next()), digit(rest.next())) {
            (b'%', Some(high), Some(low)) => {
                out.extend(u8::try_from(high * 16 + low));
                bytes = rest;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).expect("a name"), HeaderValue::try_from(*value).expect("a value"))
        };
        all.iter().map(pair).collect()
    }

    #[test]
    fn a_bearer_token_is_found_in_its_header() {
        assert_eq!(bearer(&headers(&[("Authorization", "Bearer abc")])), Some("abc"));
        assert_eq!(bearer(&headers(&[("Authorization", "bearer  abc ")])), Some("abc"));
        for other in ["", "Bearer", "Bearer ", "Basic abc"] {
            assert_eq!(bearer(&headers(&[("Authorization", other)])), None, "{other:?}");
        }
    }

    #[test]
    fn every_part_of_an_impersonation_must_be_allowed() {
        let all = headers(&[
            ("Impersonate-User", "anna"),
            ("Impersonate-Group", "a"),
            ("Impersonate-Group", "b"),
            ("Impersonate-Uid", "7"),
            ("Impersonate-Extra-Acme.com%2fProject", "x"),
        ]);
        let wish = Wish::read(&all).expect("fine").expect("a wish");
        let names: Vec<_> =
            wish.asked().iter().map(|a| format!("{}/{}:{}", a.resource, a.subresource, a.name)).collect();
        assert_eq!(
            names,
            ["users/:anna", "groups/:a", "groups/:b", "userextras/acme.com/project:x", "uids/:7"]
        );
        let user = wish.into_user();
        assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
        assert_eq!((user.uid.as_str(), user.extra["acme.com/project"].len()), ("7", 1));
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let wish = Wish::read(&headers(&[("Impersonate-User", "system:serviceaccount:d:robot")]));
        let wish = wish.expect("fine").expect("a wish");
        let asked = wish.asked();
        assert_eq!(
            (asked[0].resource, asked[0].namespace.as_str(), asked[0].name.as_str()),
            ("serviceaccounts", "d", "robot")
        );
        let groups = wish.into_user().groups;
        assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:d", "system:authenticated"]);
        assert_eq!(Wish::read(&headers(&[])).expect("fine"), None);
        let lonely = Wish::read(&headers(&[("Impersonate-Group", "a")]));
        assert_eq!(lonely.expect_err("refused").code(), 400);
    }
}
