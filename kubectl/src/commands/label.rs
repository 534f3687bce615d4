//! `kubectl label` and `kubectl annotate`.

use clap::Args;
use serde_json::{Map, Value, json};

use super::change::{ChangeArgs, send_patch};
use crate::apply::{MERGE, Patch};
use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::output::println;
use crate::resource::targets::{self, Filter, Found};
use crate::session::Session;

/// Update the labels on a resource
#[derive(Args, Debug)]
pub struct Label {
    #[command(flatten)]
    common: Common,
}

/// Update the annotations on a resource
#[derive(Args, Debug)]
pub struct Annotate {
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct Common {
    /// TYPE NAME or TYPE/NAME, then KEY=VALUE... or KEY-
    args: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    change: ChangeArgs,
    /// Allow values to be overwritten
    #[arg(long)]
    overwrite: bool,
    /// Select all resources of the given types
    #[arg(long)]
    all: bool,
    /// Across all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    selector: String,
    /// Selector (field query) to filter on
    #[arg(long, default_value = "", hide_default_value = true)]
    field_selector: String,
    /// Display the labels or annotations
    #[arg(long)]
    list: bool,
    /// Only change what has this resource version
    #[arg(long, default_value = "", hide_default_value = true)]
    resource_version: String,
}

impl Label {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        self.common.run(session, &LABELS).await
    }
}

impl Annotate {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        self.common.run(session, &ANNOTATIONS).await
    }
}

/// What differs between the two commands.
struct Field {
    name: &'static str,
    one: &'static str,
    manager: &'static str,
    changed: &'static str,
}

static LABELS: Field = Field { name: "labels", one: "label", manager: "kubectl-label", changed: "labeled" };
static ANNOTATIONS: Field =
    Field { name: "annotations", one: "annotation", manager: "kubectl-annotate", changed: "annotated" };

/// What is to be set (`Some`) and removed (`None`).
type Changes = Vec<(String, Option<String>)>;

impl Common {
    async fn run(self, session: &Session, field: &Field) -> Result<()> {
        let (words, args) = split(&self.args);
        let changes = parse(&words, field)?;
        if changes.is_empty() && !self.list {
            return Err(Error::message(format!("at least one {} update is required", field.one)));
        }
        let mut format = self.change.format()?;
        let (targets, mut errors) =
            targets::resolve(session, &args, &self.files, self.all_namespaces).await?;
        let selecting = self.all || !self.selector.is_empty() || !self.field_selector.is_empty() || self.list;
        if targets.is_empty() && errors.is_empty() {
            return Err(Error::message(
                "one or more resources must be specified as <resource> <name> or <resource>/<name>",
            ));
        }
        if targets.iter().any(|t| t.name.is_none()) && !selecting {
            return Err(Error::message("resource(s) were provided, but no name was specified"));
        }
        let filter = Filter { labels: self.selector.clone(), fields: self.field_selector.clone() };
        let (found, failed) = targets::fetch(session, &targets, &filter).await;
        errors.extend(failed);
        for one in found {
            if self.list {
                show(&one.object, field)?;
                continue;
            }
            match self.change_one(session, &one, &changes, field).await {
                Ok((object, what)) => self.change.print(&mut format, &object, &what)?,
                Err(e) => errors.push(e),
            }
        }
        Error::from_list(errors)
    }

    async fn change_one(
        &self,
        session: &Session,
        found: &Found,
        changes: &Changes,
        field: &Field,
    ) -> Result<(Value, String)> {
        let present = found.object["metadata"][field.name].as_object().cloned().unwrap_or_default();
        if !self.overwrite {
            refuse_overwrite(&present, changes, field)?;
        }
        for (key, _) in changes.iter().filter(|(k, v)| v.is_none() && !present.contains_key(k)) {
            println(format!("{} {key:?} not found.", field.one))?;
        }
        let (merged, what) = merge(&present, changes, field);
        let mut after = found.object.clone();
        after["metadata"][field.name] = Value::Object(merged);
        let body: Map<String, Value> = changes.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let mut body = json!({"metadata": {field.name: body}});
        if !self.resource_version.is_empty() {
            body["metadata"]["resourceVersion"] = json!(self.resource_version);
        }
        if after["metadata"][field.name] == Value::Object(present) && self.resource_version.is_empty() {
            return Ok((found.object.clone(), what));
        }
        let patch = Patch { content_type: MERGE, body };
        let object =
            send_patch(session, &self.change, found.target.path(), &patch, field.manager, after).await?;
        Ok((object, what))
    }
}

/// Separates `KEY=VALUE` and `KEY-` from what names objects.
fn split(args: &[String]) -> (Vec<String>, Vec<String>) {
    let is_change = |arg: &String| arg.contains('=') || (arg.ends_with('-') && arg.len() > 1);
    let at = args.iter().position(is_change).unwrap_or(args.len());
    (args[at..].to_vec(), args[..at].to_vec())
}

fn parse(words: &[String], field: &Field) -> Result<Changes> {
    let mut changes = Changes::new();
    for word in words {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => match word.strip_suffix('-') {
                Some(key) => (key, None),
                None => {
                    return Err(Error::message(format!(
                        "all {} must be specified before the {} changes: {word}",
                        "resources", field.one
                    )));
                }
            },
        };
        if key.is_empty() {
            return Err(Error::message(format!("invalid {} spec: {word}", field.one)));
        }
        if changes.iter().any(|(have, v)| have == key && v.is_some() != value.is_some()) {
            return Err(Error::message(format!(
                "can not both modify and remove a {} in the same command",
                field.one
            )));
        }
        changes.push((key.to_owned(), value));
    }
    Ok(changes)
}

fn refuse_overwrite(present: &Map<String, Value>, changes: &Changes, field: &Field) -> Result<()> {
    for (key, value) in changes {
        if let (Some(value), Some(have)) = (value, present.get(key).and_then(Value::as_str))
            && have != value
        {
            return Err(Error::message(match field.one {
                "label" => format!("'{key}' already has a value ({have}), and --overwrite is false"),
                _ => format!(
                    "--overwrite is false but found the following declared annotation(s): '{key}' already has a value ({have})"
                ),
            }));
        }
    }
    Ok(())
}

fn merge(present: &Map<String, Value>, changes: &Changes, field: &Field) -> (Map<String, Value>, String) {
    let mut merged = present.clone();
    let (mut set, mut removed) = (false, false);
    for (key, value) in changes {
        match value {
            Some(value) => set |= merged.insert(key.clone(), json!(value)) != Some(json!(value)),
            None => removed |= merged.remove(key).is_some(),
        }
    }
    let what = match (field.one, set, removed) {
        ("annotation", ..) => field.changed.to_owned(),
        (_, true, _) => field.changed.to_owned(),
        (_, false, true) => "unlabeled".into(),
        (_, false, false) => "not labeled".into(),
    };
    (merged, what)
}

fn show(object: &Value, field: &Field) -> Result<()> {
    let name = crate::output::printer::name_of(object);
    println(format!("Listing {} for {name}:", field.name))?;
    let mut pairs: Vec<(&String, &Value)> =
        object["metadata"][field.name].as_object().into_iter().flatten().collect();
    pairs.sort_by_key(|(key, _)| *key);
    pairs.into_iter().try_for_each(|(k, v)| println(format!("{k}={}", v.as_str().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_from_names() {
        let args: Vec<String> = ["pods", "web", "a=b", "c-"].map(String::from).to_vec();
        let (changes, names) = split(&args);
        assert_eq!(names, ["pods", "web"]);
        assert_eq!(parse(&changes, &LABELS).unwrap(), [("a".into(), Some("b".into())), ("c".into(), None)]);
        assert!(parse(&["a=b".into(), "a-".into()], &LABELS).is_err());
    }

    #[test]
    fn the_message_tells_what_happened() {
        let present: Map<String, Value> = [("a".to_owned(), json!("b"))].into_iter().collect();
        let what = |changes: Changes| merge(&present, &changes, &LABELS).1;
        assert_eq!(what(vec![("x".into(), Some("y".into()))]), "labeled");
        assert_eq!(what(vec![("a".into(), Some("b".into()))]), "not labeled");
        assert_eq!(what(vec![("a".into(), None)]), "unlabeled");
    }
}
