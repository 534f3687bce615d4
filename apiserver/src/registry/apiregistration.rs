//! The rules of the kinds of `apiregistration.k8s.io`.

pub mod api_service;
