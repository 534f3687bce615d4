//! Foreign programs out of Debian's packages and Python's index, unpacked below the target folder; nothing is installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{bin_dir, repository};

/// Whether whoever runs the tests has said that this machine reaches no index of packages.
fn offline() -> bool {
    std::env::var_os("COXSWAIN_OFFLINE").is_some()
}

/// Where foreign programs are kept between runs.
fn shelf() -> PathBuf {
    bin_dir().parent().expect("a profile's folder lies in target/").join("clients")
}

/// Makes a folder once: `make` fills a folder beside it, which takes its place when it is complete. Tests of several
/// processes may want it at once; the first that is done wins.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let folder = shelf().join(name);
    if !folder.exists() {
        std::fs::create_dir_all(shelf()).unwrap();
        let fresh = tempfile::Builder::new().prefix("making-").tempdir_in(shelf()).unwrap();
        make(fresh.path());
        if let Err(error) = std::fs::rename(fresh.path(), &folder) {
            assert!(folder.exists(), "{}: {error}", folder.display());
        }
    }
    folder
}

/// Runs a command in a folder; panics with what it says, and with how to do without, unless it succeeds.
fn fetch(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{command:?} failed; where no index of packages can be reached, set COXSWAIN_OFFLINE=1: {}",
        String::from_utf8_lossy(&said)
    );
}

/// Whether this system's index has a package. Ubuntu's, for one, has fewer than Debian's.
fn is_offered(package: &str) -> bool {
    let shown = Command::new("apt-cache").args(["show", package]).stdin(Stdio::null()).output();
    shown.is_ok_and(|output| output.status.success())
}

/// A program out of a package of Debian's. Nothing, and a message, on another system or offline.
pub fn debian(package: &str, program: &str) -> Option<PathBuf> {
    let found = shelf().join(package).join(program);
    if found.exists() {
        return Some(found);
    }
    if offline() || !is_offered(package) {
        eprintln!("skipped: apt does not offer {package} here, or COXSWAIN_OFFLINE is set");
        return None;
    }
    let folder = once(package, |folder| {
        fetch(Command::new("apt-get").args(["download", "-q", package]).current_dir(folder));
        let deb = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).next().unwrap();
        fetch(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(folder));
        std::fs::remove_file(deb).unwrap();
    });
    Some(folder.join(program))
}

/// A virtual environment with the versions that `python/requirements.txt` pins. Nothing, and a message, offline.
pub fn python() -> Option<PathBuf> {
    let requirements = repository().join("tests/clients/python/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    let versions: Vec<_> = wanted.lines().filter(|line| !line.starts_with('#')).collect();
    let name = format!("python-{}", versions.join("-").replace("==", "-"));
    if shelf().join(&name).exists() {
        return Some(shelf().join(name));
    }
    if offline() {
        eprintln!("skipped: Python's packages come from its index, and COXSWAIN_OFFLINE is set");
        return None;
    }
    Some(once(&name, |folder| {
        fetch(Command::new("python3").args(["-m", "venv"]).arg(folder));
        // By way of the interpreter: programs of an environment name its folder, which will be another.
        fetch(
            Command::new(folder.join("bin/python"))
                .args(["-m", "pip", "install", "-q", "-r"])
                .arg(&requirements),
        );
    }))
}
