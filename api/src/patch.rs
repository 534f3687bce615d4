//! Patches: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch.
//!
//! All three take the present document and give a new one; none changes anything in place, and the
//! size, depth and work that a patch can cause are bounded before it is carried out.

mod schema;
mod strategic;

use json_patch::PatchOperation;
use serde_json::Value;

use crate::decode::decode;
use crate::status::StatusError;

pub use schema::{Tag, tag};
pub use strategic::strategic_merge;

/// Operations that one JSON patch may have.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that the `copy` operations of one JSON patch may duplicate.
const MAX_COPIED: usize = 3 << 20;
/// Bytes that the `move` operations of one JSON patch may carry about.
const MAX_MOVED: usize = 64 << 20;
/// Levels of nesting that a patch, or what it makes, may have.
const MAX_DEPTH: usize = 192;

/// Why a patch was not carried out. Neither variant is worth a second try.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PatchError {
    /// The patch is not of its format: answered with 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well-formed and does not fit the document: answered with 422.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Rejected(String),
}

impl From<PatchError> for StatusError {
    fn from(error: PatchError) -> Self {
        match &error {
            PatchError::Malformed(_) => Self::bad_request(error.to_string()),
            PatchError::Rejected(_) => Self::new(422, "Invalid", error.to_string()),
        }
    }
}

/// Carries out a JSON patch, all of it or nothing.
///
/// # Errors
/// `Malformed` when the patch is no list of operations or has too many; `Rejected` when an operation
/// fails (a `test` that does not hold, a path that does not exist) or would make the document too large.
pub fn json_patch(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations: Vec<PatchOperation> =
        decode(patch).map_err(|e| PatchError::Malformed(format!("error decoding patch: {e}")))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::Malformed(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut document = current.clone();
    let mut budget = Budget::default();
    for (index, operation) in operations.iter().enumerate() {
        budget.spend(&document, operation)?;
        json_patch::patch_unsafe(&mut document, std::slice::from_ref(operation)).map_err(|e| {
            PatchError::Rejected(format!("operation {index} at {:?}: {}", operation.path().as_str(), e.kind))
        })?;
    }
    a_map(document)
}

/// Carries out a merge patch: maps merge, `null` removes, everything else replaces.
///
/// # Errors
/// `Malformed` when the patch is no map or nests too deeply.
pub fn merge_patch(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("a merge patch must be a JSON object".into()));
    }
    shallow_enough(patch)?;
    let mut document = current.clone();
    json_patch::merge(&mut document, patch);
    a_map(document)
}

fn a_map(document: Value) -> Result<Value, PatchError> {
    match document {
        Value::Object(_) => Ok(document),
        _ => Err(PatchError::Rejected("the patched document is not a JSON object".into())),
    }
}

fn shallow_enough(value: &Value) -> Result<(), PatchError> {
    match measure(value).depth {
        depth if depth > MAX_DEPTH => Err(PatchError::Malformed(format!(
            "the patch nests {depth} levels deep; {MAX_DEPTH} are allowed"
        ))),
        _ => Ok(()),
    }
}

/// What the operations of one JSON patch have used up.
#[derive(Default)]
struct Budget {
    copied: usize,
    moved: usize,
}

impl Budget {
    /// Accounts for an operation before it is carried out.
    fn spend(&mut self, document: &Value, operation: &PatchOperation) -> Result<(), PatchError> {
        let levels = operation.path().tokens().count();
        let inserted = match operation {
            PatchOperation::Add(add) => measure(&add.value).depth,
            PatchOperation::Replace(replace) => measure(&replace.value).depth,
            PatchOperation::Copy(copy) => {
                let source = self.source(document, copy.from.as_str());
                self.copied = self.copied.saturating_add(source.bytes);
                source.depth
            }
            PatchOperation::Move(moving) => {
                let source = self.source(document, moving.from.as_str());
                self.moved = self.moved.saturating_add(source.bytes);
                source.depth
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
        };
        if self.copied > MAX_COPIED || self.moved > MAX_MOVED {
            return Err(PatchError::Rejected(format!(
                "unable to copy or move more than {MAX_COPIED} bytes of the document"
            )));
        }
        if levels + inserted > MAX_DEPTH {
            return Err(PatchError::Rejected(format!(
                "the document would nest deeper than {MAX_DEPTH} levels"
            )));
        }
        Ok(())
    }

    fn source(&self, document: &Value, pointer: &str) -> Measure {
        document.pointer(pointer).map(measure).unwrap_or_default()
    }
}

#[derive(Default)]
struct Measure {
    depth: usize,
    bytes: usize,
}

/// Depth and approximate encoded size, without recursion.
fn measure(value: &Value) -> Measure {
    let mut total = Measure::default();
    let mut open = vec![(value, 1)];
    while let Some((value, depth)) = open.pop() {
        total.depth = total.depth.max(depth);
        total.bytes += match value {
            Value::Null | Value::Bool(_) => 5,
            Value::Number(_) => 8,
            Value::String(text) => text.len() + 2,
            Value::Array(list) => {
                open.extend(list.iter().map(|v| (v, depth + 1)));
                list.len() + 2
            }
            Value::Object(map) => {
                open.extend(map.values().map(|v| (v, depth + 1)));
                map.keys().map(|k| k.len() + 4).sum::<usize>() + 2
            }
        };
    }
    total
}

#[cfg(test)]
mod tests;
