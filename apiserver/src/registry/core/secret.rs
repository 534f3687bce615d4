//! The rules of Secrets.

use std::collections::BTreeMap;

use api::openapi::ByteString;
use api::openapi::api::core::v1::Secret;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{Errors, IMMUTABLE, config_key, names, set};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The bytes that the values of a Secret or ConfigMap may have in all: 1 MiB.
pub const MAX_SIZE: usize = 1 << 20;

/// The rules of Secrets.
pub struct SecretStrategy;

impl Strategy for SecretStrategy {
    type K = Secret;

    fn default(&self, secret: &mut Secret) {
        if set(secret.type_.as_deref()).is_none() {
            secret.type_ = Some("Opaque".into());
        }
        // stringData is only ever written: it lands in data and is not kept.
        if let Some(texts) = secret.string_data.take() {
            let data = secret.data.get_or_insert_default();
            data.extend(texts.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))));
        }
    }

    fn validate(&self, secret: &Secret) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let empty = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&empty);
        for key in data.keys() {
            names(&mut errors, &format!("data[{key}]"), key, config_key(key));
        }
        if data.values().map(|v| v.0.len()).sum::<usize>() > MAX_SIZE {
            errors.push(FieldError::too_long("data", MAX_SIZE));
        }
        of_type(&mut errors, secret, data);
        errors
    }

    fn validate_update(&self, new: &Secret, old: &Secret) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new.type_ != old.type_ {
            let type_ = new.type_.clone().unwrap_or_default();
            errors.push(FieldError::invalid("type", type_, IMMUTABLE));
        }
        if old.immutable == Some(true) {
            errors.extend(frozen(new.immutable, [(new.data != old.data).then_some("data")]));
        }
        errors
    }

    fn selectable_fields(&self, secret: &Secret) -> Vec<(&'static str, String)> {
        vec![("type", secret.type_.clone().unwrap_or_default())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Type", "What the data is for, and so which keys it must have."),
            Column::integer("Data", "The number of keys."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, secret: &Secret, now: Timestamp) -> Vec<Value> {
        vec![
            json!(secret.metadata.name),
            json!(secret.type_.as_deref().unwrap_or_default()),
            json!(secret.data.as_ref().map_or(0, |d| d.len())),
            json!(age(secret.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

/// What is wrong with a change of an immutable object: it stays immutable, and so do the changed fields.
pub fn frozen(immutable: Option<bool>, changed: impl IntoIterator<Item = Option<&'static str>>) -> Errors {
    let thawed = (immutable != Some(true)).then_some("immutable");
    let fields = std::iter::once(thawed).chain(changed).flatten();
    fields.map(|field| FieldError::forbidden(field, "field is immutable when `immutable` is set")).collect()
}

/// Each type has keys that its readers rely on.
fn of_type(errors: &mut Errors, secret: &Secret, data: &BTreeMap<String, ByteString>) {
    let mut need = |key: &str| {
        if !data.contains_key(key) {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    };
    match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").is_none_or(|key| key.0.is_empty()) => {
            errors.push(FieldError::required("data[ssh-privatekey]", ""));
        }
        "kubernetes.io/basic-auth" if !data.contains_key("username") && !data.contains_key("password") => {
            errors.push(FieldError::required("data[username]", ""));
            errors.push(FieldError::required("data[password]", ""));
        }
        "kubernetes.io/dockercfg" => json_key(errors, data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_key(errors, data, ".dockerconfigjson"),
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            let annotations = secret.metadata.annotations.as_ref();
            if set(annotations.and_then(|a| a.get(NAME)).map(String::as_str)).is_none() {
                errors.push(FieldError::required(format!("metadata.annotations[{NAME}]"), ""));
            }
        }
        _ => {}
    }
}

fn json_key(errors: &mut Errors, data: &BTreeMap<String, ByteString>, key: &str) {
    let field = format!("data[{key}]");
    match data.get(key) {
        None => errors.push(FieldError::required(field, "")),
        Some(text) => {
            if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&text.0) {
                // The value itself is secret and stays out of the message.
                let detail = format!("must be a JSON object: {:?}", error.classify());
                errors.push(FieldError::invalid(field, "<secret contents redacted>", &detail));
            }
        }
    }
}

#[cfg(test)]
mod tests;
