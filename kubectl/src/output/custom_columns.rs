//! `-o custom-columns=NAME:.metadata.name,…`.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::jsonpath::{Template, text_of};

/// Headings and the paths below them.
#[derive(Debug, Clone)]
pub struct Columns {
    columns: Vec<(String, Template)>,
    headed: bool,
}

impl Columns {
    /// Parses `HEADING:path,…`.
    pub fn parse(spec: &str, no_headers: bool) -> Result<Self> {
        if spec.is_empty() {
            return Err(Error::message("custom-columns format specified but no custom columns given"));
        }
        let mut columns = Vec::new();
        for part in split(spec) {
            let bad = || {
                Error::message(format!(
                    "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                ))
            };
            let (heading, path) = part.split_once(':').ok_or_else(bad)?;
            columns.push((heading.to_owned(), Self::path(path)?));
        }
        Ok(Self { columns, headed: no_headers })
    }

    /// Parses a file: headings on the first line, paths on the second.
    pub fn parse_file(text: &str, no_headers: bool) -> Result<Self> {
        let mut lines = text.lines();
        let mut words = || lines.next().unwrap_or_default().split_whitespace();
        let (headings, paths): (Vec<&str>, Vec<&str>) = (words().collect(), words().collect());
        if headings.len() != paths.len() || headings.is_empty() {
            return Err(Error::message(format!(
                "number of headers ({}) and field specifications ({}) don't match",
                headings.len(),
                paths.len()
            )));
        }
        let columns = headings.into_iter().zip(paths).map(|(h, p)| Ok((h.to_owned(), Self::path(p)?)));
        Ok(Self { columns: columns.collect::<Result<_>>()?, headed: no_headers })
    }

    fn path(path: &str) -> Result<Template> {
        Template::parse_relaxed(path).map_err(Error::message)
    }

    /// The lines of an object, or of a list's items.
    pub fn render(&mut self, value: &Value) -> Result<String> {
        let mut lines = Vec::new();
        if !self.headed {
            let headings: Vec<&str> = self.columns.iter().map(|(h, _)| h.as_str()).collect();
            lines.push(headings.join("\t"));
            self.headed = true;
        }
        match value["items"].as_array() {
            Some(items) => {
                for item in items {
                    lines.push(self.line(item)?);
                }
            }
            None => lines.push(self.line(value)?),
        }
        if lines.is_empty() {
            return Ok(String::new());
        }
        lines.push(String::new());
        Ok(super::tabwriter::align(&lines.join("\n"), super::tabwriter::TABLE))
    }

    fn line(&self, object: &Value) -> Result<String> {
        let mut cells = Vec::new();
        for (_, path) in &self.columns {
            let found = path.find(object).map_err(Error::message)?;
            let texts: Vec<String> = found.into_iter().filter(|v| !v.is_null()).map(text_of).collect();
            cells.push(if texts.is_empty() {
                "<none>".into()
            } else {
                super::table::escaped(&texts.join(","))
            });
        }
        Ok(cells.join("\t"))
    }
}

/// Splits at commas that are not within brackets.
fn split(spec: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0i32, 0, Vec::new());
    for (i, c) in spec.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            ',' if depth <= 0 => {
                parts.push(&spec[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&spec[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_show_what_their_paths_find() {
        let list =
            json!({"items": [{"metadata": {"name": "a"}, "x": [1, 2]}, {"metadata": {"name": "long-name"}}]});
        let mut columns =
            Columns::parse("NAME:.metadata.name,X:x[*],IMAGES:.spec[?(@.a==1)].b", false).unwrap();
        assert_eq!(
            columns.render(&list).unwrap(),
            "NAME        X        IMAGES\na           1,2      <none>\nlong-name   <none>   <none>\n"
        );
        assert!(Columns::parse("NAME", false).is_err());
    }
}
