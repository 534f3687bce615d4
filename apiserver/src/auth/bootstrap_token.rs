//! Bootstrap tokens: what a machine joins with, kept in Secrets of type `bootstrap.kubernetes.io/token` in kube-system.

use api::Object;
use jiff::Timestamp;

use super::User;
use super::token::Objects;
use super::token::bound::decoded;

const GROUP: &str = "system:bootstrappers";

/// The two halves of a token of the form `abcdef.0123456789abcdef`.
pub fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// Who bears a token.
///
/// # Errors
/// Why it does not count.
pub fn authenticate(id: &str, secret: &str, objects: &dyn Objects, now: Timestamp) -> Result<User, String> {
    let found = objects.get("Secret", "kube-system", &format!("bootstrap-token-{id}"));
    let found = found.filter(|s| s.deletion_timestamp().is_none()).ok_or("no such bootstrap token")?;
    decide(&found, id, secret, now)
}

fn decide(found: &Object, id: &str, secret: &str, now: Timestamp) -> Result<User, String> {
    let value = |key: &str| String::from_utf8(decoded(found, key)).unwrap_or_default();
    if found.str_at("/type") != "bootstrap.kubernetes.io/token" {
        return Err("the Secret is no bootstrap token".into());
    }
    if !same(value("token-secret").as_bytes(), secret.as_bytes()) || value("token-id") != id {
        return Err("the bootstrap token does not match".into());
    }
    let expires = value("expiration");
    if !expires.is_empty() && expires.parse::<Timestamp>().map_or(true, |t| t <= now) {
        return Err("the bootstrap token has expired".into());
    }
    if value("usage-bootstrap-authentication") != "true" {
        return Err("the bootstrap token is not for authentication".into());
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in value("auth-extra-groups").split(',').filter(|g| !g.is_empty()) {
        if !group.starts_with("system:bootstrappers:") {
            return Err(format!(
                "bootstrap group {group:?} is invalid (must match \\Asystem:bootstrappers:[a-z0-9:-]{{0,255}}[a-z0-9]\\z)"
            ));
        }
        groups.push(group.to_owned());
    }
    Ok(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

/// Compares in a time that does not tell how much is right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use serde_json::json;

    #[track_caller]
    fn check(change: &[(&str, &str)], wanted: Result<&[&str], &str>) {
        let mut data = serde_json::Map::new();
        let base = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ];
        for (key, value) in base.iter().chain(change) {
            let encoded = base64::engine::general_purpose::STANDARD.encode(value);
            data.insert((*key).to_owned(), encoded.into());
        }
        let secret = json!({"metadata": {}, "type": "bootstrap.kubernetes.io/token", "data": data});
        let now = "2024-01-01T00:00:00Z".parse().expect("a time");
        let found = Object::new(secret).expect("a map");
        match (decide(&found, "abcdef", "0123456789abcdef", now), wanted) {
            (Ok(user), Ok(groups)) => assert_eq!(user.groups, groups),
            (Err(error), Err(text)) => assert!(error.contains(text), "{error}"),
            (decision, _) => panic!("{decision:?}"),
        }
    }

    #[test]
    fn a_bootstrap_token_counts_until_it_expires() {
        check(&[], Ok(&["system:bootstrappers"]));
        let extra = "system:bootstrappers:kubeadm:default-node-token";
        check(&[("auth-extra-groups", extra)], Ok(&["system:bootstrappers", extra]));
        check(&[("auth-extra-groups", "system:masters")], Err("is invalid"));
        check(&[("expiration", "2024-01-01T00:00:01Z")], Ok(&["system:bootstrappers"]));
        check(&[("expiration", "2023-12-31T00:00:00Z")], Err("expired"));
        check(&[("expiration", "soon")], Err("expired"));
        check(&[("token-secret", "0123456789abcdee")], Err("match"));
        check(&[("usage-bootstrap-authentication", "false")], Err("not for authentication"));
    }

    #[test]
    fn only_what_looks_like_one_is_looked_up() {
        assert_eq!(split("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for other in ["", "abcdef", "abcdef.", "ABCDEF.0123456789abcdef", "abc/ef.0123456789abcdef", "a.b.c"]
        {
            assert_eq!(split(other), None, "{other}");
        }
    }
}
