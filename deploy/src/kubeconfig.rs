//! Kubeconfig files: those of the components, and the user's, into which a context is merged and from which it goes.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::cluster::{Cluster, Paths, write_atomically, write_if_changed};
use crate::journal::{Change, Journal};

/// Why a kubeconfig could not be written.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// A file cannot be read or written.
    #[error("could not use {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The user's file is not one.
    #[error("{} is not a kubeconfig: {reason}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Somebody else holds the lock.
    #[error("{} is locked: if no kubectl is at work, remove {}", .path.display(), .lock.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Its lock.
        lock: PathBuf,
    },
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> KubeconfigError {
    |source| KubeconfigError::File { path: path.to_owned(), source }
}

/// A kubeconfig with one cluster, user and context of the same name.
fn document(name: &str, cluster: &Value, user: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    })
}

/// JSON is YAML, and every reader of kubeconfigs reads it; for people it is written as YAML proper.
fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|_| format!("{value:#}"))
}

/// The server's address for somebody on the host, or on a node.
fn server(cluster: &Cluster, by_bridge: bool) -> String {
    let ip = if by_bridge { cluster.gateway() } else { Ipv4Addr::LOCALHOST };
    format!("https://{ip}:{}", cluster.ports.api)
}

/// Writes the kubeconfigs of the components, which name their certificates by file, and the admin's, which holds them.
///
/// # Errors
/// When one cannot be written, or a certificate not read.
pub fn write_all(cluster: &Cluster, paths: &Paths) -> Result<(), KubeconfigError> {
    for (file, certificate, by_bridge) in crate::components::kubeconfigs(cluster) {
        let of = json!({
            "server": server(cluster, by_bridge),
            "certificate-authority": paths.pki("ca.crt"),
        });
        let user = json!({
            "client-certificate": paths.pki(&format!("{certificate}.crt")),
            "client-key": paths.pki(&format!("{certificate}.key")),
        });
        let path = paths.kubeconfig(&file);
        let text = yaml(&document(&cluster.prefix(), &of, &user));
        write_if_changed(&path, text.as_bytes(), 0o600).map_err(file_error(&path))?;
    }
    let path = paths.kubeconfig("admin");
    let text = yaml(&admin(cluster, paths)?);
    write_if_changed(&path, text.as_bytes(), 0o600).map_err(file_error(&path)).map(drop)
}

/// The admin's kubeconfig, with everything in it.
///
/// # Errors
/// When a certificate cannot be read.
pub fn admin(cluster: &Cluster, paths: &Paths) -> Result<Value, KubeconfigError> {
    let read = |file: &str| {
        let path = paths.pki(file);
        fs::read(&path).map(|bytes| STANDARD.encode(bytes)).map_err(file_error(&path))
    };
    let of = json!({"server": server(cluster, false), "certificate-authority-data": read("ca.crt")?});
    let user = json!({"client-certificate-data": read("admin.crt")?, "client-key-data": read("admin.key")?});
    Ok(document(&cluster.prefix(), &of, &user))
}

/// The user's kubeconfig: the first file of $KUBECONFIG, or ~/.kube/config of whoever called sudo.
pub fn users_file() -> PathBuf {
    if let Some(list) = std::env::var_os("KUBECONFIG")
        && let Some(first) = std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty())
    {
        return std::path::absolute(&first).unwrap_or(first);
    }
    let home = std::env::var_os("SUDO_USER")
        .and_then(|user| home_of(&user.to_string_lossy(), &fs::read_to_string("/etc/passwd").ok()?))
        .or_else(|| std::env::var_os("HOME").map(PathBuf::from))
        .unwrap_or_else(|| "/root".into());
    home.join(".kube").join("config")
}

fn home_of(user: &str, passwd: &str) -> Option<PathBuf> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(5).map(PathBuf::from)
}

/// Takes kubectl's own lock on a kubeconfig; dropping it gives it back.
struct Lock(PathBuf);

impl Lock {
    async fn take(file: &Path) -> Result<Self, KubeconfigError> {
        let mut lock = file.as_os_str().to_owned();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        for _ in 0..100 {
            match OpenOptions::new().write(true).create_new(true).open(&lock) {
                Ok(_) => return Ok(Self(lock)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(KubeconfigError::File { path: lock, source: e }),
            }
            // Its holders write one small file; nothing says when they are done.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(KubeconfigError::Locked { path: file.to_owned(), lock })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, lock = %self.0.display(), "could not give the lock back");
        }
    }
}

fn read(path: &Path) -> Result<Option<Value>, KubeconfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(KubeconfigError::File { path: path.to_owned(), source: e }),
    };
    let content = |reason| KubeconfigError::Content { path: path.to_owned(), reason };
    if text.trim().is_empty() {
        return Ok(Some(json!({})));
    }
    let value: Value = serde_saphyr::from_str(&text).map_err(|e| content(e.to_string()))?;
    if value.is_object() { Ok(Some(value)) } else { Err(content("it is not a mapping".into())) }
}

/// Writes the user's file with the rights and the owner that it had, or those of its directory's owner.
fn write(path: &Path, value: &Value) -> io::Result<()> {
    // Through a link, so that the link stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let old = fs::metadata(&path).ok();
    let mode = old.as_ref().map_or(0o600, |m| m.permissions().mode() & 0o777);
    write_atomically(&path, yaml(value).as_bytes(), mode)?;
    let owner = old.or_else(|| fs::metadata(path.parent()?).ok());
    match owner {
        Some(owner) => std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())),
        None => Ok(()),
    }
}

const SECTIONS: [(&str, &str); 3] = [("clusters", "cluster"), ("users", "user"), ("contexts", "context")];

/// Puts the sections of `ours` into `theirs`, in the place of those of the same name, and makes its context current.
pub fn merge(theirs: Value, ours: &Value) -> Value {
    let mut merged = match theirs {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    for key in ["apiVersion", "kind"] {
        merged.entry(key).or_insert_with(|| ours[key].clone());
    }
    for (section, _) in SECTIONS {
        let list = merged.entry(section).or_insert_with(|| json!([]));
        if !list.is_array() {
            *list = json!([]);
        }
        let list = list.as_array_mut().expect("it was made a list");
        for entry in ours[section].as_array().into_iter().flatten() {
            match list.iter_mut().find(|e| e["name"] == entry["name"]) {
                Some(old) => *old = entry.clone(),
                None => list.push(entry.clone()),
            }
        }
    }
    merged.insert("current-context".into(), ours["current-context"].clone());
    Value::Object(merged)
}

/// Takes the sections called `name` out; if its context is current, `previous` becomes so where it still exists.
pub fn remove(mut theirs: Value, name: &str, previous: Option<&str>) -> Value {
    for (section, _) in SECTIONS {
        if let Some(list) = theirs[section].as_array_mut() {
            list.retain(|entry| entry["name"] != name);
        }
    }
    if theirs["current-context"] == name {
        let exists = |context: &str| {
            theirs["contexts"]
                .as_array()
                .is_some_and(|list| list.iter().any(|entry| entry["name"] == context))
        };
        let next = previous.filter(|context| exists(context)).unwrap_or_default();
        theirs["current-context"] = next.into();
    }
    theirs
}

/// Whether nothing is left in a kubeconfig.
fn is_empty(value: &Value) -> bool {
    SECTIONS.iter().all(|(section, _)| value[section].as_array().is_none_or(Vec::is_empty))
}

/// Merges the cluster's context into the user's kubeconfig. Returns the file.
///
/// # Errors
/// When the file is no kubeconfig, is locked, or cannot be written.
pub async fn install(
    cluster: &Cluster,
    paths: &Paths,
    journal: &mut Journal,
) -> Result<PathBuf, KubeconfigError> {
    let file = users_file();
    let name = cluster.prefix();
    if let Some(dir) = file.parent().filter(|dir| !dir.exists()) {
        // Removed again when it is empty.
        journal.record(Change::Directory { path: dir.to_owned() }).map_err(file_error(dir))?;
        fs::create_dir_all(dir).map_err(file_error(dir))?;
        if let Some(home) = dir.parent().and_then(|home| fs::metadata(home).ok()) {
            std::os::unix::fs::chown(dir, Some(home.uid()), Some(home.gid())).map_err(file_error(dir))?;
        }
    }
    let _lock = Lock::take(&file).await?;
    let theirs = read(&file)?;
    let ours = admin(cluster, paths)?;
    let previous =
        theirs.as_ref().and_then(|v| v["current-context"].as_str()).filter(|c| !c.is_empty() && *c != name);
    let known = |change: &Change| matches!(change, Change::Context { file: f, name: n, .. } if *f == file && *n == name);
    if !journal.has(known) {
        let change = Change::Context {
            file: file.clone(),
            name: name.clone(),
            previous: previous.map(str::to_owned),
            created: theirs.is_none(),
        };
        journal.record(change).map_err(file_error(&file))?;
    }
    let merged = merge(theirs.clone().unwrap_or_default(), &ours);
    if theirs.as_ref() != Some(&merged) {
        write(&file, &merged).map_err(file_error(&file))?;
    }
    Ok(file)
}

/// Takes a context out of a kubeconfig again; removes the file if the launcher made it and nothing is left.
///
/// # Errors
/// When the file is no kubeconfig, is locked, or cannot be written.
pub async fn uninstall(
    file: &Path,
    name: &str,
    previous: Option<&str>,
    created: bool,
) -> Result<(), KubeconfigError> {
    if !file.exists() {
        return Ok(());
    }
    let _lock = Lock::take(file).await?;
    let Some(theirs) = read(file)? else { return Ok(()) };
    let left = remove(theirs.clone(), name, previous);
    if created && is_empty(&left) {
        return fs::remove_file(file).map_err(file_error(file));
    }
    if left == theirs { Ok(()) } else { write(file, &left).map_err(file_error(file)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Value {
        document("coxswain", &json!({"server": "https://127.0.0.1:6443"}), &json!({"client-key-data": "x"}))
    }

    fn theirs() -> Value {
        let mut value = document("work", &json!({"server": "https://work"}), &json!({"token": "t"}));
        value["preferences"] = json!({"colors": true});
        value
    }

    #[test]
    fn what_was_there_comes_back_when_ours_goes() {
        let merged = merge(theirs(), &ours());
        assert_eq!(merged["current-context"], "coxswain");
        assert_eq!(merged["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(remove(merged, "coxswain", Some("work")), theirs());
    }

    #[test]
    fn merging_again_replaces() {
        let mut old = ours();
        old["users"][0]["user"] = json!({"client-key-data": "old"});
        assert_eq!(merge(old, &ours()), ours());
    }

    #[test]
    fn a_context_chosen_meanwhile_stays_current() {
        let mut merged = merge(theirs(), &ours());
        merged["current-context"] = json!("work");
        assert_eq!(remove(merged, "coxswain", None)["current-context"], "work");
    }

    #[test]
    fn a_previous_context_that_is_gone_is_not_made_current() {
        assert_eq!(remove(ours(), "coxswain", Some("gone"))["current-context"], "");
    }

    #[test]
    fn yaml_is_read_back_as_it_was() {
        let value = merge(theirs(), &ours());
        let back: Value = serde_saphyr::from_str(&yaml(&value)).unwrap();
        assert_eq!(back, value);
    }

    #[tokio::test]
    async fn a_file_that_was_made_for_us_goes_with_us() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        write(&file, &ours()).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        uninstall(&file, "coxswain", None, true).await.unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no file and no lock");
    }

    #[tokio::test]
    async fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        for text in ["- a\n- b\n", "a: [\n"] {
            fs::write(&file, text).unwrap();
            assert!(uninstall(&file, "coxswain", None, true).await.is_err(), "{text}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn homes_are_found_by_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(home_of("ann", passwd), Some("/home/ann".into()));
        assert_eq!(home_of("nobody", passwd), None);
    }
}
