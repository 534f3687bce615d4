//! The machine: what it has, and how much of it is left.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use std::collections::BTreeMap;

use api::quantity::Amount;

use super::eviction::{Signal, Stock, Stocks, Thresholds};

/// What does not change while the machine is up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Processors.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of the file system beneath the kubelet's root.
    pub storage: i64,
    /// `--max-pods`.
    pub max_pods: i64,
    /// `--eviction-hard`.
    pub thresholds: Thresholds,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// From the firmware.
    pub system_uuid: String,
    /// New at each boot.
    pub boot_id: String,
    /// As `uname -r` says.
    pub kernel: String,
    /// As `/etc/os-release` says.
    pub os_image: String,
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
    /// The host name.
    pub hostname: String,
    /// The kubelet's root directory.
    pub root: PathBuf,
}

/// How much is left of what can run out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Memory is short.
    pub memory: bool,
    /// Disk space or inodes are short.
    pub disk: bool,
    /// Process numbers are short.
    pub pid: bool,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// A value of `/proc/meminfo`, in bytes.
pub fn meminfo(text: &str, key: &str) -> Option<i64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<i64>().ok().map(|kib| kib.saturating_mul(1024))
}

/// How many processors a list such as `0-3,8` names.
pub fn count_cpus(list: &str) -> i64 {
    let count = |part: &str| match part.split_once('-') {
        Some((first, last)) => Some(last.trim().parse::<i64>().ok()? - first.trim().parse::<i64>().ok()? + 1),
        None => part.trim().parse::<i64>().ok().map(|_| 1),
    };
    list.split(',').filter_map(count).sum()
}

/// A value of `/etc/os-release`.
pub fn os_release(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

fn architecture() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
    .to_owned()
}

fn unsigned(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Machine {
    /// Looks at the machine. `root` must exist.
    pub fn read(
        root: &Path,
        max_pods: i64,
        thresholds: Thresholds,
        hostname: &str,
        addresses: Vec<IpAddr>,
    ) -> Self {
        let uname = rustix::system::uname();
        let storage =
            rustix::fs::statvfs(root).map_or(0, |s| unsigned(s.f_blocks.saturating_mul(s.f_frsize)));
        let id = read("/etc/machine-id");
        let cpus = count_cpus(&read("/sys/devices/system/cpu/online"));
        Self {
            cpus: cpus.max(1),
            memory: meminfo(&read("/proc/meminfo"), "MemTotal").unwrap_or(0),
            storage,
            max_pods,
            thresholds,
            architecture: architecture(),
            system_uuid: Some(read("/sys/class/dmi/id/product_uuid"))
                .filter(|u| !u.is_empty())
                .unwrap_or_else(|| id.clone()),
            machine_id: id,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel: uname.release().to_string_lossy().into_owned(),
            os_image: os_release(&read("/etc/os-release"), "PRETTY_NAME").unwrap_or_else(|| "Linux".into()),
            addresses,
            hostname: hostname.to_owned(),
            root: root.to_owned(),
        }
    }

    /// What the machine has, by resource.
    pub fn capacity(&self) -> BTreeMap<String, Amount> {
        [
            ("cpu", self.cpus),
            ("memory", self.memory),
            ("pods", self.max_pods),
            ("ephemeral-storage", self.storage),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), Amount::units(v)))
        .collect()
    }

    /// What pods may use of it: all but what the eviction thresholds keep, so that the machine can be rescued.
    pub fn allocatable(&self) -> BTreeMap<String, Amount> {
        let mut amounts = self.capacity();
        let mut keep = |resource: &str, all: i64, signal| {
            let rest = (all - self.thresholds.reserved(signal, all)).max(0);
            amounts.insert(resource.to_owned(), Amount::units(rest));
        };
        keep("memory", self.memory, Signal::MemoryAvailable);
        keep("ephemeral-storage", self.storage, Signal::NodefsAvailable);
        amounts
    }

    /// What is short, by the hard eviction thresholds.
    pub fn pressure(&self) -> Pressure {
        self.thresholds.pressure(&self.stocks())
    }

    /// What is left at this moment; what cannot be found out counts as unknown.
    fn stocks(&self) -> Stocks {
        let memory = meminfo(&read("/proc/meminfo"), "MemAvailable")
            .map_or_else(Stock::default, |left| Stock { left, all: self.memory });
        let (space, inodes) = rustix::fs::statvfs(&self.root).map_or_else(
            |_| Default::default(),
            |s| {
                let bytes = |blocks: u64| unsigned(blocks.saturating_mul(s.f_frsize));
                let space = Stock { left: bytes(s.f_bavail), all: bytes(s.f_blocks) };
                (space, Stock { left: unsigned(s.f_favail), all: unsigned(s.f_files) })
            },
        );
        let processes = read("/proc/loadavg")
            .split_whitespace()
            .nth(3)
            .and_then(|t| t.split_once('/')?.1.parse::<i64>().ok());
        let most = read("/proc/sys/kernel/pid_max").parse::<i64>().unwrap_or(i64::MAX);
        let processes = processes
            .map_or_else(Stock::default, |used| Stock { left: most.saturating_sub(used), all: most });
        Stocks { memory, space, inodes, processes }
    }
}

/// The address by which this machine reaches others, if it has a route. Nothing is sent.
pub fn outbound_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Connecting a datagram socket only chooses the route and with it the source address.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_files_are_understood() {
        assert_eq!(meminfo("MemTotal:       1024 kB\nMemAvailable: 5 kB\n", "MemTotal"), Some(1 << 20));
        assert_eq!(meminfo("", "MemTotal"), None);
        assert_eq!((count_cpus("0-3,8"), count_cpus("0"), count_cpus("")), (5, 1, 0));
        assert_eq!(os_release("NAME=x\nPRETTY_NAME=\"A B\"\n", "PRETTY_NAME").as_deref(), Some("A B"));
    }

    #[test]
    fn a_reserve_is_kept_from_pods() {
        let machine =
            Machine { memory: 1 << 30, storage: 1000, max_pods: 110, cpus: 2, ..Machine::default() };
        let allocatable = machine.allocatable();
        assert_eq!(allocatable["memory"].to_units(), (1 << 30) - (100 << 20));
        assert_eq!(allocatable["ephemeral-storage"].to_units(), 900);
        assert_eq!(allocatable["cpu"].to_units(), 2);
    }
}
