//! The rules of ControllerRevisions: history, which does not change.

use api::meta::MetaExt;
use api::openapi::api::apps::v1::ControllerRevision;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{IMMUTABLE, not_negative};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of ControllerRevisions.
pub struct ControllerRevisionStrategy;

impl Strategy for ControllerRevisionStrategy {
    type K = ControllerRevision;

    fn validate(&self, revision: &ControllerRevision) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match &revision.data {
            None => errors.push(FieldError::required("data", "data is mandatory")),
            Some(data) if !data.0.is_object() => {
                errors.push(FieldError::invalid("data", data.0.clone(), "must be an object"));
            }
            Some(_) => {}
        }
        not_negative(&mut errors, "revision", Some(revision.revision));
        errors
    }

    fn validate_update(&self, new: &ControllerRevision, old: &ControllerRevision) -> Vec<FieldError> {
        if new.data == old.data {
            return Vec::new();
        }
        let data = new.data.clone().map(|d| d.0).unwrap_or_default();
        vec![FieldError::invalid("data", data, IMMUTABLE)]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Controller", "Controller of the object"),
            Column::string("Revision", "The revision of the state that is recorded."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, revision: &ControllerRevision, now: Timestamp) -> Vec<Value> {
        let controller = revision.controller().map_or("<none>".into(), |owner| {
            let kind = owner.kind.to_lowercase();
            match owner.api_version.split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
                None => format!("{kind}/{}", owner.name),
            }
        });
        vec![
            json!(revision.metadata.name),
            json!(controller),
            json!(revision.revision),
            json!(age(revision.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::ControllerRevisionStrategy as S;
    use crate::registry::testing::{invalid, invalid_update, row, valid};
    use serde_json::json;

    #[test]
    fn history_has_data_and_does_not_change() {
        valid(&S, json!({"data": {"a": 1}, "revision": 1}));
        invalid(
            &S,
            json!({"revision": -1}),
            &[
                "data: Required value: data is mandatory",
                "revision: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        invalid_update(
            &S,
            json!({"data": {"a": 1}, "revision": 1}),
            json!({"data": {"a": 2}, "revision": 1}),
            &["data: Invalid value: {\"a\":2}: field is immutable"],
        );
    }

    #[test]
    fn the_controller_is_shown_with_its_group() {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "web", "uid": "1", "controller": true}]);
        row(
            &S,
            json!({"metadata": {"name": "web-1", "ownerReferences": owner, "creationTimestamp": "2026-01-01T00:00:00Z"}, "revision": 3}),
            &["web-1", "daemonset.apps/web", "3", "10m"],
        );
    }
}
