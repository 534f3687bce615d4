//! The end of a pod's volumes: unmounted first, then removed, never the other way round.

use std::fs;
use std::io;
use std::path::Path;

use super::{VolumeError, mounts};

/// Unmounts everything in a pod's directory and removes its volumes. Idempotent. Blocks.
pub fn volumes(pod_dir: &Path) -> Result<(), VolumeError> {
    unmounted(pod_dir)?;
    for part in ["volumes", "volume-subpaths"] {
        remove(&pod_dir.join(part))?;
    }
    Ok(())
}

/// Removes a pod's directory. Idempotent. Blocks.
pub fn directory(pod_dir: &Path) -> Result<(), VolumeError> {
    unmounted(pod_dir)?;
    remove(pod_dir)
}

fn unmounted(pod_dir: &Path) -> Result<(), VolumeError> {
    mounts::unmount_beneath(pod_dir)?;
    let left = mounts::beneath(pod_dir).map_err(VolumeError::io("look at mounts of", pod_dir))?;
    match left.first() {
        None => Ok(()),
        Some(point) => Err(VolumeError::io("unmount", point)(io::Error::other("still mounted"))),
    }
}

fn remove(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(VolumeError::io("remove", path)(error)),
        _ => Ok(()),
    }
}
