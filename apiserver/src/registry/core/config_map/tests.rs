//! ConfigMaps: what is refused, what may change, how a row looks.

use serde_json::json;

use super::*;
use crate::registry::testing::{invalid, invalid_update, row, valid};

#[test]
fn keys_are_file_names_and_stand_once() {
    valid(&ConfigMapStrategy, json!({"data": {"index.html": "x", "_a": ""}, "binaryData": {"b": "AAE="}}));
    invalid(
        &ConfigMapStrategy,
        json!({"data": {"..x": "", "both": ""}, "binaryData": {"both": ""}}),
        &[
            "data[..x]: Invalid value: \"..x\": may not start with '..'",
            "data[both]: Invalid value: \"both\": duplicate of key present in binaryData",
        ],
    );
}

#[test]
fn a_mebibyte_is_the_most() {
    valid(&ConfigMapStrategy, json!({"data": {"a": "x".repeat(MAX_SIZE)}}));
    invalid(
        &ConfigMapStrategy,
        json!({"data": {"a": "x".repeat(MAX_SIZE), "b": "x"}}),
        &["data: Too long: may not be more than 1048576 bytes"],
    );
}

#[test]
fn an_immutable_map_stays_as_it_is() {
    let old = json!({"immutable": true, "data": {"a": "1"}});
    invalid_update(&ConfigMapStrategy, old.clone(), old.clone(), &[]);
    invalid_update(
        &ConfigMapStrategy,
        old,
        json!({"data": {"a": "2"}, "binaryData": {"b": ""}}),
        &[
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
            "binaryData: Forbidden: field is immutable when `immutable` is set",
        ],
    );
}

#[test]
fn a_row_counts_the_keys() {
    row(
        &ConfigMapStrategy,
        json!({"metadata": {"name": "c", "creationTimestamp": "2026-01-01T00:00:00Z"}, "data": {"a": ""}, "binaryData": {"b": ""}}),
        &["c", "2", "10m"],
    );
}
