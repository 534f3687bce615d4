//! Label and field selectors: parsing the query grammar and matching.

pub mod field;
pub mod label;

pub use field::FieldSelector;
pub use label::{LabelSelectorError, Requirement, Selector};
