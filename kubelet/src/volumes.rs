//! A pod's volumes: what is read from the API, then set up on disk, refreshed, mounted and torn down.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::objects::Objects;
use crate::pod::env::{EnvError, Facts};

pub mod atomic;
pub mod config_map;
pub mod downward_api;
pub mod empty_dir;
pub mod host_path;
pub mod mounts;
pub mod projected;
pub mod secret;
pub mod subpath;
pub mod teardown;

/// Why a volume could not be set up; to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The ConfigMap is missing.
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    /// The Secret is missing.
    #[error("secret {0:?} not found")]
    NoSecret(String),
    /// The object could not be read.
    #[error("{0}")]
    Fetch(#[from] client::Error),
    /// An item names a key that the object does not have.
    #[error("references non-existent {kind} key: {key}")]
    NoKey {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// An item's path leaves the volume.
    #[error("invalid path {0:?}: must be relative and must not contain '..'")]
    Path(String),
    /// A field of the pod cannot be had.
    #[error(transparent)]
    Field(#[from] EnvError),
    /// The host's path is of another type than was asked for.
    #[error("hostPath type check failed: {path} is not {wanted}")]
    HostPathType {
        /// The path.
        path: String,
        /// Such as `a directory`.
        wanted: &'static str,
    },
    /// The type of hostPath is unknown.
    #[error("{0} is an invalid volume type")]
    UnknownHostPathType(String),
    /// The API server gave no token.
    #[error("failed to fetch token: {0}")]
    Token(#[source] client::Error),
    /// This node has no way to provide such a volume.
    #[error("no volume plugin matched name: {0}")]
    Unsupported(String),
    /// A system call failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// How it failed.
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    /// A failed system call on a path.
    pub fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { what, path, source }
    }
}

/// One file of a volume that is made from the API.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// The content.
    pub data: Vec<u8>,
    /// Permissions.
    pub mode: u32,
}

/// The files of a volume by their paths within it.
pub type Payload = BTreeMap<String, File>;

/// What a volume is on disk.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A directory, in memory if so wished.
    EmptyDir(empty_dir::EmptyDir),
    /// Files from the API; secrets are kept in memory.
    Files {
        /// The files.
        payload: Payload,
        /// Whether they must not reach a disk.
        in_memory: bool,
    },
    /// A path of the node.
    HostPath(host_path::HostPath),
}

/// A volume, ready to be set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Its name in the pod.
    pub name: String,
    /// Where it is on the node.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// A path that stays beneath where it is put: relative, without `..`.
pub fn check_path(path: &str) -> Result<&str, VolumeError> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.split('/').any(|p| p == "..")
        || path.starts_with("..");
    if bad { Err(VolumeError::Path(path.to_owned())) } else { Ok(path) }
}

/// Where a volume is on the node, whether or not it is set up yet.
pub fn path_of(pod_dir: &Path, volume: &Volume) -> PathBuf {
    let plugin = if volume.empty_dir.is_some() {
        "kubernetes.io~empty-dir"
    } else if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else if let Some(host) = &volume.host_path {
        return PathBuf::from(&host.path);
    } else if volume.projected.is_some() {
        "kubernetes.io~projected"
    } else {
        "kubernetes.io~empty-dir"
    };
    pod_dir.join("volumes").join(plugin).join(&volume.name)
}

fn unsupported(volume: &Volume) -> VolumeError {
    let fields = serde_json::to_value(volume).ok();
    let fields = fields.as_ref().and_then(|v| v.as_object());
    let kind = fields.and_then(|f| f.keys().find(|k| *k != "name").cloned());
    VolumeError::Unsupported(kind.unwrap_or_else(|| volume.name.clone()))
}

async fn prepare_one(
    objects: &Objects,
    pod: &Pod,
    volume: &Volume,
    facts: &Facts,
    pod_dir: &Path,
) -> Result<Prepared, VolumeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let files = |payload, in_memory| Kind::Files { payload, in_memory };
    let kind = if let Some(source) = &volume.config_map {
        let object = objects.config_map(namespace, &source.name).await?;
        files(config_map::payload(source, object.as_deref())?, false)
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let object = objects.secret(namespace, name).await?;
        files(secret::payload(source, object.as_deref())?, true)
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode;
        files(downward_api::payload(pod, source.items.as_deref().unwrap_or_default(), mode, facts)?, false)
    } else if let Some(source) = &volume.projected {
        let fetched = projected::fetch(objects, pod, source).await?;
        files(projected::payload(pod, source, &fetched, facts)?, true)
    } else if let Some(source) = &volume.host_path {
        Kind::HostPath(host_path::HostPath::from(source))
    } else if volume.empty_dir.is_some() || is_bare(volume) {
        Kind::EmptyDir(empty_dir::EmptyDir::from(volume.empty_dir.as_ref()))
    } else {
        return Err(unsupported(volume));
    };
    Ok(Prepared { name: volume.name.clone(), path: path_of(pod_dir, volume), kind })
}

/// A volume without a source is an empty directory.
fn is_bare(volume: &Volume) -> bool {
    *volume == Volume { name: volume.name.clone(), ..Volume::default() }
}

/// Reads what a pod's volumes are made from. The error names the volume.
pub async fn prepare(
    objects: &Objects,
    pod: &Pod,
    facts: &Facts,
    pod_dir: &Path,
) -> Result<Vec<Prepared>, (String, VolumeError)> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let mut prepared = Vec::new();
    for volume in volumes {
        let one = prepare_one(objects, pod, volume, facts, pod_dir).await;
        prepared.push(one.map_err(|error| (volume.name.clone(), error))?);
    }
    Ok(prepared)
}

/// Sets a volume up, or brings its files up to date. Idempotent. Blocks.
pub fn set_up(volume: &Prepared, fs_group: Option<i64>) -> Result<(), VolumeError> {
    match &volume.kind {
        Kind::EmptyDir(dir) => empty_dir::set_up(&volume.path, dir, fs_group),
        Kind::Files { payload, in_memory } => {
            std::fs::create_dir_all(&volume.path).map_err(VolumeError::io("create", &volume.path))?;
            if *in_memory {
                mounts::tmpfs(&volume.path, None)?;
            }
            atomic::write(&volume.path, payload, fs_group).map(|_| ())
        }
        Kind::HostPath(host) => host_path::set_up(&volume.path, host),
    }
}

/// Brings the files of a volume that is set up to date. Blocks. True when something changed.
pub fn refresh(volume: &Prepared, fs_group: Option<i64>) -> Result<bool, VolumeError> {
    match &volume.kind {
        Kind::Files { payload, .. } if volume.path.exists() => atomic::write(&volume.path, payload, fs_group),
        Kind::Files { .. } | Kind::EmptyDir(_) | Kind::HostPath(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_beneath_the_volume() {
        for bad in ["", "/a", "..", "../a", "a/../b", "..a"] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        assert!(check_path("a/b.c").is_ok());
    }
}
