//! emptyDir volumes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use api::quantity::Amount;
use k8s_openapi::api::core::v1::EmptyDirVolumeSource;

use super::{VolumeError, mounts};

/// An empty directory as it is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmptyDir {
    /// Whether it is kept in memory.
    pub in_memory: bool,
    /// The most that it may hold, in bytes. It is enforced in memory alone.
    pub size_limit: Option<i64>,
}

impl From<Option<&EmptyDirVolumeSource>> for EmptyDir {
    fn from(source: Option<&EmptyDirVolumeSource>) -> Self {
        let limit = source.and_then(|s| s.size_limit.as_ref()).and_then(|q| Amount::try_from(q).ok());
        Self {
            in_memory: source.is_some_and(|s| s.medium.as_deref() == Some("Memory")),
            size_limit: limit.map(Amount::to_units).filter(|l| *l > 0),
        }
    }
}

/// Makes the directory, once: what a restarted container finds in it is its own.
pub fn set_up(path: &Path, dir: &EmptyDir, group: Option<i64>) -> Result<(), VolumeError> {
    let present = path.exists();
    fs::create_dir_all(path).map_err(VolumeError::io("create", path))?;
    let mounted = dir.in_memory && mounts::tmpfs(path, dir.size_limit)?;
    if present && !mounted {
        return Ok(());
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    if let Some(group) = group.and_then(|g| u32::try_from(g).ok()) {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(VolumeError::io("chown", path))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(VolumeError::io("chmod", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn everyone_may_write_and_content_survives_a_second_set_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        set_up(&path, &EmptyDir::default(), None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o777);
        fs::write(path.join("f"), "x").unwrap();
        set_up(&path, &EmptyDir::default(), None).unwrap();
        assert_eq!(fs::read(path.join("f")).unwrap(), b"x");
    }
}
