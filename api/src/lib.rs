//! The object model that every component shares: the table of kinds, objects and their metadata,
//! selectors, quantities, patches, validation and `Status` errors.
//!
//! Pure: nothing here does I/O, knows a clock or an async runtime. Typed objects are those of
//! [`k8s_openapi`] (feature `v1_35`), re-exported as [`openapi`].
#![deny(missing_docs)]

pub use k8s_openapi as openapi;

pub mod apply;
pub mod conditions;
pub mod decode;
pub mod kinds;
pub mod meta;
pub mod object;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strict;
pub mod validation;

pub use kinds::{Kind, Subresource, Typed};
pub use object::Object;
pub use status::StatusError;
