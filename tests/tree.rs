//! Rules of the tree: what ARCHITECTURE.md promises, as tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

/// The crates and what each depends on, other than for its own tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("a list");
    let of = |package: &Value| {
        let all = package["dependencies"].as_array().cloned().unwrap_or_default();
        let lasting = all.into_iter().filter(|d| d["kind"] != "dev").map(|d| text(&d["name"]));
        (text(&package["name"]), lasting.collect())
    };
    packages.iter().map(of).collect()
}

/// Every file with one of these endings that git tracks or would track.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    let list = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let wanted =
        |path: &&str| endings.iter().any(|ending| path.ends_with(ending)) && root().join(path).exists();
    let files: Vec<_> = list.lines().filter(wanted).map(|path| root().join(path)).collect();
    assert!(!files.is_empty(), "git lists no files that end in {endings:?}");
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The floors of the house; a crate may use only crates on the floors below its own.
const FLOORS: &[&[&str]] = &[
    &["api", "spdy"],
    &["proto"],
    &["component"],
    &["client"],
    &["apiserver", "scheduler", "controller-manager", "kubelet", "kube-proxy", "kubectl", "etcd-lite"],
    &["coxswain"],
    &["cluster-tests"],
];

#[test]
fn arrows_point_down() {
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name));
    for (name, uses) in dependencies() {
        let own = floor(&name).unwrap_or_else(|| panic!("crate {name} stands on no floor"));
        for used in uses {
            if let Some(below) = floor(&used) {
                assert!(below < own, "{name} uses {used}, which is not on a floor below it");
            }
        }
    }
}

#[track_caller]
fn only(users: &[&str], library: &str) {
    for (name, uses) in dependencies() {
        assert!(!uses.contains(library) || users.contains(&name.as_str()), "{name} depends on {library}");
    }
}

#[test]
fn only_apiserver_depends_on_etcd_client() {
    only(&["apiserver"], "etcd-client");
}

#[test]
fn only_kubectl_depends_on_kube() {
    only(&["kubectl"], "kube");
}

#[test]
fn only_the_kubelet_speaks_to_the_container_runtime() {
    only(&["kubelet"], "k8s-cri");
}

#[test]
fn the_object_model_is_pure() {
    let uses = &dependencies()["api"];
    for impure in ["tokio", "futures", "tonic", "hyper", "axum", "rand"] {
        assert!(!uses.contains(impure), "api depends on {impure}");
    }
}

#[test]
fn every_file_says_its_purpose() {
    for path in files(&[".rs"]) {
        if path.file_name().is_some_and(|n| n == "tests.rs") {
            continue;
        }
        let text = read(&path);
        assert!(text.starts_with("//! "), "{} does not begin with its purpose", relative(&path));
    }
}

#[test]
fn no_file_outgrows_a_reader() {
    for path in files(&[".rs"]) {
        let lines = read(&path).lines().count();
        assert!(lines <= 900, "{} has {lines} lines: look for the seam", relative(&path));
    }
}

#[test]
fn modules_stand_beside_their_folders() {
    let mods: Vec<_> =
        files(&[".rs"]).into_iter().filter(|p| p.file_name().is_some_and(|n| n == "mod.rs")).collect();
    assert!(mods.is_empty(), "{mods:?}");
}

#[test]
fn links_in_documents_lead_somewhere() {
    for path in files(&[".md"]) {
        let text = read(&path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = path.parent().expect("a file has a folder").join(file);
            assert!(target.exists(), "{}: {link} leads nowhere", relative(&path));
        }
    }
}

/// The names in ``(`name`)`` that end the sentences beginning with "Never" in ARCHITECTURE.md.
fn promises() -> Vec<(String, Vec<String>)> {
    let text = read(&root().join("ARCHITECTURE.md"));
    let items = text.split("\n- ").filter(|item| item.starts_with("**Never"));
    let names = |item: &str| {
        let item = item.split("\n\n").next().unwrap_or_default();
        let kept = item.split("Kept by").nth(1).unwrap_or_default();
        kept.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    items.map(|item| (item.lines().next().unwrap_or_default().to_owned(), names(item))).collect()
}

#[test]
fn every_promise_is_kept_by_a_test() {
    let code: String = files(&[".rs"]).iter().map(|path| read(path)).collect();
    let promises = promises();
    assert!(promises.len() >= 8, "ARCHITECTURE.md promises too little: {}", promises.len());
    for (promise, tests) in promises {
        assert!(!tests.is_empty(), "nothing keeps: {promise}");
        for test in tests {
            assert!(code.contains(&format!("fn {test}(")), "no test {test} keeps: {promise}");
        }
    }
}

#[test]
fn every_task_of_the_readme_exists() {
    let makefile = read(&root().join("Makefile"));
    let readme = read(&root().join("README.md"));
    let tasks: BTreeSet<_> = readme
        .split("make ")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '-').next())
        .filter(|task| !task.is_empty())
        .collect();
    assert!(tasks.contains("up") && tasks.contains("down") && tasks.contains("test"), "{tasks:?}");
    for task in tasks {
        assert!(
            makefile.contains(&format!("\n{task}:")),
            "the README names `make {task}`, the Makefile does not"
        );
    }
}

#[test]
fn ci_runs_the_readmes_test_command() {
    assert!(read(&root().join("README.md")).contains("make test"));
    assert!(read(&root().join(".ci/run")).contains("make test"));
}

#[test]
fn lints_are_inherited_by_every_crate() {
    for path in files(&["Cargo.toml"]) {
        let text = read(&path);
        assert!(
            text.contains("[lints]\nworkspace = true") || text.contains("[workspace.lints"),
            "{} does not inherit the workspace's lints",
            relative(&path)
        );
        assert!(!text.contains("allow(clippy::all)"), "{}", relative(&path));
    }
}
