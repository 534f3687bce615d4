//! Waiting for SIGTERM or SIGINT, also as the first process of a container, where they have no effect by default.

use std::ffi::c_int;

const SIG_BLOCK: c_int = 0;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;

/// A set of signals, as large as the C library has it.
#[repr(C, align(8))]
pub struct Set([u8; 128]);

unsafe extern "C" {
    fn sigemptyset(set: *mut Set) -> c_int;
    fn sigaddset(set: *mut Set, signum: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const Set, old: *mut Set) -> c_int;
    fn sigwait(set: *const Set, signal: *mut c_int) -> c_int;
}

/// Keeps the signals back, in this thread and in those that it starts later, until they are waited for.
pub fn block() -> Set {
    let mut set = Set([0; 128]);
    // SAFETY: the set is as large and aligned as the C library's, and null is allowed for the old mask.
    unsafe {
        sigemptyset(&raw mut set);
        sigaddset(&raw mut set, SIGINT);
        sigaddset(&raw mut set, SIGTERM);
        pthread_sigmask(SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    set
}

/// Waits for one of them.
pub fn wait_for_termination(set: &Set) {
    let mut signal = 0;
    // SAFETY: both pointers are to live objects of the right type.
    while unsafe { sigwait(set, &raw mut signal) } != 0 {}
}
