//! What a process holds of the machine's memory.

use std::pin::pin;
use std::time::Duration;

/// How long the start of a component takes with all that belongs to it: certificates, first lists, elections.
const SETTLED: Duration = Duration::from_secs(10);

/// Does a component's work, and once the start is over gives the machine back what only the start needed.
///
/// That is memory that was freed since, which the allocator keeps, and those pages of the program that ran once. What is
/// needed again is mapped again out of the page cache, or read from the file where the machine has used its memory for
/// something else.
pub async fn trimmed_after_start<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        output = &mut work => return output,
        () = tokio::time::sleep(SETTLED) => {}
    }
    trim_heap();
    #[cfg(target_os = "linux")]
    match std::fs::read_to_string("/proc/self/maps") {
        Ok(maps) => maps.lines().filter_map(code).for_each(trim_code),
        Err(error) => tracing::debug!(%error, "the program's pages stay: /proc/self/maps cannot be read"),
    }
    work.await
}

#[cfg(target_env = "gnu")]
fn trim_heap() {
    // SAFETY: the call has no preconditions; it locks the heap that it walks.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim_heap() {}

/// The addresses of a line of `/proc/self/maps` that maps code of a file, for this process alone: never written to, so
/// that its pages are those of the file.
fn code(line: &str) -> Option<std::ops::Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (addresses, mode) = (words.next()?, words.next()?);
    let path = words.nth(3)?;
    if mode != "r-xp" || !path.starts_with('/') {
        return None;
    }
    let (from, to) = addresses.split_once('-')?;
    Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
}

#[cfg(target_os = "linux")]
fn trim_code(pages: std::ops::Range<usize>) {
    // SAFETY: `code` found that the pages hold what stands in a file, and nothing writes to them. The kernel maps them
    // again when they are next executed.
    let failed =
        unsafe { libc::madvise(pages.start as *mut libc::c_void, pages.len(), libc::MADV_DONTNEED) } != 0;
    if failed {
        tracing::debug!(error = %std::io::Error::last_os_error(), "the program's pages stay");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_found() {
        let cases = [
            ("00400000-00800000 r-xp 00001000 fe:00 42    /usr/bin/kubelet", Some(0x40_0000..0x80_0000)),
            ("00400000-00800000 r-xp 00001000 fe:00 42    /a name (deleted)", Some(0x40_0000..0x80_0000)),
            ("00800000-00900000 r--p 00001000 fe:00 42    /usr/bin/kubelet", None),
            ("00900000-00a00000 rw-p 00001000 fe:00 42    /usr/bin/kubelet", None),
            ("00400000-00800000 rwxp 00001000 fe:00 42    /usr/bin/kubelet", None),
            ("7ffff7fc1000-7ffff7fc3000 r-xp 00000000 00:00 0    [vdso]", None),
            ("7f0000000000-7f0000021000 r-xp 00000000 00:00 0", None),
            ("", None),
        ];
        for (line, wanted) in cases {
            assert_eq!(code(line), wanted, "{line}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_after_its_start() {
        let slow = async {
            tokio::time::sleep(SETTLED * 2).await;
            7
        };
        assert_eq!(trimmed_after_start(slow).await, 7);
        assert_eq!(trimmed_after_start(async { 8 }).await, 8);
    }
}
