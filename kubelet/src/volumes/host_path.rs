//! hostPath volumes.

use std::fs::{self, FileType, OpenOptions, Permissions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::VolumeError;

/// A path of the node, and what must be found there.
#[derive(Clone, Debug, PartialEq)]
pub struct HostPath {
    type_: String,
}

impl From<&HostPathVolumeSource> for HostPath {
    fn from(source: &HostPathVolumeSource) -> Self {
        Self { type_: source.type_.clone().unwrap_or_default() }
    }
}

/// Checks, and for the `…OrCreate` types makes, what the volume is to be.
pub fn set_up(path: &Path, host: &HostPath) -> Result<(), VolumeError> {
    let check = |wanted: &'static str, is: fn(&FileType) -> bool| {
        // Symbolic links are followed: what is mounted is what they lead to.
        match fs::metadata(path) {
            Ok(found) if is(&found.file_type()) => Ok(()),
            Ok(_) | Err(_) => Err(VolumeError::HostPathType { path: path.display().to_string(), wanted }),
        }
    };
    match host.type_.as_str() {
        "" => Ok(()),
        "Directory" => check("a directory", FileType::is_dir),
        "DirectoryOrCreate" => {
            if !path.exists() {
                fs::create_dir_all(path).map_err(VolumeError::io("create", path))?;
                fs::set_permissions(path, Permissions::from_mode(0o755))
                    .map_err(VolumeError::io("chmod", path))?;
            }
            check("a directory", FileType::is_dir)
        }
        "File" => check("a file", FileType::is_file),
        "FileOrCreate" => {
            if !path.exists() {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(false).mode(0o644);
                options.open(path).map_err(VolumeError::io("create", path))?;
            }
            check("a file", FileType::is_file)
        }
        "Socket" => check("a socket file", FileType::is_socket),
        "CharDevice" => check("a character device", FileType::is_char_device),
        "BlockDevice" => check("a block device", FileType::is_block_device),
        other => Err(VolumeError::UnknownHostPathType(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_checked_or_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let try_it = |name: &str, type_: &str| set_up(&path(name), &HostPath { type_: type_.into() });
        assert!(try_it("d", "Directory").is_err());
        assert!(try_it("d", "DirectoryOrCreate").is_ok() && try_it("d", "Directory").is_ok());
        assert!(try_it("d", "File").is_err());
        assert!(try_it("f", "FileOrCreate").is_ok() && try_it("f", "File").is_ok());
        let error = try_it("f", "Socket").unwrap_err().to_string();
        assert_eq!(
            error,
            format!("hostPath type check failed: {} is not a socket file", path("f").display())
        );
        assert!(try_it("x", "").is_ok());
        assert!(try_it("x", "Nonsense").is_err());
    }
}
