//! The rules of events as core `v1` has them.

use api::openapi::api::core::v1::{Event, EventSource, ObjectReference};
use api::openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::set;
use crate::registry::printing::{age, human_duration};
use crate::registry::strategy::{Column, NAME, Strategy};

/// The rules of core events.
pub struct EventStrategy;

impl Strategy for EventStrategy {
    type K = Event;

    fn validate(&self, event: &Event) -> Vec<FieldError> {
        let about = &event.involved_object;
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        namespaces_agree("involvedObject.namespace", about.namespace.as_deref(), namespace)
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        api::validation::dns_subdomain(name)
    }

    fn selectable_fields(&self, event: &Event) -> Vec<(&'static str, String)> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let about = &event.involved_object;
        let source = event.source.as_ref().and_then(|s| s.component.clone()).unwrap_or_default();
        let reporting = text(&event.reporting_component);
        vec![
            ("involvedObject.kind", text(&about.kind)),
            ("involvedObject.namespace", text(&about.namespace)),
            ("involvedObject.name", text(&about.name)),
            ("involvedObject.uid", text(&about.uid)),
            ("involvedObject.apiVersion", text(&about.api_version)),
            ("involvedObject.resourceVersion", text(&about.resource_version)),
            ("involvedObject.fieldPath", text(&about.field_path)),
            ("reason", text(&event.reason)),
            ("reportingComponent", reporting.clone()),
            ("source", if source.is_empty() { reporting } else { source }),
            ("type", text(&event.type_)),
        ]
    }

    fn field_paths(&self, field: &'static str) -> Vec<&'static str> {
        if field == "source" { vec!["source.component", "reportingComponent"] } else { vec![field] }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, event: &Event, now: Timestamp) -> Vec<Value> {
        let series = event.series.as_ref();
        Shown {
            name: event.metadata.name.as_deref(),
            first: event.first_timestamp.as_ref(),
            last: event.last_timestamp.as_ref(),
            time: event.event_time.as_ref(),
            series: series.map(|s| (s.count.unwrap_or(0), s.last_observed_time.as_ref())),
            count: event.count.unwrap_or(0),
            type_: event.type_.as_deref(),
            reason: event.reason.as_deref(),
            about: &event.involved_object,
            source: event.source.as_ref(),
            reporter: (event.reporting_component.as_deref(), event.reporting_instance.as_deref()),
            message: event.message.as_deref(),
        }
        .row(now)
    }
}

/// An event lives in its object's namespace; that of an object without one lives in `default` or `kube-system`.
pub fn namespaces_agree(field: &str, about: Option<&str>, namespace: &str) -> Vec<FieldError> {
    let about = about.unwrap_or_default();
    let agree = match about {
        "" => matches!(namespace, "default" | "kube-system"),
        about => about == namespace,
    };
    if agree { Vec::new() } else { vec![FieldError::invalid(field, about, "does not match event.namespace")] }
}

/// The columns of events, in both groups.
pub const COLUMNS: &[Column] = &[
    Column::string("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
    Column::string("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
    Column::string("Reason", "Why the action was taken, in a word that a machine can read."),
    Column::string("Object", "The object this event is about."),
    Column::string("Subobject", "The part of the object that this event is about.").wide(),
    Column::string("Source", "The component reporting this event.").wide(),
    Column::string("Message", "A description of what happened, for people."),
    Column::string("First Seen", "The time at which the event was first recorded.").wide(),
    Column::string("Count", "The number of times this event has occurred.").wide(),
    Column { priority: 1, ..NAME },
];

/// What a table shows of an event, whichever group it was asked for in.
pub struct Shown<'a> {
    pub name: Option<&'a str>,
    pub first: Option<&'a Time>,
    pub last: Option<&'a Time>,
    pub time: Option<&'a MicroTime>,
    pub series: Option<(i32, Option<&'a MicroTime>)>,
    pub count: i32,
    pub type_: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub about: &'a ObjectReference,
    pub source: Option<&'a EventSource>,
    pub reporter: (Option<&'a str>, Option<&'a str>),
    pub message: Option<&'a str>,
}

impl Shown<'_> {
    /// The cells of the event.
    pub fn row(&self, now: Timestamp) -> Vec<Value> {
        let micro = |time: Option<&MicroTime>| match time {
            Some(time) => human_duration(now.as_second() - time.0.as_second()),
            None => "<unknown>".into(),
        };
        let first = if self.first.is_some() { age(self.first, now) } else { micro(self.time) };
        let last = if self.last.is_some() { age(self.last, now) } else { first.clone() };
        let (last, count) = match self.series {
            Some((count, seen)) => (micro(seen), count),
            // An event of the newer form that happened once has no count.
            None => (last, self.count.max(1)),
        };
        vec![
            json!(last),
            json!(self.type_.unwrap_or_default()),
            json!(self.reason.unwrap_or_default()),
            json!(self.target()),
            json!(self.about.field_path.as_deref().unwrap_or_default()),
            json!(self.from()),
            json!(self.message.unwrap_or_default().trim()),
            json!(first),
            json!(count),
            json!(self.name.unwrap_or_default()),
        ]
    }

    fn target(&self) -> String {
        let kind = self.about.kind.as_deref().unwrap_or_default().to_lowercase();
        match set(self.about.name.as_deref()) {
            Some(name) => format!("{kind}/{name}"),
            None => kind,
        }
    }

    fn from(&self) -> String {
        let component = set(self.source.and_then(|s| s.component.as_deref())).or(self.reporter.0);
        let instance = set(self.source.and_then(|s| s.host.as_deref())).or(self.reporter.1);
        match (component.unwrap_or_default(), set(instance)) {
            (component, Some(instance)) => format!("{component}, {instance}"),
            (component, None) => component.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
