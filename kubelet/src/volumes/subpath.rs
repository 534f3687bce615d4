//! subPath mounts: a part of a volume, resolved so that no symbolic link in it leads out.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{VolumeError, mounts};

fn open_root(root: &Path) -> Result<OwnedFd, VolumeError> {
    rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| VolumeError::io("open", root)(e.into()))
}

/// Opens a path beneath a root; links may not lead out of it.
fn open_beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Opens the part of a volume at `sub`, making directories where nothing is.
pub fn open(root: &Path, sub: &str) -> Result<OwnedFd, VolumeError> {
    super::check_path(sub)?;
    let fail = |errno: Errno| VolumeError::io("resolve subPath", &root.join(sub))(errno.into());
    let base = open_root(root)?;
    match open_beneath(&base, Path::new(sub)) {
        Err(Errno::NOENT) => {}
        other => return other.map_err(fail),
    }
    let mut done = PathBuf::new();
    for part in Path::new(sub).components().map(|c| c.as_os_str()) {
        let parent = if done.as_os_str().is_empty() {
            base.try_clone().map_err(VolumeError::io("open", root))?
        } else {
            open_beneath(&base, &done).map_err(fail)?
        };
        make_directory(&parent, part).map_err(fail)?;
        done.push(part);
    }
    open_beneath(&base, &done).map_err(fail)
}

fn make_directory(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o750)) {
        Ok(()) => rustix::fs::chmodat(parent, name, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty()),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Mounts the part of a volume at `sub` on a place of the pod's own, and returns that place. Idempotent.
pub fn bind(root: &Path, sub: &str, place: &Path) -> Result<PathBuf, VolumeError> {
    // The runtime keeps what it mounted; a place that is left over from an earlier run is made anew.
    mounts::unmount_beneath(place)?;
    let source = open(root, sub)?;
    let stat = rustix::fs::fstat(&source).map_err(|e| VolumeError::io("stat", place)(e.into()))?;
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).map_err(VolumeError::io("create", parent))?;
    }
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let made = if is_dir {
        fs::create_dir_all(place)
    } else {
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(place).map(|_| ())
    };
    made.map_err(VolumeError::io("create", place))?;
    mounts::bind_fd(source.as_fd(), place)?;
    Ok(place.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_may_lead_about_in_the_volume_but_not_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("v");
        fs::create_dir_all(root.join("..1")).unwrap();
        fs::write(root.join("..1/key"), "x").unwrap();
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/key", root.join("key")).unwrap();
        symlink("/etc", root.join("etc")).unwrap();
        symlink("../..", root.join("up")).unwrap();
        assert!(open(&root, "key").is_ok());
        for out in ["etc", "etc/passwd", "up", "up/new", "../x", "/etc", "a/../../b"] {
            assert!(open(&root, out).is_err(), "{out}");
        }
        assert!(open(&root, "new/dir").is_ok());
        assert!(root.join("new/dir").is_dir());
    }
}
