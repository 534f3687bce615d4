//! Field errors in Kubernetes' wording, and the rules for names, labels and annotations.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;

/// What is wrong with one field; collected into the `details.causes` of a 422.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The machine-readable reason, such as `FieldValueRequired`.
    pub reason: &'static str,
    /// The path in Kubernetes' notation, such as `spec.ports[0].port`.
    pub field: String,
    /// The whole sentence after the path: `Invalid value: -1: must be greater than or equal to 0`.
    pub message: String,
}

impl FieldError {
    /// The field is missing.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message =
            if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    /// The field's value is malformed or out of range.
    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: &str) -> Self {
        let message = format!("Invalid value: {}: {detail}", show(&value.into()));
        Self { reason: "FieldValueInvalid", field: field.into(), message }
    }

    /// The field's value is none of an enumeration.
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", show(&value.into()));
        Self { reason: "FieldValueNotSupported", field: field.into(), message }
    }

    /// The value stands twice where it must be unique.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        let message = format!("Duplicate value: {}", show(&value.into()));
        Self { reason: "FieldValueDuplicate", field: field.into(), message }
    }

    /// The field may not be set, or may not be changed.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {detail}") }
    }

    /// The field refers to something that does not exist.
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        let message = format!("Not found: {}", show(&value.into()));
        Self { reason: "FieldValueNotFound", field: field.into(), message }
    }

    /// The value has more than `max` bytes.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        let message = format!("Too long: may not be more than {max} bytes");
        Self { reason: "FieldValueTooLong", field: field.into(), message }
    }

    /// The field's value is of the wrong type; `found` is the type that it has.
    pub fn type_invalid(field: impl Into<String>, found: &str, detail: &str) -> Self {
        Self { reason: "FieldValueTypeInvalid", ..Self::invalid(field, found, detail) }
    }

    /// The list or map has more than `max` entries.
    pub fn too_many(field: impl Into<String>, count: u64, max: u64) -> Self {
        let message = format!("Too many: {count}: must have at most {max} items");
        Self { reason: "FieldValueTooMany", field: field.into(), message }
    }

    /// The cause as it stands in a `Status`.
    pub fn cause(&self) -> StatusCause {
        StatusCause {
            reason: Some(self.reason.into()),
            field: Some(self.field.clone()),
            message: Some(self.message.clone()),
        }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

fn show(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(512) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
     and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
     validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
     '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
     validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
     with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', \
     regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start \
     and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
     validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
     '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', \
     regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn label_shape(text: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn name_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

fn longer(text: &str, max: usize) -> Option<String> {
    (text.len() > max).then(|| format!("must be no more than {max} bytes"))
}

/// What keeps a text from being an RFC 1123 label (63 bytes): names of namespaces, containers, ports.
pub fn dns_label(text: &str) -> Vec<String> {
    longer(text, 63).into_iter().chain((!label_shape(text)).then(|| LABEL.to_owned())).collect()
}

/// What keeps a text from being an RFC 1035 label, which starts with a letter: names of Services.
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let shaped = label_shape(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    longer(text, 63).into_iter().chain((!shaped).then(|| LABEL_1035.to_owned())).collect()
}

/// What keeps a text from being an RFC 1123 subdomain (253 bytes): names of most objects.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let shaped = text.split('.').all(label_shape);
    longer(text, 253).into_iter().chain((!shaped).then(|| SUBDOMAIN.to_owned())).collect()
}

/// What keeps a text from being a segment of a path: names of kinds that put no other rule on them.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ['/', '%'].into_iter().filter(|c| text.contains(*c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// What keeps a text from being a label's or annotation's key: an optional DNS prefix and a name.
pub fn qualified_name(text: &str) -> Vec<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let mut problems = Vec::new();
    match prefix {
        Some("") => problems.push("prefix part must be non-empty".into()),
        Some(prefix) => {
            problems.extend(dns_subdomain(prefix).into_iter().map(|p| format!("prefix part {p}")))
        }
        None => {}
    }
    if name.is_empty() {
        problems.push("name part must be non-empty".into());
    }
    problems.extend(longer(name, 63).map(|p| format!("name part {p}")));
    if !name_shape(name) {
        problems.push(QUALIFIED.into());
    }
    problems
}

/// What keeps a text from being a label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let shaped = text.is_empty() || name_shape(text);
    longer(text, 63).into_iter().chain((!shaped).then(|| VALUE.to_owned())).collect()
}

/// Checks a map of labels beneath `field`.
pub fn labels(labels: &BTreeMap<String, String>, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels {
        errors.extend(qualified_name(key).iter().map(|p| FieldError::invalid(field, key.as_str(), p)));
        errors.extend(label_value(value).iter().map(|p| FieldError::invalid(field, value.as_str(), p)));
    }
    errors
}

/// Checks a map of annotations beneath `field`: keys, and 256 KiB in all.
pub fn annotations(annotations: &BTreeMap<String, String>, field: &str) -> Vec<FieldError> {
    const MAX: usize = 256 * 1024;
    let mut errors: Vec<_> = annotations
        .keys()
        .flat_map(|key| {
            qualified_name(&key.to_lowercase())
                .into_iter()
                .map(|p| FieldError::invalid(field, key.as_str(), &p))
                .collect::<Vec<_>>()
        })
        .collect();
    if annotations.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > MAX {
        errors.push(FieldError::too_long(field, MAX));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        let bad = |f: fn(&str) -> Vec<String>, texts: &[&str]| texts.iter().all(|t| !f(t).is_empty());
        let good = |f: fn(&str) -> Vec<String>, texts: &[&str]| texts.iter().all(|t| f(t).is_empty());
        assert!(good(dns_label, &["a", "0", "a-b", &"a".repeat(63)]));
        assert!(bad(dns_label, &["", "A", "-a", "a-", "a.b", "a_b", &"a".repeat(64)]));
        assert!(good(dns_subdomain, &["a.b", "kube-root-ca.crt", "1.2"]));
        assert!(bad(dns_subdomain, &["", ".", "a..b", "a.-b", &"a".repeat(254)]));
        assert!(good(dns_1035_label, &["web"]) && bad(dns_1035_label, &["1web", ""]));
        assert!(good(qualified_name, &["app", "example.com/App_1.x"]));
        assert!(bad(qualified_name, &["", "/a", "a/", "a/b/c", "ü"]));
        assert!(good(label_value, &["", "A.b_c-d"]) && bad(label_value, &["-", "a b"]));
        assert!(bad(path_segment, &[".", "..", "a/b", "a%b"]) && good(path_segment, &["system:a"]));
    }
}
