//! What admission has to say beside yes and no: warnings for the client and annotations for whoever keeps a record.
//!
//! Both are told of refused requests, too, so they do not travel with the result. A front opens a notebook around a
//! request; whoever writes without one writes into nothing, as the server's own calls do.

use std::sync::{Arc, Mutex};

use component::tasks::lock;

/// Warnings that a client is told at most, and the bytes of all of them: upstream's limits for headers.
const MAX_WARNINGS: usize = 20;

tokio::task_local! {
    static NOTES: Notes;
}

/// What was noted about a request.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    warnings: Vec<String>,
    annotations: Vec<(String, String)>,
}

impl Notes {
    /// Runs a request whose notes are kept here.
    pub async fn keep<F: Future>(&self, request: F) -> F::Output {
        NOTES.scope(self.clone(), request).await
    }

    /// What the client is to be warned of; empty afterwards.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0).warnings)
    }

    /// The annotations of the request, in the order in which they were made.
    pub fn annotations(&self) -> Vec<(String, String)> {
        lock(&self.0).annotations.clone()
    }
}

/// Warns the client of the present request. What was said already is not said again.
pub fn warn(text: impl Into<String>) {
    let text = text.into();
    note(|written| {
        if written.warnings.len() < MAX_WARNINGS && !written.warnings.contains(&text) {
            written.warnings.push(text);
        }
    });
}

/// Annotates the present request. The first value of a key stays.
pub fn annotate(key: impl Into<String>, value: impl Into<String>) {
    let (key, value) = (key.into(), value.into());
    note(|written| {
        if written.annotations.iter().all(|(known, _)| *known != key) {
            written.annotations.push((key, value));
        }
    });
}

fn note(write: impl FnOnce(&mut Written)) {
    // Without a notebook nobody listens, which is meant.
    let _ = NOTES.try_with(|notes| write(&mut lock(&notes.0)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_keeps_its_own_notes() {
        let notes = Notes::default();
        warn("nobody listens");
        notes
            .keep(async {
                warn("one");
                warn("one");
                annotate("a", "1");
                annotate("a", "2");
            })
            .await;
        assert_eq!(notes.take_warnings(), ["one"]);
        assert!(notes.take_warnings().is_empty());
        assert_eq!(notes.annotations(), [("a".to_owned(), "1".to_owned())]);
    }
}
