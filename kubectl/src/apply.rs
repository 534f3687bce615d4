//! Three-way merges: the patch that takes what is there to what the manifest wants, and removes what
//! the manifest wanted last time and wants no more.

mod merge;
mod schema;
mod strategic;

pub use merge::{diff as merge_diff, three_way as merge_three_way};

use serde_json::{Value, json};

use crate::output::json::compact;
use crate::resource::Resource;

/// Where the last applied manifest is kept.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Media type of a strategic merge patch.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Media type of a JSON merge patch.
pub const MERGE: &str = "application/merge-patch+json";
/// Media type of a JSON patch.
pub const JSON_PATCH: &str = "application/json-patch+json";

/// A patch and what kind it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// Media type.
    pub content_type: &'static str,
    /// The patch.
    pub body: Value,
}

impl Patch {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.body.as_object().is_some_and(serde_json::Map::is_empty)
    }
}

/// The manifest with itself written into its annotation.
pub fn with_last_applied(manifest: &Value) -> Value {
    let mut bare = without_last_applied(manifest);
    if !bare["metadata"]["annotations"].is_object() {
        bare["metadata"]["annotations"] = json!({});
    }
    let text = compact(&bare) + "\n";
    bare["metadata"]["annotations"][LAST_APPLIED] = Value::String(text);
    bare
}

/// An object without the annotation.
pub fn without_last_applied(object: &Value) -> Value {
    let mut bare = object.clone();
    if let Some(annotations) = bare["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    bare
}

/// The manifest that was applied last; `None` if there was none or it cannot be read.
pub fn last_applied(object: &Value) -> Option<Value> {
    serde_json::from_str(object["metadata"]["annotations"][LAST_APPLIED].as_str()?).ok()
}

/// The patch for a live object. `original` is what was applied last.
pub fn plan(resource: &Resource, original: Option<&Value>, modified: &Value, current: &Value) -> Patch {
    let empty = json!({});
    let original = original.unwrap_or(&empty);
    if schema::is_built_in(&resource.group) {
        let body = strategic::three_way(
            schema::Type::of(&resource.group, &resource.kind),
            original,
            modified,
            current,
        );
        return Patch { content_type: STRATEGIC, body };
    }
    Patch { content_type: MERGE, body: merge::three_way(original, modified, current) }
}

/// The patch between two states of an object: strategic where the kind is built in.
pub fn two_way(resource: &Resource, before: &Value, after: &Value) -> Patch {
    if schema::is_built_in(&resource.group) {
        let of = schema::Type::of(&resource.group, &resource.kind);
        return Patch { content_type: STRATEGIC, body: strategic::three_way(of, before, after, before) };
    }
    Patch { content_type: MERGE, body: merge::diff(before, after) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_holds_the_manifest_without_itself() {
        let manifest = json!({"kind": "A", "metadata": {"name": "x", "annotations": {LAST_APPLIED: "old"}}});
        let with = with_last_applied(&manifest);
        assert_eq!(
            with["metadata"]["annotations"][LAST_APPLIED],
            "{\"kind\":\"A\",\"metadata\":{\"annotations\":{},\"name\":\"x\"}}\n"
        );
        assert_eq!(with_last_applied(&with), with);
        assert_eq!(last_applied(&with).unwrap()["metadata"]["name"], "x");
    }
}
