//! Gathers the rules of a ClusterRole with an aggregation rule from the ClusterRoles that its selectors select.

use api::meta::MetaExt;
use api::openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use api::selector::Selector;
use client::{Action, Informer, ListParams, Patch, Store, WorkQueue, run_workers};
use serde_json::json;

use crate::context::Context;

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("clusterrole-aggregation");
    let roles: Informer<ClusterRole> = Informer::new(ctx.client.all(), ListParams::default());
    let (q, store) = (queue.clone(), roles.store());
    // Whichever role changes may be one that others gather; there are few that do.
    roles.on_change(move |change| {
        q.add(change.object().name().to_owned());
        for role in store.list().iter().filter(|role| role.aggregation_rule.is_some()) {
            q.add(role.name().to_owned());
        }
    });
    roles.start(&ctx.tasks);
    roles.synced().await;
    for role in roles.store().list().iter().filter(|role| role.aggregation_rule.is_some()) {
        queue.add(role.name().to_owned());
    }
    let (tasks, store) = (ctx.tasks.clone(), roles.store());
    let reconcile = move |name: String| {
        let (ctx, store) = (ctx.clone(), store.clone());
        async move { reconcile(&ctx, &store, &name).await }
    };
    // One at a time: `admin` gathers `edit`, which gathers `view`.
    run_workers(queue, 1, &tasks, reconcile).await;
}

/// The rules that a role should have; nothing when it has them, or gathers none.
fn plan(role: &ClusterRole, all: &[std::sync::Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut sources: Vec<_> = all.iter().filter(|other| other.name() != role.name()).collect();
    sources.sort_by(|a, b| a.name().cmp(b.name()));
    let (none, mut rules) = (std::collections::BTreeMap::new(), Vec::<PolicyRule>::new());
    for selector in selectors {
        // What cannot be read was refused when it was written.
        let Ok(selector) = Selector::from_typed(Some(selector)) else { continue };
        let selected =
            |r: &&&std::sync::Arc<ClusterRole>| selector.matches(r.metadata.labels.as_ref().unwrap_or(&none));
        for rule in sources.iter().filter(selected).flat_map(|r| r.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    (rules != role.rules.clone().unwrap_or_default()).then_some(rules)
}

async fn reconcile(ctx: &Context, store: &Store<ClusterRole>, name: &str) -> Result<Action, client::Error> {
    let Some(role) = store.get(name) else { return Ok(Action::Done) };
    let Some(rules) = plan(&role, &store.list()) else { return Ok(Action::Done) };
    // The version guards against a role that changed since it was seen.
    let patch = Patch::Merge(json!({
        "metadata": {"resourceVersion": role.metadata.resource_version},
        "rules": rules,
    }));
    match ctx.client.all::<ClusterRole>().patch(name, &patch).await {
        Err(error) if error.is_not_found() => Ok(Action::Done),
        Err(error) => Err(error),
        Ok(_) => Ok(Action::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn role(value: serde_json::Value) -> Arc<ClusterRole> {
        Arc::new(serde_json::from_value(value).expect("a role"))
    }

    #[test]
    fn rules_are_gathered_from_the_roles_that_are_selected() {
        let rule = |verb: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let source = |name: &str, label: &str, verb: &str| {
            role(json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": [rule(verb)]}))
        };
        let selectors = json!([{"matchLabels": {"to": "view"}}, {"matchLabels": {"to": "more"}}]);
        let gathers = |rules: serde_json::Value| {
            role(json!({"metadata": {"name": "view", "labels": {"to": "view"}}, "aggregationRule": {
                "clusterRoleSelectors": selectors
            }, "rules": rules}))
        };
        let view = gathers(json!([]));
        let all = [
            source("b", "view", "list"),
            source("a", "view", "get"),
            source("c", "more", "get"),
            source("d", "x", "delete"),
            view.clone(),
        ];
        let verbs = |rules: Vec<PolicyRule>| rules.into_iter().flat_map(|r| r.verbs).collect::<Vec<_>>();
        assert_eq!(verbs(plan(&view, &all).expect("a change")), ["get", "list"]);
        assert_eq!(plan(&gathers(json!([rule("get"), rule("list")])), &all), None);
        assert_eq!(plan(&source("a", "view", "get"), &all), None);
    }
}
