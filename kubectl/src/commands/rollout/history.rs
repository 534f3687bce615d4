//! Revisions of a rollout: ReplicaSets of a Deployment, ControllerRevisions of the others.

use serde_json::Value;

use super::status::Kind;
use crate::error::{Error, Result};
use crate::output::{print, tabwriter};
use crate::resource::targets::{self, Filter, Found, Target};
use crate::session::Session;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// The revision that an annotation names, or 0.
pub fn revision_of(object: &Value) -> i64 {
    object["metadata"]["annotations"][REVISION].as_str().and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// One revision.
#[derive(Debug, Clone)]
pub struct Revision {
    /// Its number.
    pub number: i64,
    /// The ReplicaSet or ControllerRevision.
    pub object: Value,
}

impl Revision {
    fn cause(&self) -> &str {
        let cause = self.object["metadata"]["annotations"][CHANGE_CAUSE].as_str();
        cause.filter(|c| !c.is_empty()).unwrap_or("<none>")
    }

    /// The pod template of this revision.
    pub fn template(&self) -> &Value {
        match self.object["kind"] == "ControllerRevision" {
            true => &self.object["data"]["spec"]["template"],
            false => &self.object["spec"]["template"],
        }
    }
}

/// The revisions of an object, oldest first.
pub async fn revisions(session: &Session, found: &Found) -> Result<Vec<Revision>> {
    let kind = Kind::of(&found.target.resource)?;
    let holder = if kind == Kind::Deployment { "replicasets.apps" } else { "controllerrevisions.apps" };
    let collection = Target {
        resource: session.resource(holder).await?,
        name: None,
        namespace: found.target.namespace.clone(),
        document: None,
    };
    let filter =
        Filter { labels: crate::pods::selector_of(&found.object).unwrap_or_default(), ..Filter::default() };
    let list = targets::list(session, &collection, &filter).await?;
    let uid = &found.object["metadata"]["uid"];
    let owned = |object: &Value| {
        let mut owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.any(|o| o["controller"] == true && &o["uid"] == uid)
    };
    let number = |object: &Value| match kind {
        Kind::Deployment => revision_of(object),
        _ => object["revision"].as_i64().unwrap_or(0),
    };
    let mut revisions: Vec<Revision> = targets::items(&list)
        .into_iter()
        .filter(owned)
        .map(|object| Revision { number: number(&object), object })
        .collect();
    revisions.sort_by_key(|r| r.number);
    Ok(revisions)
}

impl super::History {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        if self.revision < 0 {
            return Err(Error::message(format!("revision must be a positive integer: {}", self.revision)));
        }
        let (found, mut errors) = self.which.found(session).await?;
        for one in found {
            if let Err(e) = self.show(session, &one).await {
                errors.push(e);
            }
        }
        Error::from_list(errors)
    }

    async fn show(&self, session: &Session, found: &Found) -> Result<()> {
        let revisions = revisions(session, found).await?;
        let name = crate::output::printer::name_of(&found.object);
        if !self.output.is_empty() {
            let wanted = revisions.iter().filter(|r| self.revision == 0 || r.number == self.revision);
            let objects = wanted.map(|r| r.object.clone()).collect();
            let mut format = crate::output::printer::Format::parse(&self.output, Default::default())?;
            return crate::commands::apply::print_all(&mut format, objects, false);
        }
        if self.revision > 0 && revisions.is_empty() {
            return print(&format!("{name} with revision #{}\nNo rollout history found.\n", self.revision));
        }
        if self.revision > 0 {
            let Some(revision) = revisions.iter().find(|r| r.number == self.revision) else {
                return Err(Error::message("unable to find the specified revision"));
            };
            let mut text = crate::commands::describe::pod::template(revision.template());
            if revision.cause() != "<none>" {
                text = text.replacen(
                    "  Labels:",
                    &format!("  Annotations:\t{CHANGE_CAUSE}: {}\n  Labels:", revision.cause()),
                    1,
                );
            }
            return print(&format!("{name} with revision #{}\n{text}\n", self.revision));
        }
        if revisions.is_empty() {
            return print(&format!("{name} \nNo rollout history found.\n"));
        }
        let mut lines = vec!["REVISION\tCHANGE-CAUSE".to_owned()];
        lines.extend(revisions.iter().map(|r| format!("{}\t{}", r.number, r.cause())));
        lines.push(String::new());
        let table = tabwriter::align(&lines.join("\n"), tabwriter::DESCRIBE);
        print(&format!("{name} \n{table}\n"))
    }
}
