//! `kubectl rollout undo`: makes an earlier revision's template the current one.

use serde_json::{Value, json};

use super::history::{Revision, revision_of, revisions};
use super::same_template;
use super::status::Kind;
use crate::apply::{JSON_PATCH, LAST_APPLIED, Patch, STRATEGIC};
use crate::commands::change::{DryRun, send_patch};
use crate::error::{Error, Result};
use crate::resource::targets::Found;
use crate::session::Session;

/// Annotations that belong to the Deployment and not to a revision of it.
const KEPT: &[&str] = &[
    LAST_APPLIED,
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// What an undo does.
#[derive(Debug, PartialEq)]
enum Plan {
    Patch(Patch),
    Skip(i64),
}

impl super::Undo {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        if self.to_revision < 0 {
            return Err(Error::message(format!("revision must be a positive integer: {}", self.to_revision)));
        }
        let mut format = self.change.format()?;
        let (found, mut errors) = self.which.found(session).await?;
        for one in found {
            match self.undo(session, &one).await {
                Ok((object, what)) => self.change.print(&mut format, &object, &what)?,
                Err(e) => errors.push(e),
            }
        }
        Error::from_list(errors)
    }

    async fn undo(&self, session: &Session, found: &Found) -> Result<(Value, String)> {
        let kind = Kind::of(&found.target.resource)?;
        let revisions = revisions(session, found).await?;
        let plan = match kind {
            Kind::Deployment => plan_deployment(&found.object, &revisions, self.to_revision),
            _ => plan_other(&found.object, &revisions, self.to_revision),
        };
        match plan.map_err(Error::message)? {
            Plan::Skip(number) => Ok((
                found.object.clone(),
                format!("skipped rollback (current template already matches revision {number})"),
            )),
            Plan::Patch(_) if self.change.dry_run == DryRun::Client => {
                Ok((found.object.clone(), "rolled back".into()))
            }
            Plan::Patch(patch) => {
                let path = found.target.path();
                let object =
                    send_patch(session, &self.change, path, &patch, "kubectl-rollout", found.object.clone())
                        .await?;
                Ok((object, "rolled back".into()))
            }
        }
    }
}

/// The revision to go back to: the one that is named, or the last but one.
fn choose<'a>(object: &Value, revisions: &'a [Revision], to: i64) -> Result<&'a Revision, String> {
    if to > 0 {
        let found = revisions.iter().find(|r| r.number == to);
        return found.ok_or_else(|| format!("unable to find specified revision {to} in history"));
    }
    let before = revisions.len().checked_sub(2).and_then(|i| revisions.get(i));
    before.ok_or_else(|| {
        let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
        format!(
            "no rollout history found for {kind} {:?}",
            object["metadata"]["name"].as_str().unwrap_or_default()
        )
    })
}

fn plan_deployment(object: &Value, revisions: &[Revision], to: i64) -> Result<Plan, String> {
    if object["spec"]["paused"] == true {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        return Err(format!(
            "deployment {name:?} is paused: you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume' and try again"
        ));
    }
    let revision = choose(object, revisions, to)?;
    let mut template = revision.object["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    if same_template(&template, &object["spec"]["template"]) {
        return Ok(Plan::Skip(revision.number.max(revision_of(&revision.object))));
    }
    let annotations = |object: &Value, keep: bool| -> Vec<(String, Value)> {
        let all = object["metadata"]["annotations"].as_object().into_iter().flatten();
        all.filter(|(k, _)| KEPT.contains(&k.as_str()) == keep).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let mut merged = annotations(object, true);
    merged.extend(annotations(&revision.object, false));
    let body = json!([
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "add", "path": "/metadata/annotations", "value": serde_json::Map::from_iter(merged)},
    ]);
    Ok(Plan::Patch(Patch { content_type: JSON_PATCH, body }))
}

fn plan_other(object: &Value, revisions: &[Revision], to: i64) -> Result<Plan, String> {
    let revision = choose(object, revisions, to)?;
    let template = &revision.object["data"]["spec"]["template"];
    let mut wanted = template.clone();
    if let Some(map) = wanted.as_object_mut() {
        map.remove("$patch");
    }
    if same_template(&wanted, &object["spec"]["template"]) {
        return Ok(Plan::Skip(revision.number));
    }
    Ok(Plan::Patch(Patch { content_type: STRATEGIC, body: revision.object["data"].clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: i64, image: &str) -> Revision {
        let object = json!({"kind": "ReplicaSet",
            "metadata": {"annotations": {"deployment.kubernetes.io/revision": number.to_string(), "kubernetes.io/change-cause": image}},
            "spec": {"template": {"metadata": {"labels": {"app": "w", "pod-template-hash": "x"}}, "spec": {"image": image}}}});
        Revision { number, object }
    }

    fn deployment(image: &str) -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "web", "annotations": {LAST_APPLIED: "{}", "mine": "x"}},
            "spec": {"template": {"metadata": {"labels": {"app": "w"}}, "spec": {"image": image}}}})
    }

    #[test]
    fn the_template_before_the_last_comes_back() {
        let Plan::Patch(patch) =
            plan_deployment(&deployment("b"), &[revision(1, "a"), revision(2, "b")], 0).unwrap()
        else {
            panic!("nothing to do")
        };
        assert_eq!(
            patch.body,
            json!([
                {"op": "replace", "path": "/spec/template", "value": {"metadata": {"labels": {"app": "w"}}, "spec": {"image": "a"}}},
                {"op": "add", "path": "/metadata/annotations", "value": {LAST_APPLIED: "{}", "kubernetes.io/change-cause": "a"}},
            ])
        );
    }

    #[test]
    fn a_template_that_is_current_is_skipped() {
        let plan = plan_deployment(&deployment("b"), &[revision(1, "a"), revision(2, "b")], 2);
        assert_eq!(plan, Ok(Plan::Skip(2)));
    }

    #[test]
    fn what_cannot_be_undone_is_said() {
        let only = [revision(1, "a")];
        assert_eq!(
            plan_deployment(&deployment("a"), &only, 0).unwrap_err(),
            "no rollout history found for deployment \"web\""
        );
        assert_eq!(
            plan_deployment(&deployment("a"), &only, 7).unwrap_err(),
            "unable to find specified revision 7 in history"
        );
    }
}
