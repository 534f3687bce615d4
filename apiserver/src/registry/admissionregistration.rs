//! Rules of the kinds in `admissionregistration.k8s.io/v1`.

mod matching;
pub mod policies;
pub mod webhooks;
