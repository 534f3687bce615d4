//! `kubectl set image|env|resources`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::change::{ChangeArgs, pair, send_patch};
use crate::apply::two_way;
use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::output::println;
use crate::pods::template_path;
use crate::resource::targets::{self, Filter, Found};
use crate::session::Session;

/// Set specific features on objects
#[derive(Args, Debug)]
pub struct Set {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand, Debug)]
enum Sub {
    /// Update the image of a pod template
    Image(Image),
    /// Update environment variables on a pod template
    Env(Env),
    /// Update resource requests/limits on objects with pod templates
    Resources(Resources),
}

#[derive(Args, Debug)]
struct Common {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    change: ChangeArgs,
    /// Select all resources of the given types
    #[arg(long)]
    all: bool,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    selector: String,
}

#[derive(Args, Debug)]
struct Image {
    /// TYPE NAME or TYPE/NAME, then CONTAINER=IMAGE...
    args: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct Env {
    /// TYPE NAME or TYPE/NAME, then KEY=VALUE... or KEY-
    args: Vec<String>,
    #[command(flatten)]
    common: Common,
    /// The names of containers to change, may use wildcards
    #[arg(long, short = 'c', default_value = "*")]
    containers: String,
    /// List the environment
    #[arg(long)]
    list: bool,
}

#[derive(Args, Debug)]
struct Resources {
    /// TYPE NAME or TYPE/NAME
    args: Vec<String>,
    #[command(flatten)]
    common: Common,
    /// The names of containers to change, may use wildcards
    #[arg(long, short = 'c', default_value = "*")]
    containers: String,
    /// Limits, such as cpu=200m,memory=512Mi
    #[arg(long, default_value = "", hide_default_value = true)]
    limits: String,
    /// Requests, such as cpu=100m,memory=256Mi
    #[arg(long, default_value = "", hide_default_value = true)]
    requests: String,
}

impl Set {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Sub::Image(c) => c.run(session).await,
            Sub::Env(c) => c.run(session).await,
            Sub::Resources(c) => c.run(session).await,
        }
    }
}

/// `mutate` changes a pod spec; false if there was nothing to change.
async fn change(
    session: &Session,
    common: &Common,
    args: &[String],
    (what, manager): (&str, &str),
    mutate: impl Fn(&mut Value) -> Result<bool>,
) -> Result<()> {
    let mut format = common.change.format()?;
    let (targets, mut errors) = targets::resolve(session, args, &common.files, false).await?;
    if targets.iter().any(|t| t.name.is_none()) && !common.all && common.selector.is_empty() {
        return Err(Error::message("resource(s) were provided, but no name was specified"));
    }
    let filter = Filter { labels: common.selector.clone(), ..Filter::default() };
    let (found, failed) = targets::fetch(session, &targets, &filter).await;
    errors.extend(failed);
    for one in found {
        match change_one(session, common, &one, manager, &mutate).await {
            Ok(Some(object)) => common.change.print(&mut format, &object, what)?,
            Ok(None) if format.is_human() => {}
            Ok(None) => common.change.print(&mut format, &one.object, what)?,
            Err(e) => errors.push(e),
        }
    }
    Error::from_list(errors)
}

async fn change_one(
    session: &Session,
    common: &Common,
    found: &Found,
    manager: &str,
    mutate: &impl Fn(&mut Value) -> Result<bool>,
) -> Result<Option<Value>> {
    let mut after = found.object.clone();
    let name = found.target.name.as_deref().unwrap_or_default();
    let spec = after.pointer_mut(template_path(&found.target.resource.kind)).filter(|s| s.is_object());
    let Some(spec) = spec else {
        return Err(Error::message(format!(
            "{} {name} has no pod template",
            found.target.resource.singular_qualified()
        )));
    };
    if !mutate(spec)? {
        return Ok(None);
    }
    let patch = two_way(&found.target.resource, &found.object, &after);
    if patch.is_empty() {
        return Ok(None);
    }
    let path = found.target.path();
    send_patch(session, &common.change, path, &patch, manager, after.clone()).await.map(Some)
}

fn is_assignment(arg: &str) -> bool {
    arg.contains('=') || (arg.ends_with('-') && arg.len() > 1 && !arg.contains('/'))
}

impl Image {
    async fn run(self, session: &Session) -> Result<()> {
        let (images, args): (Vec<String>, Vec<String>) =
            self.args.iter().cloned().partition(|a| a.contains('='));
        if images.is_empty() {
            return Err(Error::message("at least one image update is required"));
        }
        if args.is_empty() && self.common.files.is_empty() {
            return Err(Error::message(
                "one or more resources must be specified as <resource> <name> or <resource>/<name>",
            ));
        }
        let pairs: Vec<(String, String)> = images.iter().map(|i| pair(i)).collect::<Result<_>>()?;
        change(session, &self.common, &args, ("image updated", "kubectl-set"), |spec| {
            set_images(spec, &pairs)
        })
        .await
    }
}

/// Sets images by container name; `*` means every container.
fn set_images(spec: &mut Value, pairs: &[(String, String)]) -> Result<bool> {
    let mut changed = false;
    for (name, image) in pairs {
        let mut known = false;
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                if name == "*" || container["name"] == name.as_str() {
                    known = true;
                    changed |= container["image"] != image.as_str();
                    container["image"] = json!(image);
                }
            }
        }
        if !known {
            return Err(Error::message(format!("unable to find container named {name:?}")));
        }
    }
    if let Some(map) = spec.as_object_mut() {
        map.retain(|key, value| !(key == "initContainers" && value.is_null()));
    }
    Ok(changed)
}

/// The containers whose names match a pattern with `*`.
fn containers<'a>(spec: &'a mut Value, pattern: &str) -> Vec<&'a mut Value> {
    let list = spec.get_mut("containers").and_then(Value::as_array_mut);
    list.into_iter().flatten().filter(|c| matches(pattern, c["name"].as_str().unwrap_or_default())).collect()
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            rest.is_empty() || (0..=tail.len()).any(|i| tail.is_char_boundary(i) && matches(rest, &tail[i..]))
        }),
    }
}

impl Env {
    async fn run(self, session: &Session) -> Result<()> {
        let (assignments, args): (Vec<String>, Vec<String>) =
            self.args.iter().cloned().partition(|a| is_assignment(a));
        if self.list {
            return self.show(session, &args).await;
        }
        if assignments.is_empty() {
            return Err(Error::message("at least one environment variable must be provided"));
        }
        change(session, &self.common, &args, ("env updated", "kubectl-set"), |spec| {
            for container in containers(spec, &self.containers) {
                for assignment in &assignments {
                    set_env(container, assignment);
                }
            }
            Ok(true)
        })
        .await
    }

    async fn show(&self, session: &Session, args: &[String]) -> Result<()> {
        let (targets, errors) = targets::resolve(session, args, &self.common.files, false).await?;
        Error::from_list(errors)?;
        let filter = Filter { labels: self.common.selector.clone(), ..Filter::default() };
        let (found, errors) = targets::fetch(session, &targets, &filter).await;
        for mut one in found {
            let name = one.target.name.clone().unwrap_or_default();
            let Some(spec) = one.object.pointer_mut(template_path(&one.target.resource.kind)) else {
                continue;
            };
            for container in containers(spec, &self.containers) {
                let title = container["name"].as_str().unwrap_or_default();
                println(format!("# {} {name}, container {title}", one.target.resource.plural))?;
                for variable in container["env"].as_array().into_iter().flatten() {
                    let key = variable["name"].as_str().unwrap_or_default();
                    match variable["value"].as_str() {
                        Some(value) => println(format!("{key}={value}"))?,
                        None => println(format!(
                            "# {key} from {}",
                            crate::output::json::compact(&variable["valueFrom"])
                        ))?,
                    }
                }
            }
        }
        Error::from_list(errors)
    }
}

fn set_env(container: &mut Value, assignment: &str) {
    if !container["env"].is_array() {
        container["env"] = json!([]);
    }
    let Some(list) = container["env"].as_array_mut() else { return };
    match assignment.split_once('=') {
        Some((key, value)) => match list.iter_mut().find(|v| v["name"] == key) {
            Some(variable) => *variable = json!({"name": key, "value": value}),
            None => list.push(json!({"name": key, "value": value})),
        },
        None => {
            let key = assignment.trim_end_matches('-');
            list.retain(|v| v["name"] != key);
        }
    }
    if list.is_empty()
        && let Some(map) = container.as_object_mut()
    {
        map.remove("env");
    }
}

impl Resources {
    async fn run(self, session: &Session) -> Result<()> {
        if self.limits.is_empty() && self.requests.is_empty() {
            return Err(Error::message(
                "you must specify an update to requests or limits (in the form of --requests/--limits)",
            ));
        }
        let (limits, requests) = (amounts(&self.limits)?, amounts(&self.requests)?);
        change(session, &self.common, &self.args, ("resource requirements updated", "kubectl-set"), |spec| {
            for container in containers(spec, &self.containers) {
                for (field, wanted) in [("limits", &limits), ("requests", &requests)] {
                    for (name, amount) in wanted {
                        container["resources"][field][name] = amount.clone();
                    }
                }
            }
            Ok(true)
        })
        .await
    }
}

/// `cpu=200m,memory=512Mi`.
pub fn amounts(text: &str) -> Result<Map<String, Value>> {
    let mut found = Map::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (name, amount) = part.split_once('=').ok_or_else(|| {
            Error::message(format!("invalid argument syntax {part:?}, expected <resource>=<value>"))
        })?;
        api::quantity::Amount::parse(amount).map_err(Error::message)?;
        found.insert(name.to_owned(), json!(amount));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_set_by_container() {
        let mut spec = json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]});
        assert!(set_images(&mut spec, &[("b".into(), "z".into())]).unwrap());
        assert_eq!(spec, json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "z"}]}));
        assert!(!set_images(&mut spec, &[("b".into(), "z".into())]).unwrap());
        assert!(set_images(&mut spec, &[("c".into(), "z".into())]).is_err());
        assert!(set_images(&mut spec, &[("*".into(), "w".into())]).unwrap());
    }

    #[test]
    fn variables_are_set_and_removed() {
        let mut container = json!({"name": "a"});
        set_env(&mut container, "K=v=1");
        assert_eq!(container["env"], json!([{"name": "K", "value": "v=1"}]));
        set_env(&mut container, "K-");
        assert_eq!(container, json!({"name": "a"}));
    }

    #[test]
    fn container_patterns_match() {
        assert!(matches("*", "x") && matches("a*c", "abc") && !matches("a*d", "abc") && matches("a", "a"));
    }
}
