//! The text of a description: indented lines whose cells are aligned in columns.

use jiff::Timestamp;
use serde_json::Value;

use crate::age;
use crate::output::tabwriter::{DESCRIBE, align};

/// A description that is being written.
#[derive(Debug, Default)]
pub struct Doc {
    done: String,
    pending: String,
    raw: bool,
}

const SKIPPED_ANNOTATION: &str = crate::apply::LAST_APPLIED;
const MAX_ANNOTATION: usize = 140;

impl Doc {
    /// A document that is not aligned.
    pub fn unaligned() -> Self {
        Self { raw: true, ..Self::default() }
    }

    /// A line, two spaces further in per level.
    pub fn line(&mut self, level: usize, text: impl AsRef<str>) {
        self.pending.extend(std::iter::repeat_n("  ", level));
        self.pending.push_str(text.as_ref());
        self.pending.push('\n');
    }

    /// `Key:` and its value.
    pub fn field(&mut self, level: usize, key: &str, value: impl std::fmt::Display) {
        self.line(level, format!("{key}:\t{value}"));
    }

    /// A value that is left out where it is empty.
    pub fn optional(&mut self, level: usize, key: &str, value: &Value) {
        if let Some(text) = text_of(value) {
            self.field(level, key, text);
        }
    }

    /// Ends the columns so far.
    pub fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.done.push_str(&if self.raw { pending } else { align(&pending, DESCRIBE) });
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        self.flush();
        self.done
    }

    /// `Labels:` with one pair per line.
    pub fn pairs(&mut self, title: &str, labels: &Value) {
        let mut pairs: Vec<String> = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
            .collect();
        pairs.sort();
        self.several(title, &pairs);
    }

    /// A title, and values below each other; `<none>` for no value.
    pub fn several(&mut self, title: &str, values: &[String]) {
        let none = ["<none>".to_owned()];
        let values = if values.is_empty() { &none[..] } else { values };
        for (i, value) in values.iter().enumerate() {
            let title = if i == 0 { format!("{title}:") } else { String::new() };
            self.line(0, format!("{title}\t{value}"));
        }
    }

    /// `Annotations:`, long ones on lines of their own.
    pub fn annotations(&mut self, title: &str, annotations: &Value) {
        let mut pairs: Vec<(&String, &str)> = annotations
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(k, _)| *k != SKIPPED_ANNOTATION)
            .map(|(k, v)| (k, v.as_str().unwrap_or_default()))
            .collect();
        pairs.sort();
        if pairs.is_empty() {
            return self.field(0, title, "<none>");
        }
        for (i, (key, value)) in pairs.into_iter().enumerate() {
            let title = if i == 0 { format!("{title}:") } else { String::new() };
            let value = value.strip_suffix('\n').unwrap_or(value);
            if key.len() + value.len() + 2 <= MAX_ANNOTATION && !value.contains('\n') {
                self.line(0, format!("{title}\t{key}: {value}"));
                continue;
            }
            self.line(0, format!("{title}\t{key}:"));
            for line in value.split('\n') {
                self.line(0, format!("\t  {}", shorten(line, MAX_ANNOTATION - 2)));
            }
        }
    }

    /// Name, namespace, labels and annotations, with which most descriptions begin.
    pub fn heading(&mut self, object: &Value) {
        let meta = &object["metadata"];
        self.field(0, "Name", meta["name"].as_str().unwrap_or_default());
        self.optional(0, "Namespace", &meta["namespace"]);
        self.pairs("Labels", &meta["labels"]);
        self.annotations("Annotations", &meta["annotations"]);
    }

    /// `Controlled By:` if something does.
    pub fn controller(&mut self, object: &Value) {
        let mut owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        if let Some(owner) = owners.find(|o| o["controller"] == true) {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            self.field(0, "Controlled By", format!("{}/{}", text(&owner["kind"]), text(&owner["name"])));
        }
    }

    /// `Conditions:` of workloads.
    pub fn conditions(&mut self, conditions: &Value) {
        let Some(list) = conditions.as_array().filter(|l| !l.is_empty()) else { return };
        self.line(0, "Conditions:");
        self.line(1, "Type\tStatus\tReason");
        self.line(1, "----\t------\t------");
        for condition in list {
            let text = |f: &str| condition[f].as_str().unwrap_or_default();
            self.line(1, format!("{} \t{}\t{}", text("type"), text("status"), text("reason")));
        }
    }

    /// `Events:`, oldest first.
    pub fn events(&mut self, events: &[Value], now: Timestamp) {
        if events.is_empty() {
            return self.field(0, "Events", "<none>");
        }
        self.flush();
        let mut events: Vec<&Value> = events.iter().collect();
        events.sort_by_key(|e| age::parse(&e["lastTimestamp"]));
        self.line(0, "Events:");
        self.line(1, "Type\tReason\tAge\tFrom\tMessage");
        self.line(1, "----\t------\t----\t----\t-------");
        for event in events {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let source = match event["source"]["component"].as_str() {
                Some(source) if !source.is_empty() => source.to_owned(),
                _ => text(&event["reportingComponent"]),
            };
            self.line(
                1,
                format!(
                    "{}\t{}\t{}\t{source}\t{}",
                    text(&event["type"]),
                    text(&event["reason"]),
                    interval(event, now),
                    text(&event["message"]).trim()
                ),
            );
        }
    }
}

/// How long ago an event was, and how often within what time.
fn interval(event: &Value, now: Timestamp) -> String {
    let first = match event["eventTime"].is_string() {
        true => age::since(&event["eventTime"], now),
        false => age::since(&event["firstTimestamp"], now),
    };
    let (last, count) = match event["series"].is_object() {
        true => (&event["series"]["lastObservedTime"], event["series"]["count"].as_i64().unwrap_or(0)),
        false => (&event["lastTimestamp"], event["count"].as_i64().unwrap_or(0)),
    };
    if count > 1 || event["series"].is_object() {
        format!("{} (x{count} over {first})", age::since(last, now))
    } else {
        first
    }
}

fn shorten(text: &str, length: usize) -> String {
    if text.chars().count() > length {
        text.chars().take(length).chain("...".chars()).collect()
    } else {
        text.into()
    }
}

/// A scalar's text; `None` for what is unset or empty.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        other => Some(crate::jsonpath::text_of(other)),
    }
}

/// `a=b,c=d`, or `<none>`.
pub fn joined(labels: &Value) -> String {
    crate::output::human::labels_text(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_tell_how_often_and_when() {
        let now: Timestamp = "2024-01-01T01:00:00Z".parse().unwrap();
        let mut doc = Doc::default();
        doc.field(0, "A very long title", "x");
        doc.events(
            &[
                json!({"type": "Warning", "reason": "BackOff", "count": 3, "firstTimestamp": "2024-01-01T00:50:00Z", "lastTimestamp": "2024-01-01T00:59:50Z", "source": {"component": "kubelet"}, "message": "m\n"}),
                json!({"type": "Normal", "reason": "Scheduled", "firstTimestamp": "2024-01-01T00:30:00Z", "lastTimestamp": "2024-01-01T00:30:00Z", "source": {"component": "s"}, "message": "n"}),
            ],
            now,
        );
        assert_eq!(
            doc.finish(),
            "A very long title:  x\nEvents:\n  Type     Reason     Age                From     Message\n  ----     ------     ----               ----     -------\n  Normal   Scheduled  30m                s        n\n  Warning  BackOff    10s (x3 over 10m)  kubelet  m\n"
        );
    }

    #[test]
    fn annotations_that_are_long_get_lines_of_their_own() {
        let mut doc = Doc::default();
        doc.annotations("Annotations", &json!({"a": "b", "c": "1\n2", SKIPPED_ANNOTATION: "x"}));
        assert_eq!(
            doc.finish(),
            "Annotations:  a: b\n              c:\n                1\n                2\n"
        );
    }
}
