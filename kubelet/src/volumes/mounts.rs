//! The mount table: what is mounted where, file systems in memory, bind mounts.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use super::VolumeError;

/// Undoes the octal escapes of blanks in `/proc/self/mountinfo`.
fn unescape(field: &str) -> String {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = field.get(at + 1..at + 4).and_then(|t| u8::from_str_radix(t, 8).ok());
        match (bytes[at], code) {
            (b'\\', Some(code)) => {
                out.push(code);
                at += 4;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The mount points in a mount table, in the order in which they were mounted.
pub fn parse(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|f| PathBuf::from(unescape(f))).collect()
}

/// The mount points at or beneath a path, the last one mounted first.
pub fn beneath(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<_> = parse(&table).into_iter().filter(|p| p.starts_with(path)).collect();
    points.reverse();
    Ok(points)
}

fn is_mounted(path: &Path) -> io::Result<bool> {
    Ok(beneath(path)?.iter().any(|p| p == path))
}

/// Mounts a file system in memory, unless one is there; whether it was mounted now.
pub fn tmpfs(path: &Path, size: Option<i64>) -> Result<bool, VolumeError> {
    if is_mounted(path).map_err(VolumeError::io("look at mounts of", path))? {
        return Ok(false);
    }
    let options = size.map_or_else(|| "mode=0755".to_owned(), |size| format!("mode=0755,size={size}"));
    let options = CString::new(options).expect("the options are digits and letters");
    let flags = MountFlags::empty();
    let data: &CStr = &options;
    rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(data))
        .map_err(|e| VolumeError::io("mount tmpfs on", path)(e.into()))?;
    Ok(true)
}

/// Mounts what a descriptor refers to at a path that exists.
pub fn bind_fd(source: BorrowedFd<'_>, target: &Path) -> Result<(), VolumeError> {
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    rustix::mount::mount_bind(source.as_str(), target)
        .map_err(|e| VolumeError::io("bind mount on", target)(e.into()))
}

/// Unmounts everything at or beneath a path; what is busy is detached.
pub fn unmount_beneath(path: &Path) -> Result<(), VolumeError> {
    for point in beneath(path).map_err(VolumeError::io("look at mounts of", path))? {
        let plain = rustix::mount::unmount(&point, UnmountFlags::NOFOLLOW);
        let done = match plain {
            Err(rustix::io::Errno::BUSY) => {
                rustix::mount::unmount(&point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
            }
            other => other,
        };
        done.map_err(|e| VolumeError::io("unmount", &point)(e.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let table = "22 1 8:1 / / rw - ext4 /dev/a rw\n30 22 0:5 / /a\\040b rw shared:1 - tmpfs tmpfs rw\n";
        assert_eq!(parse(table), [PathBuf::from("/"), PathBuf::from("/a b")]);
        assert_eq!(unescape("a\\"), "a\\");
        assert_eq!(unescape("\\0é"), "\\0é");
    }
}
