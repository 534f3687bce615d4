//! Secrets: what is refused, what may change, how a row looks.

use serde_json::json;

use super::*;
use crate::registry::testing::{invalid, invalid_update, row, stored, valid};

#[test]
fn string_data_lands_in_data_and_wins() {
    let secret =
        stored(&SecretStrategy, json!({"data": {"a": "AAE=", "b": "AAE="}, "stringData": {"a": "hi"}}));
    assert_eq!(secret["data"], json!({"a": "aGk=", "b": "AAE="}));
    assert_eq!(secret["type"], "Opaque");
    assert_eq!(secret.get("stringData"), None);
}

#[test]
fn each_type_has_its_keys() {
    valid(&SecretStrategy, json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}));
    invalid(
        &SecretStrategy,
        json!({"type": "kubernetes.io/tls"}),
        &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
    );
    invalid(
        &SecretStrategy,
        json!({"type": "kubernetes.io/basic-auth", "data": {}}),
        &["data[password]: Required value", "data[username]: Required value"],
    );
    invalid(
        &SecretStrategy,
        json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{"}}),
        &[
            "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": must be a JSON object: Eof",
        ],
    );
    valid(
        &SecretStrategy,
        json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{\"auths\": {}}"}}),
    );
    invalid(
        &SecretStrategy,
        json!({"type": "kubernetes.io/service-account-token"}),
        &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
    );
    invalid(
        &SecretStrategy,
        json!({"type": "kubernetes.io/ssh-auth"}),
        &["data[ssh-privatekey]: Required value"],
    );
}

#[test]
fn keys_and_size_are_bounded() {
    invalid(
        &SecretStrategy,
        json!({"stringData": {"a/b": "x".repeat(MAX_SIZE + 1)}}),
        &[
            "data: Too long: may not be more than 1048576 bytes",
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
             'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
}

#[test]
fn the_type_never_changes_and_an_immutable_secret_not_at_all() {
    invalid_update(
        &SecretStrategy,
        json!({"type": "a", "immutable": true, "stringData": {"a": "1"}}),
        json!({"type": "b", "immutable": true, "stringData": {"a": "2"}}),
        &[
            "type: Invalid value: \"b\": field is immutable",
            "data: Forbidden: field is immutable when `immutable` is set",
        ],
    );
}

#[test]
fn a_row_shows_the_type_and_no_value() {
    row(
        &SecretStrategy,
        json!({"metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:09:59Z"}, "type": "Opaque", "data": {"a": "AAE="}}),
        &["s", "Opaque", "1", "1s"],
    );
}
