//! Remembers every change that was made to the host, so that it can be undone, also after a crash halfway.
//!
//! A change is written down before it is made, and undoing one that was never made does nothing.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One change to the host. They are undone in the reverse of the order in which they were made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "camelCase")]
pub enum Change {
    /// A blackhole route, told from others to the same destination by its metric.
    Route {
        /// The range.
        destination: String,
        /// The metric.
        metric: u32,
    },
    /// The directory of named network namespaces was made, or made a mount point.
    NetnsDirectory,
    /// A named network namespace.
    Namespace {
        /// Its name.
        name: String,
    },
    /// An interface in the namespace in which the launcher runs.
    Link {
        /// Its name.
        name: String,
    },
    /// A cgroup in every hierarchy, with all below it and the processes in it.
    Cgroup {
        /// Its path below the root of the hierarchies.
        path: String,
    },
    /// Controllers that were given to the children of the unified hierarchy's root.
    CgroupControllers {
        /// Their names.
        names: Vec<String>,
    },
    /// A kernel setting.
    Sysctl {
        /// Its name, with slashes.
        key: String,
        /// What it was.
        before: String,
    },
    /// An nftables table.
    NftTable {
        /// Its name, in family inet.
        name: String,
    },
    /// A context, its cluster and its user in a kubeconfig file.
    Context {
        /// The file.
        file: PathBuf,
        /// The name of all three.
        name: String,
        /// The context that was current before.
        previous: Option<String>,
        /// Whether the file was made for it.
        created: bool,
    },
    /// A directory with all below it.
    Tree {
        /// The directory.
        path: PathBuf,
    },
    /// A directory that was made for others to lie in; removed only if it is empty.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

/// The journal's file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    known: BTreeSet<Change>,
}

impl Journal {
    /// Opens the journal at `path`; it need not exist.
    ///
    /// # Errors
    /// When it exists and cannot be read, or has a line that is no change. A last line that a crash cut off is left
    /// out: its change was not made yet.
    pub fn open(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e),
        };
        let known = parse(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        if !text.is_empty() && !text.ends_with('\n') {
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            OpenOptions::new().write(true).open(path)?.set_len(whole as u64)?;
        }
        Ok(Self { path: path.to_owned(), known: known.into_iter().collect() })
    }

    /// Writes a change down, durably, before it is made. One that is known already is not written again.
    ///
    /// # Errors
    /// When the file cannot be written; the change must then not be made.
    pub fn record(&mut self, change: Change) -> io::Result<()> {
        if self.known.contains(&change) {
            return Ok(());
        }
        let mut line = serde_json::to_vec(&change)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        file.write_all(&line)?;
        file.sync_data()?;
        self.known.insert(change);
        Ok(())
    }

    /// Whether a change that `matches` was written down.
    pub fn has(&self, matches: impl Fn(&Change) -> bool) -> bool {
        self.known.iter().any(matches)
    }

    /// All changes, the latest first: the order in which to undo them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn latest_first(&self) -> io::Result<Vec<Change>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e),
        };
        let mut changes = parse(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        changes.reverse();
        Ok(changes)
    }
}

/// Reads lines of changes; a last one without its end is not whole and is left out.
fn parse(text: &str) -> Result<Vec<Change>, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .enumerate()
        .map(|(n, line)| {
            serde_json::from_str(line).map_err(|e| format!("line {} of the journal: {e}", n + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> Change {
        Change::Link { name: name.into() }
    }

    #[test]
    fn changes_come_back_latest_first_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        for name in ["a", "b", "a"] {
            journal.record(link(name)).unwrap();
        }
        let mut again = Journal::open(&path).unwrap();
        again.record(link("b")).unwrap();
        assert_eq!(again.latest_first().unwrap(), [link("b"), link("a")]);
    }

    #[test]
    fn a_line_that_a_crash_cut_off_was_no_change_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        Journal::open(&path).unwrap().record(link("a")).unwrap();
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"change\":\"li");
        fs::write(&path, text).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        journal.record(link("b")).unwrap();
        assert_eq!(Journal::open(&path).unwrap().latest_first().unwrap(), [link("b"), link("a")]);
    }

    #[test]
    fn a_broken_line_is_an_error_and_not_a_smaller_journal() {
        assert!(parse("{}\n").is_err());
        assert!(parse("nonsense\n{\"change\":\"netnsDirectory\"}\n").unwrap_err().contains("line 1"));
    }
}
