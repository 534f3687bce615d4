//! The rules of ComponentStatuses, which tell of the store's health.

use api::openapi::api::core::v1::{ComponentCondition, ComponentStatus};
use api::openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::strategy::{Column, NAME, Strategy};

/// The rules of ComponentStatuses.
pub struct ComponentStatusStrategy;

impl Strategy for ComponentStatusStrategy {
    type K = ComponentStatus;

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Status", "Status of the component conditions"),
            Column::string("Message", "Message of the component conditions"),
            Column::string("Error", "Error of the component conditions"),
        ];
        COLUMNS
    }

    fn row(&self, status: &ComponentStatus, _now: Timestamp) -> Vec<Value> {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let healthy = conditions.iter().find(|c| c.type_ == "Healthy");
        let word = match healthy.map(|c| c.status.as_str()) {
            Some("True") => "Healthy",
            Some("False") => "Unhealthy",
            _ => "Unknown",
        };
        let text = |f: fn(&ComponentCondition) -> Option<&String>| {
            healthy.and_then(f).map(String::as_str).unwrap_or_default().to_owned()
        };
        vec![
            json!(status.metadata.name.as_deref().unwrap_or_default()),
            json!(word),
            json!(text(|c| c.message.as_ref())),
            json!(text(|c| c.error.as_ref())),
        ]
    }
}

/// What is told of the store: `health` is what a read of it came to.
pub fn of_store(health: Result<(), String>) -> ComponentStatus {
    let (status, message, error) = match health {
        Ok(()) => ("True", Some("ok".to_owned()), None),
        Err(error) => ("False", None, Some(error)),
    };
    let condition = ComponentCondition { type_: "Healthy".into(), status: status.into(), message, error };
    ComponentStatus {
        metadata: ObjectMeta { name: Some("etcd-0".into()), ..ObjectMeta::default() },
        conditions: Some(vec![condition]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_healthy_or_not() {
        let row = |health| ComponentStatusStrategy.row(&of_store(health), Timestamp::UNIX_EPOCH);
        assert_eq!(row(Ok(())), ["etcd-0", "Healthy", "ok", ""]);
        assert_eq!(row(Err("gone".into())), ["etcd-0", "Unhealthy", "", "gone"]);
    }
}
