//! Events: where they live, and how a row looks in either group.

use serde_json::{Value, json};

use super::*;
use crate::registry::testing::{invalid, object, row, valid};

fn event() -> Value {
    json!({"metadata": {"name": "web.1", "namespace": "default"}, "type": "Warning", "reason": "BackOff", "message": " restarting \n",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web", "fieldPath": "spec.containers{web}"},
        "source": {"component": "kubelet", "host": "n1"}, "count": 3,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:08:00Z"})
}

#[test]
fn an_event_lives_with_its_object() {
    valid(&EventStrategy, event());
    valid(&EventStrategy, json!({"involvedObject": {"kind": "Node", "name": "n1"}}));
    invalid(
        &EventStrategy,
        json!({"involvedObject": {"namespace": "other"}}),
        &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
    );
}

#[test]
fn a_counted_event_shows_when_it_was_first_and_last_seen() {
    row(
        &EventStrategy,
        event(),
        &[
            "2m",
            "Warning",
            "BackOff",
            "pod/web",
            "spec.containers{web}",
            "kubelet, n1",
            "restarting",
            "10m",
            "3",
            "web.1",
        ],
    );
}

#[test]
fn an_event_of_the_newer_form_has_a_time_and_a_series() {
    let newer = json!({"metadata": {"name": "e", "namespace": "default"}, "type": "Normal", "reason": "Scheduled", "message": "ok",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"}, "eventTime": "2026-01-01T00:09:00.000000Z",
        "reportingComponent": "default-scheduler", "reportingInstance": "s-1"});
    row(
        &EventStrategy,
        newer.clone(),
        &["60s", "Normal", "Scheduled", "pod/web", "", "default-scheduler, s-1", "ok", "60s", "1", "e"],
    );
    let mut series = newer;
    series["series"] = json!({"count": 7, "lastObservedTime": "2026-01-01T00:09:58.000000Z"});
    row(
        &EventStrategy,
        series,
        &["2s", "Normal", "Scheduled", "pod/web", "", "default-scheduler, s-1", "ok", "60s", "7", "e"],
    );
}

#[test]
fn the_object_the_reason_and_the_source_are_selectable() {
    let fields = EventStrategy.selectable_fields(&object(event()));
    for expected in [
        ("involvedObject.name", "web"),
        ("involvedObject.kind", "Pod"),
        ("reason", "BackOff"),
        ("source", "kubelet"),
        ("type", "Warning"),
    ] {
        assert!(fields.contains(&(expected.0, expected.1.into())), "{expected:?}");
    }
}

#[test]
fn the_newer_group_wants_its_own_fields() {
    use crate::registry::events::event::EventStrategy as Newer;
    invalid(
        &Newer,
        json!({"regarding": {"namespace": "default"}, "eventTime": "2026-01-01T00:09:00.000000Z", "type": "Odd", "reason": "r"}),
        &[
            "reportingController: Required value",
            "reportingInstance: Required value",
            "action: Required value",
            "type: Unsupported value: \"Odd\": supported values: \"Normal\", \"Warning\"",
        ],
    );
}
