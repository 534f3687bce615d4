//! The rules of CSINodes.

use std::collections::HashSet;

use api::openapi::api::storage::v1::CSINode;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{not_negative, required};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of CSINodes.
pub struct CSINodeStrategy;

impl Strategy for CSINodeStrategy {
    type K = CSINode;

    fn validate(&self, node: &CSINode) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut seen = HashSet::new();
        for (i, driver) in node.spec.drivers.iter().enumerate() {
            let at = |name: &str| format!("spec.drivers[{i}].{name}");
            required(&mut errors, &at("name"), Some(&driver.name));
            required(&mut errors, &at("nodeID"), Some(&driver.node_id));
            not_negative(
                &mut errors,
                &at("allocatable.count"),
                driver.allocatable.as_ref().and_then(|a| a.count),
            );
            if !seen.insert(&driver.name) {
                errors.push(FieldError::duplicate(at("name"), driver.name.as_str()));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::integer("Drivers", "How many drivers the node has."), AGE];
        COLUMNS
    }

    fn row(&self, node: &CSINode, now: Timestamp) -> Vec<Value> {
        vec![
            json!(node.metadata.name.as_deref().unwrap_or_default()),
            json!(node.spec.drivers.len()),
            json!(age(node.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}
