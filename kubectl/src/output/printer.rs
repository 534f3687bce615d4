//! `-o`: which format, and objects in it.

use serde_json::{Value, json};

use super::custom_columns::Columns;
use super::{json as json_format, yaml};
use crate::error::{Error, Result};
use crate::jsonpath::Template;

/// An output format.
#[derive(Debug, Clone)]
pub enum Format {
    /// Tables and one-line messages; true for `wide`.
    Human(bool),
    /// `-o json`.
    Json,
    /// `-o yaml`.
    Yaml,
    /// `-o name`.
    Name,
    /// `-o jsonpath=…`.
    JsonPath(Template),
    /// `-o jsonpath-as-json=…`.
    JsonPathAsJson(Template),
    /// `-o custom-columns=…`.
    Columns(Columns),
}

/// Flags that refine a format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Refinements<'a> {
    /// `--template`.
    pub template: &'a str,
    /// `--no-headers`.
    pub no_headers: bool,
    /// `--allow-missing-template-keys`.
    pub strict: bool,
}

impl Format {
    /// Parses the value of `-o`.
    pub fn parse(output: &str, refine: Refinements<'_>) -> Result<Self> {
        let (name, argument) = output.split_once('=').unwrap_or((output, refine.template));
        let template = |text: &str| {
            let parsed = Template::parse(text)
                .map_err(|e| Error::message(format!("error parsing jsonpath {text}, {e}")))?;
            Ok::<_, Error>(if refine.strict { parsed.strict() } else { parsed })
        };
        let given = |text: &str| match text.is_empty() {
            true => Err(Error::message("template format specified but no template given")),
            false => Ok(()),
        };
        let file = || {
            std::fs::read_to_string(argument)
                .map_err(|e| Error::message(format!("error reading --template {argument}, {e}")))
        };
        Ok(match name {
            "" => Self::Human(false),
            "wide" => Self::Human(true),
            "json" => Self::Json,
            "yaml" => Self::Yaml,
            "name" => Self::Name,
            "jsonpath" => {
                given(argument)?;
                Self::JsonPath(template(argument)?)
            }
            "jsonpath-as-json" => {
                given(argument)?;
                Self::JsonPathAsJson(template(argument)?)
            }
            "jsonpath-file" => Self::JsonPath(template(file()?.trim_end_matches('\n'))?),
            "custom-columns" => Self::Columns(Columns::parse(argument, refine.no_headers)?),
            "custom-columns-file" => Self::Columns(Columns::parse_file(&file()?, refine.no_headers)?),
            "go-template" | "go-template-file" | "template" | "templatefile" => {
                return Err(Error::message(format!(
                    "output format {name:?} is not supported: use jsonpath or custom-columns"
                )));
            }
            _ => {
                return Err(Error::message(format!(
                    "unable to match a printer suitable for the output format {output:?}, allowed formats are: custom-columns,custom-columns-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,wide,yaml"
                )));
            }
        })
    }

    /// Whether this is for people rather than for programs.
    pub fn is_human(&self) -> bool {
        matches!(self, Self::Human(_))
    }

    /// Whether this prints whole objects, from which managed fields are left out.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }

    /// An object, or a list, in this format. Human output is printed elsewhere.
    pub fn render(&mut self, value: &Value) -> Result<String> {
        Ok(match self {
            Self::Human(_) => String::new(),
            Self::Json => json_format::pretty(value),
            Self::Yaml => yaml::document(value),
            Self::Name => match value["items"].as_array() {
                Some(items) => items.iter().map(|i| name_of(i) + "\n").collect(),
                None => name_of(value) + "\n",
            },
            Self::JsonPath(template) => evaluated(template, value, |t| t.render(value))?,
            Self::JsonPathAsJson(template) => {
                let found = evaluated(template, value, |t| t.find(value).map(|f| json!(f)))?;
                json_format::pretty(&found)
            }
            Self::Columns(columns) => columns.render(value)?,
        })
    }
}

fn evaluated<T>(
    template: &Template,
    value: &Value,
    f: impl FnOnce(&Template) -> Result<T, crate::jsonpath::EvalError>,
) -> Result<T> {
    f(template).map_err(|e| {
        let shown = json_format::compact(value);
        let shown: String = shown.chars().take(2000).collect();
        Error::message(format!(
            "error executing jsonpath: Error executing template: {e}. Printing more information for debugging the template:\n\tobject given to jsonpath engine was:\n\t\t{shown}\n"
        ))
    })
}

/// `deployment.apps/web` of an object.
pub fn name_of(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match api_version.split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

/// Leaves out the managed fields of an object or of a list's items.
pub fn without_managed_fields(value: &mut Value) {
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        without_managed_fields(item);
    }
}

/// Prints what a change did: `deployment.apps/web scaled`, or the object in another format.
pub fn print_change(format: &mut Format, object: &Value, what: &str) -> Result<()> {
    match format {
        Format::Human(_) => super::println(format!("{} {what}", name_of(object))),
        other => {
            let mut shown = object.clone();
            without_managed_fields(&mut shown);
            super::print(&other.render(&shown)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(output: &str, want: &str) {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
        let rendered = Format::parse(output, Refinements::default()).and_then(|mut f| f.render(&object));
        assert_eq!(rendered.unwrap_or_else(|e| e.report()), want);
    }

    #[test]
    fn formats_are_named_as_upstream_names_them() {
        check("name", "deployment.apps/web\n");
        check("yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n");
        check("jsonpath={.metadata.name}", "web");
        check("jsonpath-as-json={.metadata.name}", "[\n    \"web\"\n]\n");
        check("custom-columns=N:.metadata.name", "N\nweb\n");
        check("jsonpath", "error: template format specified but no template given");
        check(
            "go-template={{.x}}",
            "error: output format \"go-template\" is not supported: use jsonpath or custom-columns",
        );
    }

    #[test]
    fn managed_fields_are_left_out_of_items_too() {
        let mut list = json!({"items": [{"metadata": {"name": "a", "managedFields": []}}]});
        without_managed_fields(&mut list);
        assert_eq!(list, json!({"items": [{"metadata": {"name": "a"}}]}));
    }
}
