//! Tables on the terminal: headings, namespaces, labels, and widths that a watch remembers.

use super::table::{Column, Row, Table};
use super::tabwriter::TABLE;

/// How tables are printed.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `-o wide`.
    pub wide: bool,
    /// `--no-headers`.
    pub no_headers: bool,
    /// A NAMESPACE column first.
    pub with_namespace: bool,
    /// `--show-labels`.
    pub show_labels: bool,
    /// `-L`.
    pub label_columns: Vec<String>,
    /// What names are prefixed with, such as `deployment.apps`.
    pub prefix: Option<String>,
    /// An EVENT column first.
    pub with_event: bool,
}

/// Prints tables of one resource one after another with common column widths.
#[derive(Debug, Default)]
pub struct Printer {
    options: Options,
    columns: Vec<Column>,
    widths: Vec<usize>,
    headed: bool,
}

impl Printer {
    /// A printer that has printed nothing.
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// The lines of a table; headings come with the first.
    pub fn print(&mut self, table: &Table, event: &str) -> String {
        if !table.columns.is_empty() {
            if self.columns != table.columns {
                self.headed = false;
            }
            self.columns.clone_from(&table.columns);
        }
        let mut lines = Vec::new();
        if !self.headed && !self.options.no_headers && !self.columns.is_empty() {
            lines.push(self.heading());
        }
        self.headed = true;
        lines.extend(table.rows.iter().map(|row| self.row(row, event)));
        self.align(&lines)
    }

    fn shown(&self) -> impl Iterator<Item = (usize, &Column)> {
        self.columns.iter().enumerate().filter(|(_, c)| self.options.wide || c.priority == 0)
    }

    fn heading(&self) -> Vec<String> {
        let mut cells = Vec::new();
        if self.options.with_event {
            cells.push("EVENT".to_owned());
        }
        if self.options.with_namespace {
            cells.push("NAMESPACE".into());
        }
        cells.extend(self.shown().map(|(_, c)| c.name.to_uppercase()));
        for label in &self.options.label_columns {
            cells.push(label.rsplit('/').next().unwrap_or_default().to_uppercase());
        }
        if self.options.show_labels {
            cells.push("LABELS".into());
        }
        cells
    }

    fn row(&self, row: &Row, event: &str) -> Vec<String> {
        let mut cells = Vec::new();
        if self.options.with_event {
            cells.push(event.to_owned());
        }
        if self.options.with_namespace {
            cells.push(row.meta("namespace").into());
        }
        for (i, column) in self.shown() {
            let text = row.cells.get(i).map(String::as_str).unwrap_or_default();
            cells.push(match &self.options.prefix {
                Some(prefix) if column.is_name => format!("{prefix}/{text}"),
                _ => text.to_owned(),
            });
        }
        let labels = &row.object["metadata"]["labels"];
        for label in &self.options.label_columns {
            cells.push(labels[label].as_str().unwrap_or("<none>").into());
        }
        if self.options.show_labels {
            cells.push(labels_text(labels));
        }
        cells
    }

    fn align(&mut self, lines: &[Vec<String>]) -> String {
        for line in lines {
            let cells = line.len().saturating_sub(1);
            self.widths.resize(self.widths.len().max(cells), TABLE.min_width);
            for (width, cell) in self.widths.iter_mut().zip(&line[..cells]) {
                *width = (*width).max(cell.chars().count() + TABLE.padding);
            }
        }
        let mut out = String::new();
        for line in lines {
            for (i, cell) in line.iter().enumerate() {
                out.push_str(cell);
                if i + 1 < line.len() {
                    let pad = self.widths[i].saturating_sub(cell.chars().count());
                    out.extend(std::iter::repeat_n(' ', pad));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// `a=b,c=d` in the order of the keys, or `<none>`.
pub fn labels_text(labels: &serde_json::Value) -> String {
    let mut pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table() -> Table {
        Table::read(&json!({"kind": "Table",
            "columnDefinitions": [{"name": "Name", "format": "name"}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [{"cells": ["web", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "ns", "labels": {"a/app": "w", "b": "c"}}}},
                     {"cells": ["other-name", "0/1", "<none>"], "object": {"metadata": {"namespace": "default"}}}]}))
        .unwrap()
    }

    #[track_caller]
    fn check(options: Options, want: &str) {
        assert_eq!(Printer::new(options).print(&table(), "ADDED"), want);
    }

    #[test]
    fn columns_are_aligned_and_wide_ones_hidden() {
        check(Options::default(), "NAME         READY\nweb          1/1\nother-name   0/1\n");
        check(
            Options { wide: true, no_headers: true, ..Options::default() },
            "web          1/1   10.0.0.1\nother-name   0/1   <none>\n",
        );
    }

    #[test]
    fn namespaces_labels_and_kinds_are_added() {
        check(
            Options {
                with_namespace: true,
                show_labels: true,
                label_columns: vec!["a/app".into()],
                prefix: Some("pod".into()),
                ..Options::default()
            },
            "NAMESPACE   NAME             READY   APP      LABELS\nns          pod/web          1/1     w        a/app=w,b=c\ndefault     pod/other-name   0/1     <none>   <none>\n",
        );
    }

    #[test]
    fn a_watch_keeps_its_widths() {
        let mut printer = Printer::new(Options::default());
        printer.print(&table(), "");
        let mut later = table();
        later.columns.clear();
        later.rows.truncate(1);
        assert_eq!(printer.print(&later, ""), "web          1/1\n");
    }
}
