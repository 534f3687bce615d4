//! Processes: starting them in their cgroup and namespaces, recognising them later, waiting for them and killing them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that runs or ran, told from a later one with the same number by its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, in the launcher's pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks after the machine's boot.
    pub start: u64,
    /// The boot of the machine.
    pub boot: String,
    /// A mark of how it was started.
    #[serde(default)]
    pub mark: u64,
    /// A mark of the file of its program.
    #[serde(default)]
    pub binary: u64,
}

/// What /proc says about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// R, S, D, Z, …
    pub state: char,
    /// When it started, in clock ticks after the machine's boot.
    pub start: u64,
    /// The time on a CPU, in clock ticks.
    pub cpu: u64,
}

/// Reads `/proc/PID/stat`; `None` for what is no such line.
pub fn parse_stat(line: &str) -> Option<Stat> {
    // The name in parentheses may itself hold spaces and parentheses.
    let rest = line.get(line.rfind(')')? + 1..)?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat { state: fields.first()?.chars().next()?, start: number(19)?, cpu: number(11)? + number(12)? })
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The machine's boot.
pub fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

impl Record {
    /// The record of a process that runs now.
    ///
    /// # Errors
    /// When it does not run.
    pub fn of(pid: i32, mark: u64) -> io::Result<Self> {
        let stat = stat(pid)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("process {pid} is gone")))?;
        Ok(Self { pid, start: stat.start, boot: boot_id()?, mark, binary: 0 })
    }

    /// Reads a record; `None` when there is none or the file is no record.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Writes the record.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        // Of no use after the machine's power was cut, so it need not survive that.
        crate::cluster::write_if_changed(path, &serde_json::to_vec(self)?, 0o644).map(drop)
    }

    /// What /proc says, if the process still runs. One that waits to be reaped does not.
    pub fn stat(&self) -> Option<Stat> {
        let found = stat(self.pid)?;
        let same = found.start == self.start && !matches!(found.state, 'Z' | 'X');
        (same && boot_id().ok()? == self.boot).then_some(found)
    }

    /// Whether the process still runs.
    pub fn is_alive(&self) -> bool {
        self.stat().is_some()
    }

    /// Whether the process has ended and nobody has asked yet how.
    pub fn is_zombie(&self) -> bool {
        stat(self.pid).is_some_and(|found| found.start == self.start && found.state == 'Z')
    }

    /// A handle to the process, if it still runs.
    pub fn open(&self) -> Option<Process> {
        let fd = rustix::process::pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // Only now can the number no longer pass to another process unnoticed.
        self.is_alive().then_some(Process { record: self.clone(), fd })
    }

    /// For how many seconds the process has run.
    pub fn age(&self) -> Option<u64> {
        // What the kernel shows to programs is in hundredths of a second, whatever it counts in itself.
        const TICKS: u64 = 100;
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let now: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        Some((now as u64).saturating_sub(self.start / TICKS))
    }

    /// The resident memory in bytes, as the kernel counts it.
    pub fn memory(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
    }
}

/// A handle to a running process.
#[derive(Debug)]
pub struct Process {
    /// Which one it is.
    pub record: Record,
    fd: OwnedFd,
}

impl Process {
    /// Sends a signal. A process that has ended meanwhile is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Err(e) if e != rustix::io::Errno::SRCH => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Waits for the end, reaps a child of ours, and says how it ended.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn wait(&self) -> io::Result<String> {
        // SAFETY: the descriptor is borrowed for longer than the registration lives.
        let fd = unsafe { AsyncFd::register_with_interest(self.fd.as_fd(), Interest::READABLE)? };
        drop(fd.readable().await?);
        let id = WaitId::PidFd(self.fd.as_fd());
        Ok(match rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exited with code {code}"),
                (_, Some(signal)) => format!("killed by signal {signal}"),
                _ => "ended".to_owned(),
            },
            // Not our child: an earlier supervisor's, which nobody can ask any more.
            Ok(None) | Err(_) => "ended".to_owned(),
        })
    }
}

/// Kills a process by its number; one that is gone is no error. For members of our own cgroups only.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// In which namespaces a process starts.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Those of the launcher.
    Host,
    /// A pid namespace of its own, whose first process it is.
    NewMachine,
    /// Those of a machine whose first process has this number.
    Machine(i32),
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its name for `ps`, when not the program's.
    pub arg0: Option<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, whole.
    pub env: Vec<(String, String)>,
    /// The file to which it writes what it says.
    pub log: PathBuf,
    /// The cgroup in which it starts.
    pub cgroup: Option<String>,
}

/// How a log is kept from filling the disk: the old half is put aside when a process starts.
const LOG_LIMIT: u64 = 64 << 20;

/// Opens a log file for appending.
///
/// # Errors
/// When it or its directory cannot be made.
pub fn open_log(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    if fs::metadata(path).is_ok_and(|m| m.len() > LOG_LIMIT) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Starts a process in a session of its own, so that it outlives the launcher. Blocks until it has been executed.
///
/// # Errors
/// When it cannot be started.
pub fn spawn(launch: &Launch, place: Place, mark: u64) -> io::Result<Process> {
    start(launch, place, mark, false).map(|(process, _)| process)
}

/// Starts a process that says "ready" on standard output, and waits until it has or has failed. Blocks.
///
/// # Errors
/// When it cannot be started, or with what it said instead of "ready".
pub fn spawn_until_ready(launch: &Launch, place: Place, mark: u64) -> io::Result<Process> {
    let (process, said) = start(launch, place, mark, true)?;
    if said.trim() == "ready" {
        return Ok(process);
    }
    process.signal(Signal::KILL)?;
    let id = WaitId::PidFd(process.fd.as_fd());
    // Reaped, so that it does not stay behind as a zombie; how it ended is known.
    let _ = rustix::process::waitid(id, WaitIdOptions::EXITED);
    Err(io::Error::other(if said.trim().is_empty() { "it ended before it was ready".into() } else { said }))
}

fn start(launch: &Launch, place: Place, mark: u64, listen: bool) -> io::Result<(Process, String)> {
    // Entering a pid namespace is for the children of the thread that enters; so that thread ends with the start.
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let mut command = command(launch, listen)?;
                enter(&mut command, place)?;
                let mut child = command.spawn()?;
                let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
                let raw = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no process number"))?;
                let fd = rustix::process::pidfd_open(raw, PidfdFlags::NONBLOCK)?;
                let mut said = String::new();
                if let Some(mut stdout) = child.stdout.take() {
                    stdout.read_to_string(&mut said)?;
                }
                Ok((Process { record: Record::of(pid, mark)?, fd }, said))
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts processes panicked")))
    })
}

fn command(launch: &Launch, listen: bool) -> io::Result<Command> {
    let log = open_log(&launch.log)?;
    let mut command = Command::new(&launch.program);
    command.args(&launch.args).env_clear().envs(launch.env.iter().cloned());
    command.stdin(Stdio::null()).stderr(log.try_clone()?).current_dir("/");
    command.stdout(if listen { Stdio::piped() } else { log.into() });
    if let Some(name) = &launch.arg0 {
        command.arg0(name);
    }
    let mut entrances = Vec::new();
    for file in
        launch.cgroup.iter().map(|c| crate::cgroups::entrances(c)).collect::<Result<Vec<_>, _>>()?.concat()
    {
        entrances.push(OpenOptions::new().write(true).open(&file)?);
    }
    let work = move || {
        rustix::process::setsid()?;
        for file in &entrances {
            rustix::io::write(file, b"0")?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made; nothing is allocated or locked.
    unsafe { command.pre_exec(work) };
    Ok(command)
}

/// Lets the command's process enter namespaces; called on the thread that starts it.
fn enter(command: &mut Command, place: Place) -> io::Result<()> {
    match place {
        Place::Host => {}
        Place::NewMachine => {
            // SAFETY: the pid namespace is for children of this thread only; no descriptors are unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID)? };
        }
        Place::Machine(pid) => {
            let open = |name: &str| File::open(format!("/proc/{pid}/ns/{name}"));
            let fds = [open("mnt")?, open("uts")?, open("ipc")?, open("net")?];
            let pids = open("pid")?;
            let kind = Some(LinkNameSpaceType::ProcessID);
            rustix::thread::move_into_link_name_space(pids.as_fd(), kind)?;
            let work = move || {
                for fd in &fds {
                    // The kind is left open: it is that of the file.
                    rustix::thread::move_into_link_name_space(fd.as_fd(), None)?;
                }
                rustix::process::chdir("/")?;
                Ok(())
            };
            // SAFETY: between fork and exec only system calls are made; nothing is allocated or locked.
            unsafe { command.pre_exec(work) };
        }
    }
    Ok(())
}

/// Does something in the network namespace of a process, on a thread of its own. Blocks.
///
/// # Errors
/// When the namespace cannot be entered, or with the error of what was done.
pub fn within_network<T: Send>(pid: i32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let netns = File::open(format!("/proc/{pid}/ns/net"))?;
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                rustix::thread::move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread in another network namespace panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(dir: &Path, script: &str) -> Launch {
        Launch {
            program: "/bin/sh".into(),
            arg0: None,
            args: vec!["-c".into(), script.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            log: dir.join("logs/a.log"),
            cgroup: None,
        }
    }

    #[test]
    fn a_name_with_parentheses_does_not_confuse_stat() {
        let line =
            "12 (a) b (c) S 1 12 12 0 -1 4194560 1 0 0 0 7 5 0 0 20 0 1 0 98765 1000 10 18446744073709551615";
        assert_eq!(parse_stat(line), Some(Stat { state: 'S', start: 98765, cpu: 12 }));
        assert_eq!(parse_stat("nonsense"), None);
        assert_eq!(parse_stat("1 (x) S 1"), None);
    }

    #[tokio::test]
    async fn a_started_process_is_recorded_waited_for_and_logged() {
        let dir = tempfile::tempdir().unwrap();
        let process = spawn(&launch(dir.path(), "echo said; exit 3"), Place::Host, 1).unwrap();
        assert_eq!(process.wait().await.unwrap(), "exited with code 3");
        assert!(!process.record.is_alive());
        assert!(process.record.open().is_none());
        assert_eq!(fs::read_to_string(dir.path().join("logs/a.log")).unwrap(), "said\n");
    }

    #[tokio::test]
    async fn a_record_of_another_boot_or_start_is_not_this_process() {
        let record = Record::of(i32::try_from(std::process::id()).unwrap(), 0).unwrap();
        assert!(record.is_alive());
        assert!(!Record { boot: "other".into(), ..record.clone() }.is_alive());
        assert!(!Record { start: record.start + 1, ..record }.is_alive());
    }

    #[test]
    fn what_a_process_says_instead_of_ready_is_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let start = |script| spawn_until_ready(&launch(dir.path(), script), Place::Host, 0);
        assert_eq!(start("echo no disk").unwrap_err().to_string().trim(), "no disk");
        assert!(start("true").unwrap_err().to_string().contains("before it was ready"));
        let process = start("echo ready; exec sleep 60 >/dev/null").unwrap();
        assert!(process.record.is_alive());
        process.signal(Signal::KILL).unwrap();
    }
}
