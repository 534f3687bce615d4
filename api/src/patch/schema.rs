//! How the lists of each kind merge under a strategic merge patch, as the types' patch tags say.

use crate::apply::TypeRef;

pub use crate::schema::merging::{Tag, tag};

/// How a list merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListRule {
    /// The patch's list replaces the whole.
    Atomic,
    /// Maps with the same value of this key are merged.
    Keyed(&'static str),
    /// Scalars, each of which stands once.
    Set,
}

/// How a field merges if it is a list, and the type of the field or of its elements.
pub(super) fn field<'a>(of: TypeRef<'a>, name: &str) -> (ListRule, TypeRef<'a>) {
    let (tag, element) = of.patch(name);
    let rule = match tag {
        Some(Tag { merge_key: Some(key), .. }) => ListRule::Keyed(key),
        Some(tag) if tag.strategy.split(',').any(|s| s == "merge") => ListRule::Set,
        _ => ListRule::Atomic,
    };
    (rule, element)
}
