//! Holds a pod's namespaces, or a node's: waits for SIGTERM or SIGINT and reaps orphans meanwhile.

use std::ffi::c_int;
use std::process::exit;

const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
const WNOHANG: c_int = 1;

unsafe extern "C" {
    safe fn signal(signum: c_int, handler: extern "C" fn(c_int)) -> usize;
    safe fn pause() -> c_int;
    safe fn _exit(status: c_int) -> !;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
}

extern "C" fn leave(_signal: c_int) {
    _exit(0);
}

extern "C" fn reap(_signal: c_int) {
    // SAFETY: waitpid is async-signal-safe and a null status is allowed.
    while unsafe { waitpid(-1, std::ptr::null_mut(), WNOHANG) } > 0 {}
}

fn main() {
    const SIG_ERR: usize = usize::MAX;
    for (number, handler) in [(SIGINT, leave as extern "C" fn(c_int)), (SIGTERM, leave), (SIGCHLD, reap)] {
        if signal(number, handler) == SIG_ERR {
            eprintln!("pause: could not handle signal {number}");
            exit(1);
        }
    }
    // Children that ended before the handler stood.
    reap(SIGCHLD);
    loop {
        pause();
    }
}
