//! Keeps the present policy: from the copies of roles and bindings, whenever one of them changes.

use std::collections::HashMap;
use std::sync::Arc;

use api::decode::decode;
use api::openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use api::{Kind, Object};
use component::tasks::Spawner;
use tokio::sync::watch;

use super::{GROUP, Policy};
use crate::storage::{Entry, Filter, Hub};

/// The present policy; everybody who holds a clone sees the same.
#[derive(Clone)]
pub struct Present(watch::Receiver<Option<Arc<Policy>>>);

impl Present {
    /// What the roles and bindings say now. Waits until they have been read once.
    pub async fn policy(&self) -> Arc<Policy> {
        if let Some(policy) = self.0.borrow().as_ref() {
            return policy.clone();
        }
        let mut receiver = self.0.clone();
        match receiver.wait_for(Option::is_some).await {
            Ok(policy) => policy.as_ref().cloned().unwrap_or_default(),
            // The server is going down: nobody may do anything any more.
            Err(_) => Arc::default(),
        }
    }

    /// What the roles and bindings say now; nothing before they have been read.
    pub fn now(&self) -> Arc<Policy> {
        self.0.borrow().as_ref().cloned().unwrap_or_default()
    }

    /// A policy that stays as it is.
    pub fn fixed(policy: Policy) -> Self {
        Self(watch::channel(Some(Arc::new(policy))).1)
    }
}

/// What a policy needs of an object.
enum Part {
    Role(Arc<[PolicyRule]>),
    Binding(Vec<Subject>, RoleRef),
}

/// What has been read already, by kind and key.
type Memory = HashMap<(usize, Box<str>), (i64, Arc<Part>)>;

/// Starts following.
pub fn start(hub: Arc<Hub>, tasks: &Spawner) -> Present {
    let (sender, receiver) = watch::channel(None);
    let token = tasks.token();
    tasks.spawn("rbac", async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = follow(&hub, &sender) => {}
        }
    });
    Present(receiver)
}

async fn follow(hub: &Hub, sender: &watch::Sender<Option<Arc<Policy>>>) {
    let kinds = ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"]
        .map(|kind| Kind::find(GROUP, kind).expect("the kinds of RBAC are in the table"));
    hub.filled().await;
    let mut memory = Memory::new();
    let watch = |kind: &'static Kind| hub.cache(kind).watch_from_now(Filter::default()).2;
    let mut watchers = kinds.map(watch);
    loop {
        sender.send_replace(Some(Arc::new(read(hub, &kinds, &mut memory))));
        let changes = watchers.iter_mut().map(|watcher| Box::pin(watcher.changed()));
        futures::future::select_all(changes).await;
        for (watcher, kind) in watchers.iter_mut().zip(kinds) {
            while match watcher.poll(1000) {
                Ok((changes, _)) => !changes.is_empty(),
                Err(_) => {
                    *watcher = watch(kind);
                    false
                }
            } {}
        }
    }
}

fn read(hub: &Hub, kinds: &[&'static Kind], memory: &mut Memory) -> Policy {
    let mut policy = Policy::default();
    let mut next = Memory::with_capacity(memory.len());
    for (i, kind) in kinds.iter().enumerate() {
        for entry in hub.cache(kind).list(&Filter::default(), 0, "").entries {
            let key = (i, entry.key.clone());
            let known = memory.remove(&key).filter(|(revision, _)| *revision == entry.revision);
            let Some((revision, part)) = known.or_else(|| Some((entry.revision, Arc::new(part(&entry)?))))
            else {
                continue;
            };
            let (namespace, name) = (entry.namespace(), entry.name());
            match part.as_ref() {
                Part::Role(rules) => policy.add_role(namespace, name, rules.clone()),
                Part::Binding(subjects, role) => policy.add_binding(namespace, name, subjects, role),
            }
            next.insert(key, (revision, part));
        }
    }
    *memory = next;
    policy
}

fn part(entry: &Entry) -> Option<Part> {
    let object = Object::parse(&entry.json).ok()?;
    match object.pointer("/roleRef") {
        Some(role) => {
            let subjects = object.pointer("/subjects").and_then(|s| decode(s).ok()).unwrap_or_default();
            Some(Part::Binding(subjects, decode::<RoleRef>(role).ok()?))
        }
        None => {
            let rules: Vec<_> = object.pointer("/rules").and_then(|r| decode(r).ok()).unwrap_or_default();
            Some(Part::Role(rules.into()))
        }
    }
}
