//! The rules of IPAddresses, which are named by the address.

use std::net::IpAddr;

use api::openapi::api::networking::v1::IPAddress;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{IMMUTABLE, required, set};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of IPAddresses.
pub struct IPAddressStrategy;

impl Strategy for IPAddressStrategy {
    type K = IPAddress;

    fn validate_name(&self, name: &str) -> Vec<String> {
        match name.parse::<IpAddr>() {
            Ok(address) if address.to_string() == name => Vec::new(),
            Ok(address) => vec![format!("must be in canonical form (\"{address}\")")],
            Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
        }
    }

    fn validate(&self, address: &IPAddress) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match address.spec.as_ref().map(|s| &s.parent_ref) {
            None => errors.push(FieldError::required("spec.parentRef", "")),
            Some(parent) => {
                required(&mut errors, "spec.parentRef.resource", Some(&parent.resource));
                required(&mut errors, "spec.parentRef.name", Some(&parent.name));
            }
        }
        errors
    }

    fn validate_update(&self, new: &IPAddress, old: &IPAddress) -> Vec<FieldError> {
        if new.spec == old.spec {
            return Vec::new();
        }
        vec![FieldError::invalid(
            "spec.parentRef",
            json!(new.spec.as_ref().map(|s| &s.parent_ref)),
            IMMUTABLE,
        )]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::string("ParentRef", "What has the address."), AGE];
        COLUMNS
    }

    fn row(&self, address: &IPAddress, now: Timestamp) -> Vec<Value> {
        let parent = address.spec.as_ref().map(|s| s.parent_ref.clone()).unwrap_or_default();
        let group = set(parent.group.as_deref()).map(|g| format!(".{g}")).unwrap_or_default();
        let namespace = set(parent.namespace.as_deref()).map(|n| format!("{n}/")).unwrap_or_default();
        vec![
            json!(address.metadata.name.as_deref().unwrap_or_default()),
            json!(format!("{}{group}/{namespace}{}", parent.resource, parent.name)),
            json!(age(address.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}
