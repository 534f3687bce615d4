//! Keeps APIServices and what discovery shows of them in step with the table of kinds and with those who serve.

use std::sync::Arc;
use std::time::Duration;

use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use api::{Kind, Object, StatusError, Subresource};
use futures::future::join_all;
use serde_json::json;

use super::front_proxy::{Client, Published, config_map};
use super::local::{self, Op};
use super::remote::{Remote, Verdict};
use crate::auth::User;
use crate::bootstrap::{Present, ensure};
use crate::registry::meta::whole_seconds;
use crate::registry::store::{Target, WriteOptions};
use crate::server::App;
use crate::storage::Filter;

/// How soon an attempt that failed is made again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often those who serve are asked whether they still do, while they do and while they do not.
const CHECK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(5));

/// Runs until its future is dropped.
pub async fn run(app: Arc<App>, client: Option<Client>, published: Published) {
    app.registry.hub().filled().await;
    loop {
        let document = config_map(&published);
        match ensure(&app.registry, "", "ConfigMap", "kube-system", document, Present::Replace).await {
            Ok(()) => break,
            // Its namespace may not be there yet.
            Err(error) => tracing::debug!(%error, "extension-apiserver-authentication is not published yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
    let Some(kind) = Kind::find("apiregistration.k8s.io", "APIService") else { return };
    let mut controller = Controller { app, kind, client };
    loop {
        let (entries, _, mut watcher) =
            controller.app.registry.hub().cache(kind).watch_from_now(Filter::default());
        let objects: Result<Vec<Object>, _> = entries.iter().map(|e| Object::parse(&e.json)).collect();
        let wait = match objects {
            Ok(objects) => match controller.sync(&objects).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(%error, "APIServices are not in step; trying again");
                    Some(AGAIN)
                }
            },
            Err(error) => {
                tracing::error!(%error, "an APIService in the store is none");
                None
            }
        };
        let (table, changed) = (controller.app.table.clone(), watcher.changed());
        let pause = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = table.customs_changed() => {}
            () = pause => {}
        }
    }
}

struct Controller {
    app: Arc<App>,
    kind: &'static Kind,
    client: Option<Client>,
}

impl Controller {
    /// One round; how long it holds at most.
    async fn sync(&mut self, objects: &[Object]) -> Result<Option<Duration>, StatusError> {
        for op in local::plan(objects, &local::wanted(&self.app.table.custom())) {
            self.apply(op).await?;
        }
        let standing = objects.iter().filter(|o| o.deletion_timestamp().is_none());
        let mut remotes: Vec<(Remote, &Object)> =
            standing.filter_map(|o| Some((Remote::of(o, self.client.as_ref())?, o))).collect();
        let known = self.app.table.remotes();
        for (remote, _) in &mut remotes {
            // What it served last is shown as such while it is away.
            if let Some(before) = known.iter().find(|before| before.name == remote.name) {
                remote.resources.clone_from(&before.resources);
            }
        }
        let app = self.app.clone();
        let verdicts = join_all(remotes.iter_mut().map(|(remote, _)| remote.check(&app))).await;
        let all = verdicts.iter().all(|verdict| verdict.available);
        let wait = (!remotes.is_empty()).then_some(if all { CHECK.0 } else { CHECK.1 });
        // Shown before it is said, so that whoever waits for the condition finds it so.
        let shown = remotes.iter().map(|(remote, _)| Arc::new(remote.clone())).collect();
        self.app.table.set_remotes(shown);
        for ((_, object), verdict) in remotes.iter().zip(&verdicts) {
            self.report(object, verdict).await?;
        }
        Ok(wait)
    }

    async fn apply(&self, op: Op) -> Result<(), StatusError> {
        let (user, registry) = (User::apiserver(), &self.app.registry);
        let options = WriteOptions { manager: "kube-apiserver".into(), ..WriteOptions::default() };
        let done = match op {
            Op::Create(document) => registry.create(&user, self.kind, "", document, &options).await,
            Op::Delete(name) => {
                let target = Target { kind: self.kind, namespace: "", name: &name };
                registry.delete(&user, target, None, &DeleteOptions::default()).await
            }
        };
        match done {
            // Another server was faster.
            Err(error) if error.is_already_exists() || error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Writes the condition, unless it says so already.
    async fn report(&self, object: &Object, verdict: &Verdict) -> Result<(), StatusError> {
        let status = if verdict.available { "True" } else { "False" };
        let conditions = object.pointer("/status/conditions").and_then(|c| c.as_array());
        let own = conditions.into_iter().flatten().find(|c| c["type"] == "Available");
        if own.is_some_and(|c| {
            c["status"] == status && c["reason"] == verdict.reason && c["message"] == verdict.message.as_str()
        }) {
            return Ok(());
        }
        tracing::info!(
            name = object.name(),
            status,
            reason = verdict.reason,
            message = verdict.message,
            "APIService"
        );
        let since = own.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
        let since = since.unwrap_or_else(|| whole_seconds(self.app.clock.now()).into());
        let mut next = object.clone();
        next.as_map_mut().insert(
            "status".into(),
            json!({"conditions": [{"type": "Available", "status": status, "reason": verdict.reason,
                "message": verdict.message, "lastTransitionTime": since}]}),
        );
        let target = Target { kind: self.kind, namespace: "", name: object.name() };
        let (user, options) = (User::apiserver(), WriteOptions::default());
        let part = Some(Subresource::Status);
        match self.app.registry.update(&user, target, part, next.to_value(), &options, &|| Ok(())).await {
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}
