use std::collections::HashMap;

use super::*;
use api::openapi::api::authentication::v1::TokenRequest;
use serde_json::json;

struct Fake(HashMap<(String, String), Value>);

impl Objects for Fake {
    fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Object> {
        let value = self.0.get(&(kind.to_owned(), api::meta::key_of(namespace, name)))?;
        Object::new(value.clone()).ok()
    }
}

fn objects() -> Fake {
    let mut all = HashMap::new();
    let mut add = |kind: &str, key: &str, value: Value| all.insert((kind.to_owned(), key.to_owned()), value);
    add("ServiceAccount", "d/robot", json!({"metadata": {"name": "robot", "namespace": "d", "uid": "u1"}}));
    add(
        "Pod",
        "d/web",
        json!({"metadata": {"name": "web", "uid": "u2"}, "spec": {"serviceAccountName": "robot", "nodeName": "n1"}}),
    );
    add(
        "Pod",
        "d/other",
        json!({"metadata": {"name": "other", "uid": "u3"}, "spec": {"serviceAccountName": "x"}}),
    );
    add("Node", "n1", json!({"metadata": {"name": "n1", "uid": "u4"}}));
    add("Secret", "d/s", json!({"metadata": {"name": "s", "uid": "u5"}}));
    Fake(all)
}

fn config() -> TokenConfig {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("key.pem");
    let key = rcgen::KeyPair::generate().expect("a key");
    std::fs::write(&path, key.serialize_pem()).expect("written");
    let mut keys = KeySet::default();
    keys.add_file(&path).expect("a key");
    let issuer = vec!["https://here".to_owned()];
    TokenConfig {
        api_audiences: issuer.clone(),
        issuers: issuer,
        keys,
        signing: Some(SigningKey::from_file(&path).expect("a key")),
        extend_expiration: true,
        ..TokenConfig::default()
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("a time")
}

fn issued(config: &TokenConfig, user: &User, spec: Value) -> Result<TokenRequest, (u16, String)> {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec});
    let request = serde_json::from_value(request).expect("a request");
    let account = objects().get("ServiceAccount", "d", "robot").expect("there");
    let ask = issue::Ask { user, account: &account, request, id: "id".into(), now: now() };
    issue::issue(config, ask, &objects()).map_err(|e| (e.code(), e.to_string()))
}

#[test]
fn a_token_tells_its_account_and_what_it_is_bound_to() {
    let config = config();
    let spec = json!({"audiences": [], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"}});
    let made = issued(&config, &User::of("admin", &[]), spec).expect("issued");
    let token = made.status.expect("a status").token;
    let claims = config.keys.verify(&token).expect("genuine");
    assert_eq!(text(&claims, "/kubernetes.io/node/uid"), "u4");
    assert_eq!(claims["exp"], now().as_second() + 3600);
    let user = bound::user(&claims, &objects(), now()).expect("somebody");
    assert_eq!(user.name, "system:serviceaccount:d:robot");
    assert_eq!((user.uid.as_str(), user.groups.len()), ("u1", 2));
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
    assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=id"]);
    // The pod goes, and so does the token; another of the same name does not help.
    let mut without = objects();
    without.0.remove(&("Pod".to_owned(), "d/web".to_owned()));
    assert_eq!(bound::user(&claims, &without, now()), Err("pod \"web\" not found".into()));
    without.0.insert(("Pod".into(), "d/web".into()), json!({"metadata": {"name": "web", "uid": "new"}}));
    assert!(bound::user(&claims, &without, now()).expect_err("refused").contains("UID"));
}

#[test]
fn a_request_is_checked_before_a_token_is_made() {
    let config = config();
    let admin = User::of("admin", &[]);
    let refused = |spec: Value| issued(&config, &admin, spec).expect_err("refused");
    assert_eq!(refused(json!({"audiences": [], "expirationSeconds": 5})).0, 422);
    let bind = |kind: &str, name: &str, uid: &str| json!({"audiences": [], "boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}});
    assert_eq!(refused(bind("Pod", "none", "")).0, 404);
    assert_eq!(refused(bind("Pod", "web", "old")).0, 409);
    assert_eq!(refused(bind("Pod", "other", "")).0, 400);
    assert_eq!(refused(bind("ConfigMap", "c", "")).0, 400);
    let kubelet = User::of("system:node:n1", &["system:nodes"]);
    assert!(issued(&config, &kubelet, bind("Pod", "web", "u2")).is_ok());
    assert_eq!(issued(&config, &kubelet, json!({"audiences": []})).expect_err("refused").0, 403);
    let stranger = User::of("system:node:n2", &["system:nodes"]);
    assert_eq!(issued(&config, &stranger, bind("Pod", "web", "u2")).expect_err("refused").0, 403);
}

#[test]
fn a_pods_own_token_outlives_its_promise() {
    let config = config();
    let spec =
        json!({"audiences": [], "expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "name": "web"}});
    let made = issued(&config, &User::of("admin", &[]), spec).expect("issued").status.expect("a status");
    let claims = config.keys.verify(&made.token).expect("genuine");
    assert_eq!(made.expiration_timestamp.0.as_second(), now().as_second() + 3607);
    assert_eq!(claims["kubernetes.io"]["warnafter"], now().as_second() + 3607);
    assert_eq!(claims["exp"], now().as_second() + 365 * 24 * 3600);
}

#[test]
fn a_token_counts_in_its_time() {
    let claims = json!({"exp": 1_700_000_000, "nbf": 1_600_000_000});
    let at = |second: i64| in_time(&claims, Timestamp::from_second(second).expect("a time"));
    assert!(at(1_650_000_000).is_ok() && at(1_700_000_059).is_ok());
    assert_eq!(at(1_700_000_061), Err("service account token has expired".into()));
    assert_eq!(at(1_599_999_000), Err("service account token is not valid yet".into()));
    assert!(in_time(&json!({}), now()).is_err());
}

#[test]
fn a_token_of_a_secret_counts_while_it_stands_there() {
    let config = config();
    let claims = json!({
        "iss": LEGACY_ISSUER, "sub": "system:serviceaccount:d:robot",
        "kubernetes/serviceaccount/namespace": "d", "kubernetes/serviceaccount/secret.name": "s",
        "kubernetes/serviceaccount/service-account.name": "robot", "kubernetes/serviceaccount/service-account.uid": "u1",
    });
    let token = config.signing.as_ref().expect("a key").sign(&claims).expect("signed");
    let mut all = objects();
    assert!(bound::legacy(&claims, &token, &all).is_err());
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(&token);
    all.0.insert(
        ("Secret".into(), "d/s".into()),
        json!({"metadata": {"name": "s"}, "data": {"token": encoded}}),
    );
    let user = bound::legacy(&claims, &token, &all).expect("somebody");
    assert_eq!(user.name, "system:serviceaccount:d:robot");
}
