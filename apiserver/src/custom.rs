//! Custom resources: rows of the table of kinds that come and go while the server runs.
//!
//! A definition's version becomes a row ([`rows`]) with rules made from its schema ([`rules`]); [`names`] decides
//! what a definition may call itself, and [`controller`] keeps definitions, rows and copies in step.

pub mod columns;
pub mod controller;
pub mod names;
pub mod path;
pub mod rows;
pub mod rules;
pub mod schema;

use std::sync::Arc;

use api::Kind;
use api::kinds::KINDS;
use arc_swap::ArcSwap;

use tokio::sync::Notify;

use crate::aggregation::remote::Remote;
use crate::discovery::Documents;

/// The whole table of kinds: the built-in rows, and those that definitions have added.
pub struct Table {
    shown: ArcSwap<Shown>,
    changed: Notify,
}

/// What the table holds at one time.
struct Shown {
    custom: Vec<&'static Kind>,
    /// Versions of groups that others serve.
    remotes: Vec<Arc<Remote>>,
    discovery: Arc<Documents>,
}

impl Shown {
    fn new(custom: Vec<&'static Kind>, mut remotes: Vec<Arc<Remote>>) -> Self {
        let all: Vec<&'static Kind> = KINDS.iter().chain(custom.iter().copied()).collect();
        // What is served here is nobody else's.
        remotes
            .retain(|r| !all.iter().any(|k| (k.group, k.version) == (r.group.as_str(), r.version.as_str())));
        let discovery = Arc::new(Documents::new(&all, &remotes));
        Self { custom, remotes, discovery }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self { shown: ArcSwap::from_pointee(Shown::new(Vec::new(), Vec::new())), changed: Notify::new() }
    }
}

impl Table {
    /// The row that a path names.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        let found =
            |row: &&&'static Kind| row.group == group && row.version == version && row.plural == plural;
        Kind::resource(group, version, plural)
            .or_else(|| self.shown.load().custom.iter().find(found).copied())
    }

    /// The documents that describe the table.
    pub fn discovery(&self) -> Arc<Documents> {
        self.shown.load().discovery.clone()
    }

    /// The rows that definitions have added.
    pub fn custom(&self) -> Vec<&'static Kind> {
        self.shown.load().custom.clone()
    }

    /// Replaces the rows that definitions have added.
    pub fn set(&self, rows: Vec<&'static Kind>) {
        let same = {
            let shown = self.shown.load();
            shown.custom.len() == rows.len()
                && shown.custom.iter().zip(&rows).all(|(a, b)| std::ptr::eq(*a, *b))
        };
        if !same {
            self.shown.rcu(|shown| Shown::new(rows.clone(), shown.remotes.clone()));
            self.changed.notify_one();
        }
    }

    /// Resolves when definitions have added kinds, or taken some away, since it was last awaited.
    pub async fn customs_changed(&self) {
        self.changed.notified().await;
    }

    /// The versions of groups that others serve.
    pub fn remotes(&self) -> Vec<Arc<Remote>> {
        self.shown.load().remotes.clone()
    }

    /// Whoever serves a path in this server's place.
    pub fn remote(&self, path: &str) -> Option<Arc<Remote>> {
        let (group, version) = crate::aggregation::request::group_version(path)?;
        let shown = self.shown.load();
        shown.remotes.iter().find(|r| r.group == group && r.version == version).cloned()
    }

    /// Replaces the versions of groups that others serve.
    pub fn set_remotes(&self, remotes: Vec<Arc<Remote>>) {
        self.shown.rcu(|shown| Shown::new(shown.custom.clone(), remotes.clone()));
    }
}
