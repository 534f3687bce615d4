//! Shows what goes on: a line per step, with its time; live on a terminal, plain otherwise.

use std::fmt::Display;
use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// The display of a command's steps, on standard error.
pub struct Steps {
    live: Option<MultiProgress>,
    begin: Instant,
}

/// A step that has begun. One that is dropped without an end has failed.
pub struct Step {
    name: String,
    begin: Instant,
    bar: Option<ProgressBar>,
    ended: bool,
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

impl Steps {
    /// An empty display.
    pub fn new() -> Self {
        Self { live: stderr().is_terminal().then(MultiProgress::new), begin: Instant::now() }
    }

    /// Begins a step.
    pub fn begin(&self, name: impl Into<String>) -> Step {
        let name = name.into();
        let bar = self.live.as_ref().map(|live| {
            let bar = live.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("{spinner} {prefix:<26} {wide_msg}");
            bar.set_style(
                style.unwrap_or_else(|_| ProgressStyle::default_spinner()).tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "),
            );
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Step { name, begin: Instant::now(), bar, ended: false }
    }

    /// The time since the first step.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}

impl Step {
    /// Says what is going on, where that can be taken back.
    pub fn note(&self, text: impl Display) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_string());
        }
    }

    /// The step has succeeded.
    pub fn done(mut self, text: impl Display) {
        self.end('✓', &text.to_string());
    }

    fn end(&mut self, sign: char, text: &str) {
        self.ended = true;
        let time = seconds(self.begin.elapsed());
        let line = format!("{sign} {:<26} {time:>7}  {text}", self.name);
        match &self.bar {
            Some(bar) => {
                bar.set_style(
                    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
                );
                bar.finish_with_message(line);
            }
            None => eprintln!("{}", line.trim_end()),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end('✗', "");
        }
    }
}

/// A duration for people.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// The last lines of a log, indented, with its name before them.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = match fs::read(log) {
        Ok(bytes) => {
            // Enough for the last lines; logs may be large.
            let begin = bytes.len().saturating_sub(64 << 10);
            String::from_utf8_lossy(&bytes[begin..]).into_owned()
        }
        Err(error) => return format!("its log {} cannot be read: {error}", log.display()),
    };
    let all: Vec<_> = text.lines().collect();
    let last = &all[all.len().saturating_sub(lines)..];
    let mut said = format!("its log is {}; the last lines:", log.display());
    for line in last {
        said.push_str("\n    ");
        said.push_str(line);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("a.log");
        fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert!(tail(&log, 2).ends_with("the last lines:\n    two\n    three"));
        assert!(tail(&dir.path().join("none"), 2).contains("cannot be read"));
    }
}
