//! Follows the objects of the kinds that CustomResourceDefinitions add, for as long as their definitions stand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::Kind;
use api::kinds::custom::served;
use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use client::{Change, Informer, ListParams, WorkQueue};
use component::tasks::{Tasks, lock};

use super::graph::Work;
use super::{Shared, feed_partial};
use crate::context::Context;

/// The kinds that are followed, and the tasks that follow them, which end when they are dropped.
#[derive(Clone, Default)]
pub(super) struct Customs(Arc<Mutex<HashMap<String, (&'static Kind, Arc<Tasks>)>>>);

impl Customs {
    /// The kind that an owner reference names.
    pub(super) fn find(&self, group: &str, kind: &str) -> Option<&'static Kind> {
        let known = lock(&self.0);
        known.values().map(|(row, _)| *row).find(|row| row.group == group && row.kind == kind)
    }
}

/// Begins to follow; returns when the definitions that there are have been seen.
pub(super) async fn follow(
    ctx: &Context,
    graph: &Shared,
    queue: &WorkQueue<Work>,
) -> (Customs, Informer<CustomResourceDefinition>) {
    let customs = Customs::default();
    let definitions = Informer::new(ctx.client.all::<CustomResourceDefinition>(), ListParams::default());
    let (own, ctx, graph, queue) = (customs.clone(), ctx.clone(), graph.clone(), queue.clone());
    let tasks = ctx.tasks.clone();
    definitions.on_change(move |change| {
        let key = change.key();
        let row = match change {
            Change::Deleted(_) => None,
            Change::Added(definition) | Change::Updated { new: definition, .. } => served(definition),
        };
        let mut known = lock(&own.0);
        let Some(row) = row else {
            known.remove(&key);
            return;
        };
        if known.get(&key).is_some_and(|(followed, _)| std::ptr::eq(*followed, row)) {
            return;
        }
        let tasks = Arc::new(Tasks::new("garbage collector of a custom kind"));
        // It runs on its own from here; dropping its tasks ends it.
        drop(feed_partial(&ctx, &tasks.spawner(), row, &graph, &queue));
        known.insert(key, (row, tasks));
        drop(known);
        // Their owners could not be looked up before.
        lock(&graph).owned_by(row).into_iter().for_each(|work| queue.add(work));
    });
    definitions.start(&tasks);
    definitions.synced().await;
    (customs, definitions)
}
