//! Rules of the kinds in `apiextensions.k8s.io/v1`.

pub mod custom_resource_definition;
