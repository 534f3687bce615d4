//! The machine: commands, mount namespaces, and whether the launcher may do what it has to.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// A command that could not be run or failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("could not run `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("`{command}` failed: {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// What it said.
        stderr: String,
    },
}

/// Runs a command to its end and returns what it printed. Blocks.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub fn run<I, S>(program: &str, args: I) -> Result<Vec<u8>, CommandError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    run_with_input(program, args, b"")
}

/// Runs a command with something to read. Blocks.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub fn run_with_input<I, S>(program: &str, args: I, input: &[u8]) -> Result<Vec<u8>, CommandError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let args: Vec<_> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
    let line = args.iter().fold(program.to_owned(), |line, arg| format!("{line} {}", arg.to_string_lossy()));
    let error = |source| CommandError::Start { command: line.clone(), source };
    let mut child = Command::new(find_program(program).unwrap_or_else(|| program.into()))
        .args(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(error)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
            // A command that ends before it has read everything says why on its own.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(error(e)),
            _ => drop(stdin),
        }
    }
    let output = child.wait_with_output().map_err(error)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let stderr = if said.is_empty() { output.status.to_string() } else { said.to_owned() };
    Err(CommandError::Failed { command: line, stderr })
}

/// Finds a program on PATH or where administration programs lie, which a user's PATH leaves out.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    dirs.iter()
        .map(|dir| dir.join(name))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
}

/// Runs a list of `ip` commands in one process, in a named namespace or in the launcher's.
///
/// # Errors
/// When one of them fails; those after it are not tried.
pub fn ip_batch(netns: Option<&str>, batch: &str) -> Result<(), CommandError> {
    let mut args = Vec::new();
    if let Some(name) = netns {
        args.extend(["-n", name]);
    }
    args.extend(["-batch", "-"]);
    run_with_input("ip", args, batch.as_bytes()).map(drop).map_err(|error| match error {
        // `ip` names a line by its number only.
        CommandError::Failed { command, stderr } => {
            CommandError::Failed { command, stderr: format!("{stderr}\nof:\n{}", batch.trim_end()) }
        }
        start @ CommandError::Start { .. } => start,
    })
}

/// Enters the machine's mount namespace when we are in one of those that `ip netns exec` makes: there cgroups are not
/// mounted, and names given to network namespaces are seen by nobody else. The machine's is that of the first process
/// or, where that is out of our reach, of the nearest ancestor that sees cgroups. Must be called while the process has
/// a single thread.
///
/// # Errors
/// When the machine's namespace was found and cannot be entered.
pub fn join_machine_mounts(files: &[&Path]) -> io::Result<()> {
    let sees_cgroups = |pid: &str| {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        !crate::cgroups::parse(&mounts).is_empty()
    };
    if sees_cgroups("self") {
        return Ok(());
    }
    let same = |pid: &str, path: &Path| {
        let theirs = Path::new("/proc").join(pid).join("root").join(relative(path));
        match (fs::metadata(path), fs::metadata(theirs)) {
            (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
            _ => false,
        }
    };
    let fits = |pid: &String| {
        sees_cgroups(pid) && same(pid, Path::new("/")) && files.iter().all(|file| same(pid, nearest(file)))
    };
    let Some(pid) = std::iter::once("1".to_owned()).chain(ancestors()).find(fits) else { return Ok(()) };
    let here = std::env::current_dir()?;
    let file = format!("/proc/{pid}/ns/mnt");
    let fd = rustix::fs::open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::thread::move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Mount))?;
    std::env::set_current_dir(&here).or_else(|_| std::env::set_current_dir("/"))
}

/// The numbers of our parent, its parent, and so on.
fn ancestors() -> impl Iterator<Item = String> {
    let parent = |pid: &String| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        Some(line.trim().to_owned()).filter(|pid| pid != "0")
    };
    std::iter::successors(parent(&"self".to_owned()), parent)
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The nearest ancestor that exists.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"))
}

/// Whether an overlay can be mounted over files in `dir`. Tried in a mount namespace of its own.
pub fn overlay_works(dir: &Path) -> bool {
    let dir = dir.join("overlay-probe");
    let probe = || -> io::Result<()> {
        for part in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(dir.join(part))?;
        }
        // SAFETY: this thread alone gets a file system context and mounts of its own; no descriptors are unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS)? };
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let path = |part| dir.join(part).to_string_lossy().into_owned();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", path("lower"), path("upper"), path("work"));
        let options = std::ffi::CString::new(options)?;
        rustix::mount::mount(
            "overlay",
            dir.join("merged"),
            "overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )?;
        fs::write(dir.join("merged/file"), "")?;
        rustix::mount::unmount(dir.join("merged"), rustix::mount::UnmountFlags::DETACH)?;
        Ok(())
    };
    let works = std::thread::scope(|scope| scope.spawn(probe).join().is_ok_and(|result| result.is_ok()));
    // The directory lies in the cluster's own, which is removed as a whole.
    let _ = fs::remove_dir_all(&dir);
    works
}

/// What keeps the launcher from working on this machine: every reason, in words that say what to do. `etcd` says
/// whether it has to start one.
pub fn obstacles(cni_bin_dir: &Path, etcd: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if !rustix::process::geteuid().is_root() {
        problems.push("it needs root: run it with sudo".to_owned());
    }
    for (program, package) in [
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("etcd", "etcd-server"),
        ("containerd", "containerd"),
        ("ctr", "containerd"),
        ("containerd-shim-runc-v2", "containerd"),
        ("runc", "runc"),
    ] {
        if (program != "etcd" || etcd) && find_program(program).is_none() {
            problems.push(format!(
                "{program} is not installed (Debian package {package}); `make deps` installs it"
            ));
        }
    }
    for plugin in ["ptp", "host-local", "loopback"] {
        let file = cni_bin_dir.join(plugin);
        if !file.exists() {
            problems.push(format!(
                "CNI plugin {} is missing (Debian package containernetworking-plugins)",
                file.display()
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named_with_what_it_said() {
        let error = run("sh", ["-c", "echo went wrong >&2; exit 3"]).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c echo went wrong >&2; exit 3` failed: went wrong");
        assert!(matches!(run("no-such-program-here", [""; 0]), Err(CommandError::Start { .. })));
    }

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(run_with_input("cat", [""; 0], b"hello").unwrap(), b"hello");
    }
}
