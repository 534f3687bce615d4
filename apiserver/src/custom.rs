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

use crate::discovery::Documents;

/// The whole table of kinds: the built-in rows, and those that definitions have added.
pub struct Table {
    shown: ArcSwap<Shown>,
}

/// What the table holds at one time.
struct Shown {
    custom: Vec<&'static Kind>,
    discovery: Arc<Documents>,
}

impl Shown {
    fn new(custom: Vec<&'static Kind>) -> Self {
        let all: Vec<&'static Kind> = KINDS.iter().chain(custom.iter().copied()).collect();
        Self { custom, discovery: Arc::new(Documents::new(&all)) }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self { shown: ArcSwap::from_pointee(Shown::new(Vec::new())) }
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
            self.shown.store(Arc::new(Shown::new(rows)));
        }
    }
}
