//! The cluster's cgroups: one tree in every v1 hierarchy and in the unified one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::journal::{Change, Journal};

/// The controllers that kubelets and containers need of a pure unified hierarchy.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Whether it is the unified one (v2).
    pub unified: bool,
    /// Whether it has the cpuset controller of v1, whose new groups admit nobody until they are given CPUs.
    pub cpuset: bool,
}

/// The hierarchies that a `mountinfo` names, each once.
pub fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    let mut devices = Vec::new();
    for line in mountinfo.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let Some(dash) = fields.iter().position(|f| *f == "-") else { continue };
        let (Some(device), Some(target), Some(kind)) = (fields.get(2), fields.get(4), fields.get(dash + 1))
        else {
            continue;
        };
        let unified = *kind == "cgroup2";
        if (!unified && *kind != "cgroup") || devices.contains(device) {
            continue;
        }
        devices.push(device);
        let options = fields.get(dash + 3).copied().unwrap_or_default();
        let cpuset = !unified && options.split(',').any(|o| o == "cpuset");
        found.push(Hierarchy { mount: PathBuf::from(target), unified, cpuset });
    }
    found
}

/// The hierarchies of this machine.
///
/// # Errors
/// When they cannot be read, or when there are none.
pub fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let found = parse(&fs::read_to_string("/proc/self/mountinfo")?);
    if found.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no cgroup hierarchy is mounted below /sys/fs/cgroup",
        ));
    }
    Ok(found)
}

/// Makes `path` in every hierarchy, with all that it takes to put processes and further groups into it.
///
/// # Errors
/// When a group cannot be made.
pub fn create(hierarchies: &[Hierarchy], path: &str) -> io::Result<()> {
    let pure = hierarchies.iter().all(|h| h.unified);
    for hierarchy in hierarchies {
        let mut dir = hierarchy.mount.clone();
        for part in path.split('/') {
            if hierarchy.unified && pure {
                delegate(&dir)?;
            }
            let parent = dir.clone();
            dir.push(part);
            match fs::create_dir(&dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(named(e, &dir)),
                _ => {}
            }
            if hierarchy.cpuset {
                inherit(&parent, &dir)?;
            }
        }
    }
    Ok(())
}

fn named(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Gives a group's children the controllers that the group has itself.
fn delegate(dir: &Path) -> io::Result<()> {
    let wanted = missing_controllers(dir)?;
    if wanted.is_empty() {
        return Ok(());
    }
    let line: String = wanted.iter().map(|c| format!("+{c} ")).collect();
    let file = dir.join("cgroup.subtree_control");
    fs::write(&file, line.trim_end()).map_err(|e| named(e, &file))
}

fn missing_controllers(dir: &Path) -> io::Result<Vec<String>> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).map_err(|e| named(e, &dir.join(name)));
    let (has, gives) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
    let listed = |text: &str, name: &str| text.split_whitespace().any(|c| c == name);
    Ok(CONTROLLERS
        .iter()
        .filter(|c| listed(&has, c) && !listed(&gives, c))
        .map(ToString::to_string)
        .collect())
}

fn inherit(parent: &Path, dir: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(dir.join(file))?.trim().is_empty() {
            fs::write(dir.join(file), fs::read(parent.join(file))?).map_err(|e| named(e, &dir.join(file)))?;
        }
    }
    Ok(())
}

/// Makes the cluster's root group and writes it down.
///
/// # Errors
/// When the journal or the groups cannot be written.
pub fn create_root(path: &str, journal: &mut Journal) -> io::Result<()> {
    let found = hierarchies()?;
    if let [only] = found.as_slice()
        && only.unified
    {
        let names = missing_controllers(&only.mount)?;
        if !names.is_empty() {
            journal.record(Change::CgroupControllers { names })?;
        }
    }
    journal.record(Change::Cgroup { path: path.to_owned() })?;
    create(&found, path)
}

/// Takes controllers away again that were given for us. Another cluster may still need them; then they stay.
///
/// # Errors
/// When the hierarchies cannot be read.
pub fn withdraw(names: &[String]) -> io::Result<()> {
    for hierarchy in hierarchies()?.iter().filter(|h| h.unified) {
        let busy = fs::read_dir(&hierarchy.mount)?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with(crate::cluster::DEFAULT_NAME));
        if !busy {
            let line: String = names.iter().map(|c| format!("-{c} ")).collect();
            let file = hierarchy.mount.join("cgroup.subtree_control");
            match fs::write(&file, line.trim_end()) {
                // By now somebody else has come to rely on them.
                Err(e) if e.kind() != io::ErrorKind::ResourceBusy => return Err(named(e, &file)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The files into which a process writes "0" to enter the group, one per hierarchy.
///
/// # Errors
/// When the hierarchies cannot be read.
pub fn entrances(path: &str) -> io::Result<Vec<PathBuf>> {
    let join = |h: &Hierarchy| h.mount.join(path).join("cgroup.procs");
    Ok(hierarchies()?.iter().map(join).collect())
}

/// The processes in a group and below it, in any hierarchy.
///
/// # Errors
/// When the hierarchies cannot be read.
pub fn members(path: &str) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for hierarchy in hierarchies()? {
        for dir in tree(&hierarchy.mount.join(path)) {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// A directory and all below it, the deepest first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        pending
            .extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        all.push(dir);
    }
    all.reverse();
    all
}

/// Kills what is left in a group and removes it with all below it.
///
/// # Errors
/// When processes in it do not die, or it cannot be removed, within `patience`.
pub async fn remove(path: &str, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        for pid in members(path)? {
            crate::process::kill(pid);
        }
        let Err(error) = remove_once(path) else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(error);
        }
        // The kernel tells nobody when a v1 group has become empty.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Removes the empty groups below a group, as after a reboot. What is not empty stays.
pub fn sweep(path: &str) {
    for hierarchy in hierarchies().unwrap_or_default() {
        for dir in tree(&hierarchy.mount.join(path)) {
            // One that is in use refuses; whoever makes it anew finds it.
            let _ = fs::remove_dir(&dir);
        }
    }
}

fn remove_once(path: &str) -> io::Result<()> {
    for hierarchy in hierarchies()? {
        for dir in tree(&hierarchy.mount.join(path)) {
            match fs::remove_dir(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(named(e, &dir)),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine_has_every_v1_hierarchy_and_the_unified_one() {
        let text = "\
31 23 0:28 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw,mode=755\n\
32 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
90 31 0:29 / /mnt/again rw - cgroup cgroup rw,cpuset\n";
        let found = parse(text);
        let seen: Vec<_> = found.iter().map(|h| (h.mount.to_str().unwrap(), h.unified, h.cpuset)).collect();
        assert_eq!(
            seen,
            [
                ("/sys/fs/cgroup/cpuset", false, true),
                ("/sys/fs/cgroup/systemd", false, false),
                ("/sys/fs/cgroup/unified", true, false)
            ]
        );
    }

    #[test]
    fn a_modern_machine_has_the_unified_one_alone() {
        let found = parse("29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].unified);
    }
}
