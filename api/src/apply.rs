//! Server-side apply: who owns which field, and what becomes of an object when managers of fields disagree.
//!
//! The rules are those of the documented algorithm (KEP-555): every write is compared with what was there, whoever
//! changes a field owns it, an apply states all that its manager wants, and what no manager wants any longer goes.

mod compare;
mod managed;
mod manager;
mod merge;
mod paths;
mod set;
pub mod types;

pub use compare::{Comparison, compare, field_set};
pub use managed::{Managed, Operation};
pub use manager::{Applied, ApplyError, Conflict, Writer, apply, check_manager, manager_of_agent, track};
pub use merge::{merge, remove};
pub use set::FieldSet;
pub use types::{DocumentType, TypeRef};

#[cfg(test)]
mod tests;
