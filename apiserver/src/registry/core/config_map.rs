//! The rules of ConfigMaps.

use api::openapi::api::core::v1::ConfigMap;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::secret::{MAX_SIZE, frozen};
use crate::registry::fields::{config_key, names};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of ConfigMaps.
pub struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    type K = ConfigMap;

    fn validate(&self, map: &ConfigMap) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut size = 0;
        for (key, value) in map.data.iter().flatten() {
            names(&mut errors, &format!("data[{key}]"), key, config_key(key));
            if map.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
                let detail = "duplicate of key present in binaryData";
                errors.push(FieldError::invalid(format!("data[{key}]"), key.as_str(), detail));
            }
            size += value.len();
        }
        for (key, value) in map.binary_data.iter().flatten() {
            names(&mut errors, &format!("binaryData[{key}]"), key, config_key(key));
            size += value.0.len();
        }
        if size > MAX_SIZE {
            errors.push(FieldError::too_long("data", MAX_SIZE));
        }
        errors
    }

    fn validate_update(&self, new: &ConfigMap, old: &ConfigMap) -> Vec<FieldError> {
        if old.immutable != Some(true) {
            return Vec::new();
        }
        let data = (new.data != old.data).then_some("data");
        let binary = (new.binary_data != old.binary_data).then_some("binaryData");
        frozen(new.immutable, [data, binary])
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::integer("Data", "The number of keys."), AGE];
        COLUMNS
    }

    fn row(&self, map: &ConfigMap, now: Timestamp) -> Vec<Value> {
        let keys = map.data.as_ref().map_or(0, |d| d.len()) + map.binary_data.as_ref().map_or(0, |d| d.len());
        vec![json!(map.metadata.name), json!(keys), json!(age(map.metadata.creation_timestamp.as_ref(), now))]
    }
}

#[cfg(test)]
mod tests;
