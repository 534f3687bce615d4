//! Tables as servers print them (`meta.k8s.io/v1` Table).

use serde_json::Value;

use super::json;

/// A table with the objects behind its rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Columns; empty in the later events of a watch.
    pub columns: Vec<Column>,
    /// Rows.
    pub rows: Vec<Row>,
}

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Heading, before it is put in capitals.
    pub name: String,
    /// Above 0 it is for `-o wide` only.
    pub priority: i64,
    /// Whether it holds the object's name.
    pub is_name: bool,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// One text per column.
    pub cells: Vec<String>,
    /// The object, or its metadata alone.
    pub object: Value,
}

impl Row {
    /// A field of the object's metadata.
    pub fn meta(&self, field: &str) -> &str {
        self.object["metadata"][field].as_str().unwrap_or_default()
    }
}

impl Table {
    /// Reads a server's table; `None` if the document is no table.
    pub fn read(document: &Value) -> Option<Self> {
        if document["kind"] != "Table" {
            return None;
        }
        let columns = document["columnDefinitions"].as_array().into_iter().flatten().map(|c| Column {
            name: c["name"].as_str().unwrap_or_default().into(),
            priority: c["priority"].as_i64().unwrap_or(0),
            is_name: c["format"] == "name",
        });
        let rows = document["rows"].as_array().into_iter().flatten().map(|r| Row {
            cells: r["cells"].as_array().into_iter().flatten().map(cell).collect(),
            object: r["object"].clone(),
        });
        Some(Self { columns: columns.collect(), rows: rows.collect() })
    }

    /// The table of objects from a server that prints none.
    pub fn of_objects(objects: &[Value], now: jiff::Timestamp) -> Self {
        let column = |name: &str, is_name| Column { name: name.into(), priority: 0, is_name };
        let row = |object: &Value| Row {
            cells: vec![
                object["metadata"]["name"].as_str().unwrap_or_default().into(),
                crate::age::since(&object["metadata"]["creationTimestamp"], now),
            ],
            object: object.clone(),
        };
        Self {
            columns: vec![column("Name", true), column("Age", false)],
            rows: objects.iter().map(row).collect(),
        }
    }
}

/// A cell's text: the first line of a string, escaped so that it cannot drive the terminal.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => match text.find(['\n', '\r', '\u{c}']) {
            Some(end) => format!("{}...", escaped(&text[..end])),
            None => escaped(text),
        },
        Value::Number(n) => json::number(n),
        other => escaped(&json::compact(other)),
    }
}

/// Control characters made visible.
pub fn escaped(text: &str) -> String {
    if !text.contains(|c: char| c.is_control()) {
        return text.to_owned();
    }
    let visible = |c: char| match c {
        '\u{1b}' => "^[".to_owned(),
        c if c.is_control() && c != '\t' => format!("^{}", char::from((c as u8 & 0x1f) + b'@')),
        '\t' => " ".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_one_safe_line() {
        assert_eq!(cell(&json!("a\nb")), "a...");
        assert_eq!(cell(&json!("\u{1b}[31mred")), "^[[31mred");
        assert_eq!(cell(&json!(3)), "3");
        assert_eq!(cell(&Value::Null), "");
    }
}
