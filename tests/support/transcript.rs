//! Sessions at a shell, as a user would paste them: commands, and what they say.
//!
//! A line that begins with `$ ` is a command, continued by lines that begin with `> `; with `$~ ` it is repeated until it
//! says what is expected. The lines below it are all that it must say on both its outputs, runs of blanks being one.
//! `…` stands for any text within a line and, alone on a line, for any number of lines. A last line `[1]` is an
//! exit code other than zero. Empty lines, and lines that begin with `#`, are for readers.

use std::time::{Duration, Instant};

/// How long an awaited command may take to say what is expected.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    line: usize,
    awaited: bool,
    command: String,
    expected: Vec<String>,
    code: i32,
}

/// Runs every command of a transcript through `run`, which returns the exit code and all that was said; panics with every
/// step that went otherwise.
#[track_caller]
pub fn follow(transcript: &str, mut run: impl FnMut(&str) -> (i32, String)) {
    let mut wrong = Vec::new();
    let steps = steps(transcript);
    assert!(!steps.is_empty(), "the transcript has no commands");
    for step in steps {
        let began = Instant::now();
        loop {
            let (code, said) = run(&step.command);
            let lines: Vec<String> = said.lines().map(tidy).filter(|line| !line.is_empty()).collect();
            if code == step.code && matches(&step.expected, &lines) {
                break;
            }
            if !step.awaited || began.elapsed() > PATIENCE {
                let expected = step.expected.join("\n");
                wrong.push(format!(
                    "line {}: $ {}\nexpected [{}]\n{expected}\nsaid [{code}]\n{said}",
                    step.line, step.command, step.code
                ));
                break;
            }
            pause();
        }
    }
    assert!(wrong.is_empty(), "{} steps went otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

#[allow(clippy::disallowed_methods, reason = "a test looks from outside, where no event reaches it")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

fn steps(transcript: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (at, line) in transcript.lines().enumerate() {
        let awaited = line.strip_prefix("$~ ");
        if let Some(command) = awaited.or_else(|| line.strip_prefix("$ ")) {
            let (line, awaited) = (at + 1, awaited.is_some());
            steps.push(Step { line, awaited, command: command.to_owned(), ..Step::default() });
            continue;
        }
        let Some(step) = steps.last_mut() else { continue };
        let text = tidy(line);
        if let Some(more) = line.strip_prefix("> ") {
            step.command = format!("{}\n{more}", step.command);
        } else if let Some(code) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')?.parse().ok()) {
            step.code = code;
        } else if !text.is_empty() && !line.starts_with('#') {
            step.expected.push(text);
        }
    }
    steps
}

fn tidy(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn matches(expected: &[String], said: &[String]) -> bool {
    match expected.split_first() {
        None => said.is_empty(),
        Some((first, rest)) if first == "…" => (0..=said.len()).any(|at| matches(rest, &said[at..])),
        Some((first, rest)) => {
            said.split_first().is_some_and(|(line, more)| fits(first, line) && matches(rest, more))
        }
    }
}

/// Whether a line fits a pattern in which `…` is any text.
fn fits(pattern: &str, line: &str) -> bool {
    match pattern.split_once('…') {
        None => pattern == line,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| fits(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_stand_for_text_and_for_lines() {
        let lines = |text: &str| text.lines().map(tidy).collect::<Vec<_>>();
        let check = |pattern: &str, said: &str| matches(&lines(pattern), &lines(said));
        assert!(check("a…c", "abbc") && check("a…c", "ac") && !check("a…c", "abd"));
        assert!(check("…\nb", "a\na\nb") && check("…", "") && !check("…\nb", "a\nb\nc"));
        assert!(check("a b", "a   b") && !check("", "a"));
    }

    #[test]
    fn a_transcript_is_its_steps() {
        let found = steps("# first\n$ cat <<E\n> a\n> E\na\n\n$~ false\n[1]\n");
        let first =
            Step { line: 2, command: "cat <<E\na\nE".into(), expected: vec!["a".into()], ..Step::default() };
        let second = Step { line: 7, awaited: true, command: "false".into(), code: 1, ..Step::default() };
        assert_eq!(found, [first, second]);
    }

    #[test]
    #[should_panic(expected = "1 steps went otherwise")]
    fn another_answer_is_told() {
        follow("$ one\n1\n$ two\n2", |_| (0, "1\n".into()));
    }
}
