//! What processes use: processor time over a span, and the most memory in it.

use std::fs;
use std::time::{Duration, Instant};

/// What one process used.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// Its name.
    pub name: String,
    /// Processor time as a share of the span: 1.0 is one core.
    pub cores: f64,
    /// The most resident memory, in bytes.
    pub peak: u64,
}

/// Watches processes from its making until [`Meter::read`].
pub struct Meter {
    began: Instant,
    processes: Vec<(String, u32, u64)>,
}

impl Meter {
    /// Begins with these, and with this process itself as `bench`.
    pub fn start(processes: &[(String, u32)]) -> Self {
        let own = [("bench".to_owned(), std::process::id())];
        let all = processes.iter().chain(&own).map(|(name, pid)| {
            // 5 resets the peak to what is resident now (proc(5)); without it the peak is that of its whole life.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
            (name.clone(), *pid, ticks(*pid))
        });
        Self { processes: all.collect(), began: Instant::now() }
    }

    /// What they have used since.
    pub fn read(&self) -> Vec<Usage> {
        let elapsed = self.began.elapsed().as_secs_f64().max(0.001);
        let usage = |(name, pid, before): &(String, u32, u64)| {
            let used = time(ticks(*pid).saturating_sub(*before));
            Usage { name: name.clone(), cores: used.as_secs_f64() / elapsed, peak: memory(*pid, "VmHWM:") }
        };
        self.processes.iter().map(usage).collect()
    }
}

/// Processor time that a process has used so far, in ticks.
pub fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
    let field = |at: usize| fields.as_ref().and_then(|f| f.get(at)?.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}

/// The length of some ticks.
pub fn time(ticks: u64) -> Duration {
    // USER_HZ is 100 on every architecture that Linux still supports.
    Duration::from_millis(ticks * 10)
}

/// A line of a process's status that counts memory, in bytes.
pub fn memory(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let found = status.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_default();
    found.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        let own = std::process::id();
        assert!(memory(own, "VmRSS:") > 100 << 10);
        assert!(memory(own, "VmHWM:") >= memory(own, "VmRSS:") / 2);
        let meter = Meter::start(&[]);
        while ticks(own) == meter.processes[0].2 {
            std::hint::spin_loop();
        }
        assert!(meter.read()[0].cores > 0.0);
    }
}
