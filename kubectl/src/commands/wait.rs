//! `kubectl wait`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::jsonpath::Template;
use crate::manifest::FileArgs;
use crate::output::println;
use crate::resource::targets::{self, Filter, Target};
use crate::session::Session;

/// Wait for a specific condition on one or many resources
#[derive(Args, Debug)]
pub struct Wait {
    /// TYPE NAME... or TYPE/NAME...
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// create, delete, condition=NAME[=VALUE] or jsonpath='{PATH}'[=VALUE]
    #[arg(long = "for", default_value = "", hide_default_value = true)]
    pub condition: String,
    /// How long to wait; zero means to check once, negative a week
    #[arg(long, default_value = "30s", value_parser = crate::cli::patience, allow_hyphen_values = true)]
    pub timeout: Duration,
    /// Select all resources of the given types
    #[arg(long)]
    pub all: bool,
    /// Across all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Selector (field query) to filter on
    #[arg(long, default_value = "", hide_default_value = true)]
    pub field_selector: String,
    /// Output format: name
    #[arg(long, short = 'o', default_value = "", hide_default_value = true)]
    pub output: String,
}

/// What is waited for.
#[derive(Debug)]
enum For {
    Created,
    Deleted,
    Condition(String, String),
    Path(Template, Option<String>),
}

impl For {
    fn parse(text: &str) -> Result<Self> {
        let lower = text.to_lowercase();
        if lower == "delete" {
            return Ok(Self::Deleted);
        }
        if lower == "create" {
            return Ok(Self::Created);
        }
        if let Some(condition) = text.strip_prefix("condition=") {
            let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
            return Ok(Self::Condition(name.into(), value.into()));
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let (path, value) = match rest.find('}').filter(|_| rest.starts_with('{')) {
                Some(_) => {
                    let end = rest.rfind('}').map_or(rest.len(), |i| i + 1);
                    // The last brace may belong to the value; the path ends at the one that an `=` follows.
                    let end = rest.find("}=").map_or(end, |i| i + 1);
                    (&rest[..end], rest[end..].strip_prefix('='))
                }
                None => rest.split_once('=').map_or((rest, None), |(p, v)| (p, Some(v))),
            };
            let template = Template::parse_relaxed(path).map_err(Error::message)?;
            return Ok(Self::Path(template, value.map(str::to_owned)));
        }
        Err(Error::message(format!("unrecognized condition: {text:?}")))
    }

    /// Whether a state of an object, or its absence, is what is waited for.
    fn holds(&self, object: Option<&Value>) -> Result<bool> {
        Ok(match (self, object) {
            (Self::Deleted, object) => object.is_none(),
            (Self::Created, object) => object.is_some(),
            (_, None) => false,
            (Self::Condition(name, value), Some(object)) => {
                let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
                let mut same =
                    conditions.filter(|c| c["type"].as_str().is_some_and(|t| t.eq_ignore_ascii_case(name)));
                let observed = object["status"]["observedGeneration"].as_i64();
                let current =
                    observed.is_none_or(|o| o >= object["metadata"]["generation"].as_i64().unwrap_or(0));
                current && same.any(|c| c["status"].as_str().is_some_and(|s| s.eq_ignore_ascii_case(value)))
            }
            (Self::Path(template, wanted), Some(object)) => {
                let found = template.find(object).map_err(Error::message)?;
                match (wanted, found.as_slice()) {
                    (_, []) => false,
                    (None, _) => true,
                    (Some(wanted), [one]) => crate::jsonpath::text_of(one).trim() == wanted.trim(),
                    (Some(_), _) => {
                        return Err(Error::message("given jsonpath expression matches more than one value"));
                    }
                }
            }
        })
    }
}

impl Wait {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        if self.condition.is_empty() {
            return Err(Error::message(
                "--for is required: create, delete, condition=NAME or jsonpath='{PATH}'=VALUE",
            ));
        }
        let wanted = For::parse(&self.condition)?;
        let (targets, mut errors) =
            targets::resolve(session, &self.args, &self.files, self.all_namespaces).await?;
        let filter = Filter { labels: self.selector.clone(), fields: self.field_selector.clone() };
        let mut waiting: Vec<Target> = Vec::new();
        let deadline = tokio::time::Instant::now() + self.timeout;
        for target in targets {
            if target.name.is_some() {
                waiting.push(target);
                continue;
            }
            if !self.all && self.selector.is_empty() && self.field_selector.is_empty() {
                return Err(Error::message(
                    "resource(s) were provided, but no name, label selector, or --all flag specified",
                ));
            }
            match targets::list(session, &target, &filter).await {
                Ok(list) => {
                    waiting.extend(targets::items(&list).iter().map(|i| targets::narrowed(&target, i)))
                }
                Err(e) => errors.push(e),
            }
        }
        if waiting.is_empty() && errors.is_empty() && !matches!(wanted, For::Deleted) {
            return Err(Error::message("no matching resources found"));
        }
        for target in waiting {
            if let Err(e) = self.wait(session, &target, &wanted, deadline).await {
                errors.push(e);
            }
        }
        Error::from_list(errors)
    }

    async fn wait(
        &self,
        session: &Session,
        target: &Target,
        wanted: &For,
        deadline: tokio::time::Instant,
    ) -> Result<()> {
        let name = target.name.as_deref().unwrap_or_default();
        let needs_it = !matches!(wanted, For::Created | For::Deleted);
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let mut first = true;
        let mut absent_at_first = false;
        let see = |object: Option<&Value>| {
            if object.is_none() && needs_it {
                return Err(match std::mem::take(&mut first) {
                    true => not_found(target, name),
                    false => Error::message(format!("{} {name:?} was deleted", target.resource.qualified())),
                });
            }
            absent_at_first |= first && object.is_none();
            first = false;
            Ok(wanted.holds(object)?.then_some(()))
        };
        // At least one look, however little time there is.
        let left = left.max(Duration::from_millis(500));
        let outcome = crate::watch::until(session, target, Some(left), see).await?;
        match outcome {
            // Nothing is said of what was gone before.
            Some(()) if absent_at_first && matches!(wanted, For::Deleted) => Ok(()),
            Some(()) if self.output == "name" => println(target.resource.slashed(name)),
            Some(()) => println(format!(
                "{} {}",
                target.resource.slashed(name),
                match wanted {
                    For::Deleted => "deleted",
                    _ => "condition met",
                }
            )),
            None => Err(Error::message(format!(
                "timed out waiting for the condition on {}/{name}",
                target.resource.plural
            ))),
        }
    }
}

fn not_found(target: &Target, name: &str) -> Error {
    let status = k8s_openapi::apimachinery::pkg::apis::meta::v1::Status {
        code: Some(404),
        reason: Some("NotFound".into()),
        message: Some(format!("{} {name:?} not found", target.resource.qualified())),
        ..Default::default()
    };
    Error::Status(Box::new(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(wanted: &str, object: Value, want: bool) {
        let wanted = For::parse(wanted).unwrap();
        assert_eq!(wanted.holds(Some(&object)).unwrap(), want);
    }

    #[test]
    fn conditions_and_paths_are_compared() {
        let pod =
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        check("condition=Ready", pod.clone(), true);
        check("condition=ready=true", pod.clone(), true);
        check("condition=Ready=False", pod.clone(), false);
        check("jsonpath={.status.phase}=Running", pod.clone(), true);
        check("jsonpath=.status.phase=Pending", pod.clone(), false);
        check("jsonpath={.status.phase}", pod.clone(), true);
        check("jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True", pod, true);
        let stale = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}});
        check("condition=Available", stale, false);
        assert!(For::parse("delete").unwrap().holds(None).unwrap());
        assert!(For::parse("nonsense").is_err());
    }
}
