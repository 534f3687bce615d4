//! Any other kind: its fields in words.

use serde_json::{Map, Value};

use super::doc::Doc;

/// Describes an object by its fields.
pub fn describe(doc: &mut Doc, object: &Value) {
    doc.heading(object);
    if let Some(map) = object.as_object() {
        fields(doc, 0, map, "");
    }
}

/// What the heading has said already, or what says nothing.
const SKIPPED: &[&str] = &[
    ".metadata.name",
    ".metadata.namespace",
    ".metadata.labels",
    ".metadata.annotations",
    ".metadata.managedFields",
];

fn fields(doc: &mut Doc, level: usize, map: &Map<String, Value>, path: &str) {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    for (key, value) in entries {
        let place = format!("{path}.{key}");
        if SKIPPED.contains(&place.as_str()) {
            continue;
        }
        let title = words(key);
        match value {
            Value::Object(inner) => {
                doc.line(level, format!("{title}:"));
                fields(doc, level + 1, inner, &place);
            }
            Value::Array(items) => {
                doc.line(level, format!("{title}:"));
                for item in items {
                    match item {
                        Value::Object(inner) => fields(doc, level + 1, inner, &place),
                        other => doc.line(level + 1, scalar(other)),
                    }
                }
            }
            other => doc.field(level, &title, scalar(other)),
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        other => crate::jsonpath::text_of(other),
    }
}

/// `creationTimestamp` as `Creation Timestamp`; what is spelled in capitals or is no identifier stays.
fn words(field: &str) -> String {
    if !field.chars().all(|c| c.is_ascii_alphanumeric()) {
        return field.to_owned();
    }
    let chars: Vec<char> = field.chars().collect();
    let mut parts: Vec<String> = Vec::new();
    for (i, &c) in chars.iter().enumerate() {
        let previous = i.checked_sub(1).map(|p| chars[p]);
        let next_lower = chars.get(i + 1).is_some_and(|n| n.is_ascii_lowercase());
        let begins = previous.is_none_or(|p| {
            c.is_ascii_uppercase() && (!p.is_ascii_uppercase() || next_lower)
                || c.is_ascii_digit() != p.is_ascii_digit()
        });
        match parts.last_mut() {
            Some(part) if !begins => part.push(c),
            _ => parts.push(c.to_string()),
        }
    }
    let known = ["API", "URL", "UID", "OSB", "GUID"];
    let title = |part: String| {
        let upper = part.to_uppercase();
        if known.contains(&upper.as_str()) {
            return upper;
        }
        let mut chars = part.chars();
        chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
    };
    parts.into_iter().map(title).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_words() {
        for (field, want) in [
            ("apiVersion", "API Version"),
            ("creationTimestamp", "Creation Timestamp"),
            ("uid", "UID"),
            ("resourceVersion", "Resource Version"),
            ("podCIDR", "Pod CIDR"),
            ("app.io/x", "app.io/x"),
        ] {
            assert_eq!(words(field), want);
        }
    }
}
