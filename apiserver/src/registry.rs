//! The generic registry and the rules of each kind.

pub mod admissionregistration;
pub mod allocate;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod convert;
pub mod coordination;
pub mod core;
pub mod delete;
pub mod discovery;
pub mod errors;
pub mod events;
pub mod fields;
pub mod meta;
pub mod networking;
pub mod node;
pub mod pods;
pub mod policy;
pub mod printing;
pub mod rbac;
pub mod read;
pub mod scale;
pub mod scheduling;
pub mod session;
pub mod storage;
pub mod store;
pub mod strategies;
pub mod strategy;
#[cfg(test)]
pub(crate) mod testing;

pub use store::Registry;
