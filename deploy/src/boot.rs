//! The boot of a node: what the first process of its namespaces does before it becomes the one that only waits.
//!
//! A node sees the host's files, except that /run is empty, and that /var/lib and /var/log are its own disk. It has
//! its own process numbers, host name, network and view of /sys. When its first process dies, all of it dies.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};

/// What a node's first process is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The file of its network namespace.
    pub netns: PathBuf,
    /// Its host name.
    pub hostname: String,
    /// The program that it becomes.
    pub pause: PathBuf,
    /// Its /var/lib.
    pub var_lib: PathBuf,
    /// Its /var/log.
    pub var_log: PathBuf,
    /// Its /etc/resolv.conf: the host's names a server that it may not reach.
    pub resolv_conf: PathBuf,
    /// Directories of the host that it must see at their place: sockets, settings, binaries.
    pub keep: Vec<PathBuf>,
}

/// Sets the namespaces up, says "ready" on standard output, and becomes the program that waits.
///
/// # Errors
/// Returns only when something failed; it has then been said on standard output.
pub fn run(boot: &Boot) -> io::Result<()> {
    let result = prepare(boot).and_then(|()| {
        println!("ready");
        io::stdout().flush()?;
        // Whoever started us reads standard output until it is closed.
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        Err(Command::new(&boot.pause).arg0(format!("coxswain-node {}", boot.hostname)).exec())
    });
    result.inspect_err(|error| println!("{error}"))
}

fn step<T>(what: impl std::fmt::Display, result: rustix::io::Result<T>) -> io::Result<T> {
    result.map_err(|e| {
        io::Error::new(io::Error::from(e).kind(), format!("could not {what}: {}", io::Error::from(e)))
    })
}

fn prepare(boot: &Boot) -> io::Result<()> {
    let netns =
        step("open the network namespace", rustix::fs::open(&boot.netns, OFlags::RDONLY, Mode::empty()))?;
    let network = Some(LinkNameSpaceType::Network);
    step("enter the network namespace", rustix::thread::move_into_link_name_space(netns.as_fd(), network))?;
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    // SAFETY: this process has one thread, and no descriptors are unshared.
    step("make namespaces", unsafe { rustix::thread::unshare_unsafe(flags) })?;
    step("set the host name", rustix::system::sethostname(boot.hostname.as_bytes()))?;
    // First nothing that is mounted here may reach the host; then pods may ask for propagation within the node.
    for kind in [MountPropagationFlags::DOWNSTREAM, MountPropagationFlags::SHARED] {
        step("separate the mounts", rustix::mount::mount_change("/", kind | MountPropagationFlags::REC))?;
    }
    cover_sys()?;
    step("mount /proc", mount("proc", "/proc"))?;
    // Often a link into /run, which is about to be empty.
    let resolv_conf = fs::canonicalize("/etc/resolv.conf").ok();
    cover("/var/log", &boot.keep, |target| rustix::mount::mount_bind(&boot.var_log, target))?;
    cover("/var/lib", &boot.keep, |target| rustix::mount::mount_bind(&boot.var_lib, target))?;
    cover("/run", &boot.keep, |target| mount("tmpfs", target))?;
    if let Some(path) = resolv_conf {
        if !path.exists() {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/run")))?;
            fs::write(&path, "")?;
        }
        step("give it its name servers", rustix::mount::mount_bind(&boot.resolv_conf, &path))?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    Ok(())
}

fn mount(kind: &str, target: &str) -> rustix::io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let options = if kind == "tmpfs" { c"mode=0755" } else { c"" };
    rustix::mount::mount(kind, target, kind, flags, Some(options))
}

/// A copy of the mounts at and below a directory, to be put somewhere.
fn detached(path: &Path) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    step(format_args!("take {} along", path.display()), rustix::mount::open_tree(CWD, path, flags))
}

fn put(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    let empty = CString::default();
    step(
        format_args!("put {} in its place", path.display()),
        rustix::mount::move_mount(tree, empty.as_c_str(), CWD, path, flags),
    )
}

/// Covers `target` with a mount, through which the directories of `keep` below it are still seen.
fn cover(
    target: &str,
    keep: &[PathBuf],
    mount: impl FnOnce(&str) -> rustix::io::Result<()>,
) -> io::Result<()> {
    let mut kept = Vec::new();
    for path in below(target, keep) {
        kept.push((detached(path)?, path));
    }
    step(format_args!("cover {target}"), mount(target))?;
    for (tree, path) in kept {
        fs::create_dir_all(path)?;
        put(&tree, path)?;
    }
    Ok(())
}

/// The directories of `keep` that lie below `target` and not below one another.
fn below<'a>(target: &str, keep: &'a [PathBuf]) -> Vec<&'a Path> {
    let mut found: Vec<&Path> = keep.iter().map(PathBuf::as_path).filter(|p| p.starts_with(target)).collect();
    found.sort();
    found.dedup_by(|later, earlier| later.starts_with(*earlier));
    found
}

/// Shows the node's own network in /sys, and the host's cgroups.
fn cover_sys() -> io::Result<()> {
    let cgroups = Path::new("/sys/fs/cgroup");
    let tree = detached(cgroups)?;
    step("mount /sys", mount("sysfs", "/sys"))?;
    put(&tree, cgroups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: &str, keep: &[&str], expected: &[&str]) {
        let keep: Vec<PathBuf> = keep.iter().map(PathBuf::from).collect();
        assert_eq!(below(target, &keep), expected.iter().map(Path::new).collect::<Vec<_>>());
    }

    #[test]
    fn only_what_a_mount_would_hide_is_kept_and_each_once() {
        let keep = ["/run/coxswain/a", "/var/lib/coxswain/a", "/var/lib/coxswain/a/bin", "/opt/bin"];
        check("/run", &keep, &["/run/coxswain/a"]);
        check("/var/lib", &keep, &["/var/lib/coxswain/a"]);
        check("/var/log", &keep, &[]);
        check("/run", &["/runner/bin"], &[]);
        check("/run", &["/run/x", "/run/x"], &["/run/x"]);
    }
}
