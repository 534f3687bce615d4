//! `kubectl auth whoami|can-i`.

mod list;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::output::{print, println, tabwriter};
use crate::session::{Call, Session};

/// Inspect authorization
#[derive(Args, Debug)]
pub struct Auth {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand, Debug)]
enum Sub {
    /// Check who you are and your attributes
    Whoami {
        /// Output format: json or yaml
        #[arg(long, short = 'o', default_value = "", hide_default_value = true)]
        output: String,
    },
    /// Check whether an action is allowed
    CanI(CanI),
}

#[derive(Args, Debug)]
struct CanI {
    /// VERB
    #[arg(required_unless_present = "list")]
    verb: Option<String>,
    /// TYPE, TYPE/NAME or a path such as /healthz
    #[arg(required_unless_present = "list")]
    what: Option<String>,
    /// Name
    name: Option<String>,
    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Print all allowed actions
    #[arg(long)]
    list: bool,
    /// Print allowed actions without headers
    #[arg(long)]
    no_headers: bool,
    /// Do not print anything
    #[arg(long, short = 'q')]
    quiet: bool,
    /// SubResource such as pod/log or deployment/scale
    #[arg(long, default_value = "", hide_default_value = true)]
    subresource: String,
}

impl Auth {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Sub::Whoami { output } => whoami(session, &output).await,
            Sub::CanI(c) => c.run(session).await,
        }
    }
}

async fn whoami(session: &Session, output: &str) -> Result<()> {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let review = session
        .json(&Call::post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &body))
        .await
        .map_err(|e| match e.is_not_found() {
            true => Error::message("the selfsubjectreviews API is not enabled in the cluster"),
            false => e,
        })?;
    if !output.is_empty() {
        return print(&crate::output::printer::Format::parse(output, Default::default())?.render(&review)?);
    }
    let user = &review["status"]["userInfo"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let list = |v: &Value| {
        format!("[{}]", v.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(" "))
    };
    let mut lines = vec!["ATTRIBUTE\tVALUE".to_owned(), format!("Username\t{}", text(&user["username"]))];
    if user["uid"].is_string() {
        lines.push(format!("UID\t{}", text(&user["uid"])));
    }
    if user["groups"].is_array() {
        lines.push(format!("Groups\t{}", list(&user["groups"])));
    }
    for (key, value) in user["extra"].as_object().into_iter().flatten() {
        lines.push(format!("Extra: {key}\t{}", list(value)));
    }
    lines.push(String::new());
    print(&tabwriter::align(&lines.join("\n"), tabwriter::TABLE))
}

impl CanI {
    async fn show_all(&self, session: &Session) -> Result<()> {
        if self.verb.is_some() || self.what.is_some() || self.name.is_some() || self.quiet {
            return Err(Error::message("list option must be specified with no arguments"));
        }
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": session.namespace().await?},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
        let review = session.json(&Call::post(path, &body)).await?;
        let mut lines = Vec::new();
        if !self.no_headers {
            lines.push("Resources\tNon-Resource URLs\tResource Names\tVerbs".to_owned());
        }
        lines.extend(list::rows(&review));
        lines.push(String::new());
        print(&tabwriter::align(&lines.join("\n"), tabwriter::TABLE))?;
        if review["status"]["incomplete"] == true {
            let error = review["status"]["evaluationError"].as_str().unwrap_or_default();
            let mut message = "the list may be incomplete".to_owned();
            if !error.is_empty() {
                message += &format!(": {error}");
            }
            crate::output::warn(format!("warning: {message}"));
        }
        Ok(())
    }

    async fn run(self, session: &Session) -> Result<()> {
        if self.list {
            return self.show_all(session).await;
        }
        let (verb, what) = (self.verb.clone().unwrap_or_default(), self.what.clone().unwrap_or_default());
        let spec = if what.starts_with('/') {
            json!({"nonResourceAttributes": {"verb": verb, "path": what}})
        } else {
            let (kind, name) =
                what.split_once('/').map_or((what.as_str(), self.name.as_deref()), |(k, n)| (k, Some(n)));
            let mut attributes = json!({"verb": verb});
            match session.resource(kind).await {
                Ok(resource) => {
                    attributes["group"] = json!(resource.group);
                    attributes["resource"] = json!(resource.plural);
                    if !resource.namespaced && kind != "*" {
                        crate::output::warn(format!(
                            "Warning: resource '{}' is not namespace scoped{}",
                            resource.plural,
                            if resource.group.is_empty() {
                                String::new()
                            } else {
                                format!(" in group '{}'", resource.group)
                            }
                        ));
                    }
                    if resource.namespaced && !self.all_namespaces {
                        attributes["namespace"] = json!(session.namespace().await?);
                    }
                }
                Err(_) => {
                    if kind != "*" {
                        crate::output::warn(format!(
                            "Warning: the server doesn't have a resource type '{kind}'"
                        ));
                    }
                    attributes["resource"] = json!(kind);
                    attributes["namespace"] = json!(session.namespace().await?);
                }
            }
            if let Some(name) = name {
                attributes["name"] = json!(name);
            }
            if !self.subresource.is_empty() {
                attributes["subresource"] = json!(self.subresource);
            }
            json!({"resourceAttributes": attributes})
        };
        let body =
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
        let answer = session
            .json(&Call::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &body))
            .await?;
        let allowed = answer["status"]["allowed"] == true;
        if !self.quiet {
            let reason = answer["status"]["reason"].as_str().filter(|r| !r.is_empty() && !allowed);
            println(match (allowed, reason) {
                (true, _) => "yes".to_owned(),
                (false, Some(reason)) => format!("no - {reason}"),
                (false, None) => "no".into(),
            })?;
        }
        if allowed { Ok(()) } else { Err(Error::Exit(1)) }
    }
}
