//! `kubectl get`: one or many resources.

use clap::Args;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::jsonpath::Template;
use crate::manifest::FileArgs;
use crate::output::human::{Options, Printer};
use crate::output::printer::{Format, Refinements, without_managed_fields};
use crate::output::table::Table;
use crate::output::{print, warn};
use crate::resource::targets::{self, Filter, Target};
use crate::session::{Call, JSON, Session, TABLE};

mod sort;
mod watch;

/// Display one or many resources
#[derive(Args, Debug)]
pub struct Get {
    /// TYPE[,TYPE...] [NAME...] or TYPE/NAME...
    #[arg(value_name = "TYPE/NAME")]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// List the requested objects across all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Selector (field query) to filter on
    #[arg(long, default_value = "", hide_default_value = true)]
    pub field_selector: String,
    /// Output format: json, yaml, name, wide, jsonpath=..., jsonpath-file=..., custom-columns=...
    #[arg(long, short = 'o', default_value = "", hide_default_value = true)]
    pub output: String,
    /// Template for -o jsonpath
    #[arg(long, default_value = "", hide_default_value = true)]
    pub template: String,
    /// If true, ignore fields that a template asks for and that are missing
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub allow_missing_template_keys: bool,
    /// Show all labels as the last column
    #[arg(long)]
    pub show_labels: bool,
    /// Labels that are presented as columns
    #[arg(long, short = 'L', value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// Do not print headers
    #[arg(long)]
    pub no_headers: bool,
    /// Prefix names with their resource type
    #[arg(long)]
    pub show_kind: bool,
    /// Keep the managedFields when printing objects in JSON or YAML
    #[arg(long)]
    pub show_managed_fields: bool,
    /// Sort by a field given as a JSONPath expression, such as '{.metadata.name}'
    #[arg(long, default_value = "", hide_default_value = true)]
    pub sort_by: String,
    /// After listing, watch for changes
    #[arg(long, short = 'w')]
    pub watch: bool,
    /// Watch for changes without listing first
    #[arg(long)]
    pub watch_only: bool,
    /// Output watch event objects
    #[arg(long)]
    pub output_watch_events: bool,
    /// Return exit code 0 if an object does not exist
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Return large lists in chunks; 0 disables
    #[arg(long, default_value_t = 500)]
    pub chunk_size: u64,
    /// Operate on a subresource of the requested object
    #[arg(long, default_value = "", hide_default_value = true)]
    pub subresource: String,
    /// Raw URI to request from the server
    #[arg(long)]
    pub raw: Option<String>,
    /// Have the server print tables
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub server_print: bool,
}

/// What one target answered.
struct Answer {
    target: Target,
    document: Value,
}

impl Get {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        if let Some(uri) = &self.raw {
            let bytes = session.bytes(&Call::get(uri.clone())).await?;
            return print(&String::from_utf8_lossy(&bytes));
        }
        if self.args.is_empty() && self.files.is_empty() {
            return Err(Error::usage(
                "get",
                "You must specify the type of resource to get. Use \"kubectl api-resources\" for a complete list of supported resources.\n\nerror: Required resource not specified.",
            ));
        }
        let refine = Refinements {
            template: &self.template,
            no_headers: self.no_headers,
            strict: !self.allow_missing_template_keys,
        };
        let format = Format::parse(&self.output, refine)?;
        let sort = match self.sort_by.as_str() {
            "" => None,
            path => Some(Template::parse_relaxed(path).map_err(Error::message)?),
        };
        let (targets, mut errors) =
            targets::resolve(session, &self.args, &self.files, self.all_namespaces).await?;
        if self.watch || self.watch_only {
            Error::from_list(errors)?;
            return self.follow(session, targets, format).await;
        }
        let asked = targets.iter().map(|t| self.ask(session, t, &format, sort.is_some()));
        let mut answers = Vec::new();
        for (target, outcome) in targets.iter().zip(join_all(asked).await) {
            match outcome {
                Ok(document) => answers.push(Answer { target: target.clone(), document }),
                Err(e) if e.is_not_found() && self.ignore_not_found => {}
                Err(e) => errors.push(e),
            }
        }
        match format {
            Format::Human(wide) => {
                self.print_tables(session, &answers, &targets, wide, sort.as_ref(), errors.is_empty()).await?
            }
            format => self.print_objects(format, answers, &targets, sort.as_ref())?,
        }
        Error::from_list(errors)
    }

    fn filter(&self) -> Filter {
        Filter { labels: self.selector.clone(), fields: self.field_selector.clone() }
    }

    /// The request for a target, for tables or for objects.
    fn call(&self, target: &Target, human: bool, whole: bool) -> Call {
        let call = match &target.name {
            Some(_) if self.subresource.is_empty() => Call::get(target.path()),
            Some(_) => Call::get(format!("{}/{}", target.path(), self.subresource)),
            None => targets::collection(target, &self.filter()),
        };
        let call = call.accept(if human && self.server_print { TABLE } else { JSON });
        if human && whole { call.query("includeObject", "Object") } else { call }
    }

    async fn ask(&self, session: &Session, target: &Target, format: &Format, whole: bool) -> Result<Value> {
        if target.name.is_none() && target.document.is_some() {
            return Err(Error::message("resource name may not be empty"));
        }
        let call = self.call(target, format.is_human(), whole);
        match target.name {
            Some(_) => session.json(&call).await,
            None => targets::pages(session, &call, self.chunk_size).await,
        }
    }

    fn options(&self, target: &Target, wide: bool, several: bool) -> Options {
        Options {
            wide,
            no_headers: self.no_headers,
            with_namespace: self.all_namespaces && target.resource.namespaced,
            show_labels: self.show_labels,
            label_columns: self.label_columns.clone(),
            prefix: (several || self.show_kind).then(|| target.resource.singular_qualified()),
            with_event: self.output_watch_events,
        }
    }

    async fn print_tables(
        &self,
        session: &Session,
        answers: &[Answer],
        targets: &[Target],
        wide: bool,
        sort: Option<&Template>,
        no_errors: bool,
    ) -> Result<()> {
        let first = targets.first().map(|t| &t.resource);
        let several = targets.iter().any(|t| Some(&t.resource) != first);
        let mut out = String::new();
        let groups = answers.chunk_by(|a, b| a.target.resource == b.target.resource);
        for group in groups {
            let mut whole = Table::default();
            for answer in group {
                let table = as_table(session, &answer.document);
                if whole.columns.is_empty() {
                    whole.columns = table.columns;
                }
                whole.rows.extend(table.rows);
            }
            if whole.rows.is_empty() {
                continue;
            }
            if let Some(path) = sort {
                sort::rows(&mut whole.rows, path)?;
            }
            if !out.is_empty() {
                out.push('\n');
            }
            let mut printer = Printer::new(self.options(&group[0].target, wide, several));
            out.push_str(&printer.print(&whole, ""));
        }
        if out.is_empty() && no_errors && !self.ignore_not_found {
            let namespaced = targets.iter().any(|t| t.resource.namespaced);
            warn(match self.all_namespaces || !namespaced {
                true => "No resources found".to_owned(),
                false => format!("No resources found in {} namespace.", session.namespace().await?),
            });
        }
        print(&out)
    }

    fn print_objects(
        &self,
        mut format: Format,
        answers: Vec<Answer>,
        targets: &[Target],
        sort: Option<&Template>,
    ) -> Result<()> {
        let single = matches!(targets, [one] if one.name.is_some());
        let mut document = match (single, answers) {
            (true, mut answers) => match answers.pop() {
                Some(answer) => answer.document,
                None => return Ok(()),
            },
            (false, answers) if answers.is_empty() && !targets.is_empty() => return Ok(()),
            (false, answers) => {
                let mut items: Vec<Value> = Vec::new();
                for answer in answers {
                    match answer.target.name {
                        Some(_) => items.push(answer.document),
                        None => items.extend(targets::items(&answer.document)),
                    }
                }
                if let Some(path) = sort {
                    sort::objects(&mut items, path)?;
                }
                json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
            }
        };
        if format.is_whole() && !self.show_managed_fields {
            without_managed_fields(&mut document);
        }
        print(&format.render(&document)?)
    }
}

/// A server's table, or one made of its objects.
fn as_table(session: &Session, document: &Value) -> Table {
    Table::read(document).unwrap_or_else(|| match document["items"].is_array() {
        true => Table::of_objects(&targets::items(document), session.clock.now()),
        false => Table::of_objects(std::slice::from_ref(document), session.clock.now()),
    })
}
