//! Upstream's kubectl, the one on PATH and the one that Debian packages: every command that needs no node.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use support::{ControlPlane, transcript, upstream_kubectl};

use crate::packages::debian;

/// Follows a transcript with a kubectl.
#[track_caller]
fn follow(plane: &ControlPlane, kubectl: &Path, transcript: &str) {
    let bin = plane.scratch.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let link = bin.join("kubectl");
    if !link.exists() {
        symlink(kubectl, &link).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    transcript::follow(transcript, |command| {
        let mut shell = plane.client("sh");
        shell.args(["-c", &format!("exec 2>&1; {command}")]).env("PATH", &path).env("TERM", "dumb");
        let output = shell.stdin(Stdio::null()).output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
    });
}

/// The kubectl on PATH; a message where there is none.
fn on_path() -> Option<std::path::PathBuf> {
    let found = upstream_kubectl();
    if found.is_none() {
        eprintln!("skipped: there is no upstream kubectl on PATH");
    }
    found
}

/// The kubectl of Debian's package `kubernetes-client`, which is years older.
fn old() -> Option<std::path::PathBuf> {
    debian("kubernetes-client", "usr/bin/kubectl")
}

#[test]
fn objects_of_every_sort_are_made_and_shown() {
    let Some(kubectl) = on_path() else { return };
    let plane = ControlPlane::api("kubectl-make");
    follow(&plane, &kubectl, include_str!("kubectl/make.txt"));
}

#[test]
fn objects_are_changed_in_every_way() {
    let Some(kubectl) = on_path() else { return };
    let plane = ControlPlane::api("kubectl-change");
    follow(&plane, &kubectl, include_str!("kubectl/change.txt"));
}

#[test]
fn controllers_are_waited_for() {
    let Some(kubectl) = on_path() else { return };
    let plane = ControlPlane::with_controllers("kubectl-wait");
    follow(&plane, &kubectl, include_str!("kubectl/wait.txt"));
}

#[test]
fn debians_kubectl_works_as_well() {
    let Some(kubectl) = old() else { return };
    let plane = ControlPlane::with_controllers("kubectl-old");
    follow(&plane, &kubectl, include_str!("kubectl/old.txt"));
}
