//! Running a kubectl, ours or upstream's, against a cluster.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::netns::Netns;

/// A kubectl with a kubeconfig, run inside a network namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    /// What it reads.
    pub kubeconfig: PathBuf,
    /// Where it runs.
    pub netns: Netns,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Kubectl {
    /// The command, to be changed or started by the caller.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.kubeconfig.parent().expect("in a folder"));
        self.netns.enter(&mut command);
        command
    }

    /// Runs it and says how it ended.
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.run_with_input(args, "")
    }

    /// Runs it with text on standard input.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", self.program.display()));
        let mut stdin = child.stdin.take().expect("it was piped");
        let input = input.to_owned();
        let writer = std::thread::spawn(move || {
            // A command that ends before it has read everything closes the pipe.
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = child.wait_with_output().expect("a child can be waited for");
        writer.join().expect("the writer does not panic");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it, panics unless it succeeds, and returns standard output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let outcome = self.run(args);
        assert_eq!(outcome.code, 0, "kubectl {}: {}{}", args.join(" "), outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// Applies a manifest; panics unless that succeeds.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        let outcome = self.run_with_input(&["apply", "-f", "-"], manifest);
        assert_eq!(outcome.code, 0, "kubectl apply: {}{}\n{manifest}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// Runs `get … -o json`; none when that fails, as for what does not exist.
    pub fn json(&self, args: &[&str]) -> Option<Value> {
        let outcome = self.run(&[args, &["-o", "json"]].concat());
        (outcome.code == 0).then(|| serde_json::from_str(&outcome.stdout).expect("-o json prints JSON"))
    }

    /// The items of a list.
    pub fn items(&self, args: &[&str]) -> Vec<Value> {
        self.json(args).and_then(|list| list["items"].as_array().cloned()).unwrap_or_default()
    }
}
