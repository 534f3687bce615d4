//! What happens to fields that a kind does not have: ignored, warned of, or refused.

use api::Kind;
use api::status::StatusError;
use api::strict::{unknown_field_message, unknown_fields};
use serde_json::Value;

use crate::custom::rules;

/// The query parameter `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Unknown fields are dropped silently.
    #[default]
    Ignore,
    /// Unknown fields are dropped with a warning.
    Warn,
    /// Unknown fields are an error.
    Strict,
}

impl FieldValidation {
    /// Reads the parameter; upstream's default is to warn.
    ///
    /// # Errors
    /// 422 for anything else.
    pub fn parse(text: &str) -> Result<Self, StatusError> {
        match text {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => Err(StatusError::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Warn\", \"Strict\""
            ))),
        }
    }

    /// What a client is to be warned of.
    ///
    /// # Errors
    /// 400 when it asked for strictness.
    pub fn check(self, kind: &Kind, document: &Value) -> Result<Vec<String>, StatusError> {
        if self == Self::Ignore {
            return Ok(Vec::new());
        }
        let unknown = match (rules::of(kind), (kind.normalize)(document.clone())) {
            (Some(rules), _) => rules.unknown_fields(document),
            (None, Ok(normalized)) => unknown_fields(document, &normalized),
            // A document of wrong types is refused later, in words that name the field.
            (None, Err(_)) => Vec::new(),
        };
        let messages: Vec<_> = unknown.iter().map(|path| unknown_field_message(path)).collect();
        if self == Self::Strict && !messages.is_empty() {
            return Err(StatusError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                kind.kind,
                kind.version,
                kind.kind,
                messages.join(", ")
            )));
        }
        Ok(messages)
    }
}
