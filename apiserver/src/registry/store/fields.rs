//! What happens to fields that a kind does not have: ignored, warned of, or refused.

use api::Kind;
use api::status::StatusError;
use api::strict::{unknown_field_message, unknown_fields};
use serde_json::Value;

use super::WriteOptions;
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
    fn judge(self, kind: &Kind, messages: Vec<String>) -> Result<Vec<String>, StatusError> {
        if self == Self::Strict && !messages.is_empty() {
            return Err(StatusError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                kind.kind,
                kind.version,
                kind.kind,
                messages.join(", ")
            )));
        }
        Ok(if self == Self::Ignore { Vec::new() } else { messages })
    }
}

impl WriteOptions {
    /// What a client is to be warned of in a document: fields that stand twice, and those that the kind does not have.
    ///
    /// # Errors
    /// 400 when it asked for strictness.
    pub(super) fn check(&self, kind: &Kind, document: &Value) -> Result<Vec<String>, StatusError> {
        let mut messages = self.duplicates.clone();
        if self.validation != FieldValidation::Ignore {
            let unknown = match (rules::of(kind), (kind.normalize)(document.clone())) {
                (Some(rules), _) => rules.unknown_fields(document),
                (None, Ok(normalized)) => unknown_fields(document, &normalized),
                // A document of wrong types is refused later, in words that name the field.
                (None, Err(_)) => Vec::new(),
            };
            messages.extend(unknown.iter().map(|path| unknown_field_message(path)));
        }
        self.validation.judge(kind, messages)
    }

    /// As [`WriteOptions::check`], of fields that stand twice alone.
    ///
    /// # Errors
    /// 400 when the client asked for strictness.
    pub(super) fn check_duplicates(&self, kind: &Kind) -> Result<Vec<String>, StatusError> {
        self.validation.judge(kind, self.duplicates.clone())
    }
}
