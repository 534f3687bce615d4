//! The table columns of custom resources.

use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::path::Path;
use crate::registry::printing::human_duration;
use crate::registry::strategy::{Column, NAME};

/// The columns of a definition's version, with what each shows.
#[derive(Debug)]
pub struct Columns {
    /// The headings, that of the name first.
    pub headings: &'static [Column],
    cells: Vec<(Option<Path>, String)>,
}

impl Columns {
    /// Those that a definition names, or the age where it names none. The headings are kept for good.
    pub fn new(defined: &[CustomResourceColumnDefinition]) -> Self {
        let age = CustomResourceColumnDefinition {
            name: "Age".into(),
            type_: "date".into(),
            json_path: ".metadata.creationTimestamp".into(),
            description: Some(crate::registry::strategy::AGE.description.into()),
            ..CustomResourceColumnDefinition::default()
        };
        let all = if defined.is_empty() { std::slice::from_ref(&age) } else { defined };
        let keep = |text: &str| -> &'static str { api::kinds::custom::keep(text) };
        let heading = |c: &CustomResourceColumnDefinition| Column {
            name: keep(&c.name),
            type_: keep(&c.type_),
            format: keep(c.format.as_deref().unwrap_or_default()),
            description: keep(
                c.description.as_deref().unwrap_or("Custom resource definition column (in JSONPath format)"),
            ),
            priority: c.priority.unwrap_or(0),
        };
        let headings: Vec<Column> = std::iter::once(NAME).chain(all.iter().map(heading)).collect();
        Self {
            headings: Box::leak(headings.into_boxed_slice()),
            cells: all.iter().map(|c| (Path::parse(&c.json_path), c.type_.clone())).collect(),
        }
    }

    /// The cells of an object.
    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object.pointer("/metadata/name").cloned().unwrap_or_else(|| json!(""));
        let cell = |(path, type_): &(Option<Path>, String)| {
            let found = path.as_ref().map(|p| p.find(object)).unwrap_or_default();
            shown(&found, type_, now)
        };
        std::iter::once(name).chain(self.cells.iter().map(cell)).collect()
    }
}

fn shown(found: &[&Value], type_: &str, now: Timestamp) -> Value {
    let Some(first) = found.first() else { return Value::Null };
    match type_ {
        "date" => match first.as_str().map(str::parse::<Timestamp>) {
            Some(Ok(since)) => json!(human_duration(now.as_second() - since.as_second())),
            _ => json!("<unknown>"),
        },
        "integer" => match first {
            Value::Number(n) => {
                n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)).map_or(Value::Null, Value::from)
            }
            _ => Value::Null,
        },
        "number" if first.is_number() => (*first).clone(),
        "boolean" if first.is_boolean() => (*first).clone(),
        "string" => {
            let texts: Vec<String> =
                found.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            json!(texts.join(","))
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_shown_by_their_type() {
        let column = |type_: &str, path: &str| CustomResourceColumnDefinition {
            name: type_.into(),
            type_: type_.into(),
            json_path: path.into(),
            ..CustomResourceColumnDefinition::default()
        };
        let columns = Columns::new(&[
            column("integer", ".spec.n"),
            column("string", ".spec.list[*]"),
            column("date", ".spec.t"),
            column("boolean", ".spec.b"),
            column("string", ".spec.none"),
        ]);
        let object = json!({"metadata": {"name": "x"}, "spec": {"n": 3, "list": ["a", "b"], "t": "1970-01-01T00:00:00Z", "b": true}});
        let now: Timestamp = "1970-01-01T00:01:00Z".parse().expect("a time");
        assert_eq!(
            columns.row(&object, now),
            [json!("x"), json!(3), json!("a,b"), json!("60s"), json!(true), Value::Null]
        );
        assert_eq!(columns.headings.len(), 6);
        assert_eq!(Columns::new(&[]).headings[1].name, "Age");
    }
}
