//! Writes a volume's files so that readers see all of the old ones or all of the new ones: a new
//! directory beside the old one, and one rename of the symbolic link `..data`.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use super::{File, Payload, VolumeError, check_path};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes the directory's files equal to the payload. True when something changed. Blocks.
pub fn write(dir: &Path, payload: &Payload, group: Option<i64>) -> Result<bool, VolumeError> {
    for path in payload.keys() {
        check_path(path)?;
    }
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.as_ref().is_some_and(|old| is_current(&dir.join(old), payload, group)) {
        return Ok(false);
    }
    let name = fresh_name(dir);
    let fresh = dir.join(&name);
    fs::create_dir(&fresh).map_err(VolumeError::io("create", &fresh))?;
    set_permissions(&fresh, 0o755, group)?;
    for (path, file) in payload {
        write_file(&fresh, path, file, group)?;
    }
    let link = dir.join(NEW_DATA);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(VolumeError::io("remove", &link)(error));
        }
        _ => {}
    }
    symlink(&name, &link).map_err(VolumeError::io("link", &link))?;
    fs::rename(&link, &data).map_err(VolumeError::io("rename", &link))?;
    publish(dir, payload)?;
    if let Some(old) = old {
        let old = dir.join(old);
        fs::remove_dir_all(&old).map_err(VolumeError::io("remove", &old))?;
    }
    Ok(true)
}

/// A name that starts with two dots, as all of this machinery does, and is not taken.
fn fresh_name(dir: &Path) -> String {
    loop {
        let name = format!("..{:016x}", rand::random::<u64>());
        if !dir.join(&name).exists() {
            return name;
        }
    }
}

fn is_current(dir: &Path, payload: &Payload, group: Option<i64>) -> bool {
    let mut present = BTreeSet::new();
    if collect(dir, dir, &mut present).is_err() || !present.iter().eq(payload.keys()) {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let path = dir.join(path);
        let mode = effective_mode(file.mode, group);
        fs::metadata(&path).is_ok_and(|m| m.mode() & 0o7777 == mode)
            && fs::read(&path).is_ok_and(|d| d == file.data)
    })
}

fn collect(root: &Path, dir: &Path, found: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(root, &entry.path(), found)?;
        } else if let Ok(relative) = entry.path().strip_prefix(root) {
            found.insert(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// The group that a volume belongs to may read its files.
fn effective_mode(mode: u32, group: Option<i64>) -> u32 {
    if group.is_some() { mode | 0o440 } else { mode }
}

fn set_permissions(path: &Path, mode: u32, group: Option<i64>) -> Result<(), VolumeError> {
    if let Some(group) = group.and_then(|g| u32::try_from(g).ok()) {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(VolumeError::io("chown", path))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(VolumeError::io("chmod", path))
}

fn write_file(root: &Path, path: &str, file: &File, group: Option<i64>) -> Result<(), VolumeError> {
    let target = root.join(path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(VolumeError::io("create", parent))?;
    }
    let mut options = OpenOptions::new();
    let mut open = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&target)
        .map_err(VolumeError::io("create", &target))?;
    open.write_all(&file.data).map_err(VolumeError::io("write", &target))?;
    set_permissions(&target, effective_mode(file.mode, group), group)
}

/// Links for the first parts of all paths; those whose files are gone are removed.
fn publish(dir: &Path, payload: &Payload) -> Result<(), VolumeError> {
    let wanted: BTreeSet<_> = payload.keys().filter_map(|p| p.split('/').next()).map(str::to_owned).collect();
    for entry in fs::read_dir(dir).map_err(VolumeError::io("read", dir))? {
        let entry = entry.map_err(VolumeError::io("read", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(entry.path()).map_err(VolumeError::io("remove", &entry.path()))?;
        }
    }
    for name in wanted {
        let link = dir.join(&name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(&name), &link).map_err(VolumeError::io("link", &link))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, data)| ((*path).to_owned(), File { data: data.as_bytes().to_vec(), mode: 0o644 }))
            .collect()
    }

    #[test]
    fn files_are_replaced_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).ok();
        assert!(write(dir.path(), &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert_eq!((read("a"), read("sub/b")), (Some("1".into()), Some("2".into())));
        assert!(!write(dir.path(), &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert!(write(dir.path(), &payload(&[("a", "3"), ("c", "4")]), None).unwrap());
        assert_eq!((read("a"), read("sub/b"), read("c")), (Some("3".into()), None, Some("4".into())));
        assert!(write(dir.path(), &payload(&[]), None).unwrap());
        assert_eq!((read("a"), fs::read_dir(dir.path()).unwrap().count()), (None, 2));
    }

    #[test]
    fn modes_are_kept_and_the_volume_cannot_be_left() {
        let dir = tempfile::tempdir().unwrap();
        let file = File { data: Vec::new(), mode: 0o400 };
        write(dir.path(), &Payload::from([("k".into(), file.clone())]), None).unwrap();
        assert_eq!(fs::metadata(dir.path().join("k")).unwrap().mode() & 0o777, 0o400);
        assert!(write(dir.path(), &Payload::from([("../k".into(), file)]), None).is_err());
    }
}
