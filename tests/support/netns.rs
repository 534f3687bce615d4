//! Network namespaces: running code and commands inside one.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A named network namespace, visible in `ip netns`.
#[derive(Clone, Debug)]
pub struct Netns {
    path: PathBuf,
}

impl Netns {
    /// A new namespace with nothing in it but loopback. It stays until [`Self::delete`].
    pub fn create(name: &str) -> Self {
        run(Command::new("ip").args(["netns", "add", name]));
        let netns = Self::named(name);
        run(netns.enter(&mut Command::new("ip")).args(["link", "set", "lo", "up"]));
        netns
    }

    /// A namespace that somebody else has made.
    pub fn named(name: &str) -> Self {
        Self { path: Path::new("/run/netns").join(name) }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts and removes the name; the namespace ends with its last process.
    pub fn delete(&self) {
        let name = self.path.file_name().expect("it was made from a name");
        if let Err(error) = Command::new("ip").args(["netns", "delete"]).arg(name).status() {
            eprintln!("could not delete {}: {error}", self.path.display());
        }
    }

    /// Makes a command start inside the namespace.
    pub fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let file = File::open(&self.path).unwrap_or_else(|e| panic!("{}: {e}", self.path.display()));
        let enter = move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(std::io::Error::from)
        };
        // SAFETY: setns is a plain system call; nothing between fork and exec allocates or locks.
        unsafe { command.pre_exec(enter) }
    }

    /// Runs code inside the namespace, on a thread of its own.
    pub fn run<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        let file = File::open(&self.path).unwrap_or_else(|e| panic!("{}: {e}", self.path.display()));
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter a network namespace");
                code()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
