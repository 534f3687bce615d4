//! The rules of events as `events.k8s.io/v1` has them.

use api::openapi::api::core::v1::ObjectReference;
use api::openapi::api::events::v1::Event;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::Value;

use crate::registry::core::event::{COLUMNS, Shown, namespaces_agree};
use crate::registry::fields::{Errors, one_of, required};
use crate::registry::strategy::{Column, Strategy};

/// The rules of events of the newer group.
pub struct EventStrategy;

impl Strategy for EventStrategy {
    type K = Event;

    fn validate(&self, event: &Event) -> Vec<FieldError> {
        let about = event.regarding.as_ref().and_then(|r| r.namespace.as_deref());
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let mut errors = namespaces_agree("regarding.namespace", about, namespace);
        if event.event_time.is_some() {
            reported(&mut errors, event);
        }
        errors
    }

    fn selectable_fields(&self, event: &Event) -> Vec<(&'static str, String)> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let about = event.regarding.clone().unwrap_or_default();
        vec![
            ("regarding.kind", text(&about.kind)),
            ("regarding.namespace", text(&about.namespace)),
            ("regarding.name", text(&about.name)),
            ("regarding.uid", text(&about.uid)),
            ("regarding.apiVersion", text(&about.api_version)),
            ("regarding.resourceVersion", text(&about.resource_version)),
            ("regarding.fieldPath", text(&about.field_path)),
            ("reason", text(&event.reason)),
            ("reportingController", text(&event.reporting_controller)),
            ("type", text(&event.type_)),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, event: &Event, now: Timestamp) -> Vec<Value> {
        let nothing = ObjectReference::default();
        Shown {
            name: event.metadata.name.as_deref(),
            first: event.deprecated_first_timestamp.as_ref(),
            last: event.deprecated_last_timestamp.as_ref(),
            time: event.event_time.as_ref(),
            series: event.series.as_ref().map(|s| (s.count, Some(&s.last_observed_time))),
            count: event.deprecated_count.unwrap_or(0),
            type_: event.type_.as_deref(),
            reason: event.reason.as_deref(),
            about: event.regarding.as_ref().unwrap_or(&nothing),
            source: event.deprecated_source.as_ref(),
            reporter: (event.reporting_controller.as_deref(), event.reporting_instance.as_deref()),
            message: event.note.as_deref(),
        }
        .row(now)
    }
}

/// What an event must say that was written in this group, rather than seen through it.
fn reported(errors: &mut Errors, event: &Event) {
    required(errors, "reportingController", event.reporting_controller.as_deref());
    required(errors, "reportingInstance", event.reporting_instance.as_deref());
    required(errors, "action", event.action.as_deref());
    required(errors, "reason", event.reason.as_deref());
    one_of(errors, "type", event.type_.as_deref(), &["Normal", "Warning"]);
    let lengths = [
        ("action", event.action.as_deref(), 128),
        ("reason", event.reason.as_deref(), 128),
        ("reportingInstance", event.reporting_instance.as_deref(), 128),
        ("note", event.note.as_deref(), 1024),
    ];
    for (field, text, most) in lengths {
        if text.is_some_and(|t| t.len() > most) {
            errors.push(FieldError::too_long(field, most));
        }
    }
}
