//! The cluster's network: blackhole routes on the host, a bridge in a namespace of its own, and a namespace per node.
//!
//! The bridge does not stand in the host's namespace, so that the host's firewall (`br_netfilter`, a FORWARD chain
//! that drops) never sees what nodes say to each other. The host is one more port of it.

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cluster::{Cluster, Node, POD_RANGE, SERVICE_RANGE, short_hash};
use crate::host::{CommandError, ip_batch, run};
use crate::journal::{Change, Journal};

/// Why the network could not be set up or taken down.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The journal or a kernel setting could not be written.
    #[error("could not {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No range is free.
    #[error(
        "every range that the nodes' bridge could have overlaps with a route of this machine: name one with --subnet"
    )]
    NoFreeSubnet,
    /// The answer of `ip -json` is not what was expected.
    #[error("could not understand the answer of `ip -json`")]
    Answer(#[source] serde_json::Error),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    |source| NetworkError::Io { what: what.into(), source }
}

/// A range of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    base: u32,
    bits: u8,
}

impl Cidr {
    /// The range of `bits` leading bits that contains `ip`.
    pub fn new(ip: Ipv4Addr, bits: u8) -> Self {
        let bits = bits.min(32);
        Self { base: u32::from(ip) & mask(bits), bits }
    }

    /// The address with number `host` in the range.
    pub fn host(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::from(self.base | u32::from(host))
    }

    /// Whether an address is in both ranges.
    pub fn overlaps(self, other: Self) -> bool {
        let bits = mask(self.bits.min(other.bits));
        self.base & bits == other.base & bits
    }

    /// The number of leading bits.
    pub fn bits(self) -> u8 {
        self.bits
    }
}

fn mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is no IPv4 range like 172.30.0.0/24");
        let (ip, bits) = text.split_once('/').unwrap_or((text, "32"));
        let ip: Ipv4Addr = ip.parse().map_err(|_| error())?;
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= 32).ok_or_else(error)?;
        Ok(Self::new(ip, bits))
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The value of `--subnet`: a /24, so that nodes are .11 and up.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn subnet(text: &str) -> Result<Cidr, String> {
    let cidr: Cidr = text.parse()?;
    if cidr.bits != 24 {
        return Err(format!("{text} is not a /24"));
    }
    for range in [POD_RANGE, SERVICE_RANGE] {
        if cidr.overlaps(range.parse()?) {
            return Err(format!("{text} overlaps with the cluster's own range {range}"));
        }
    }
    Ok(cidr)
}

/// The first range for the bridge that overlaps with nothing that is routed already.
pub fn free_subnet(taken: &[Cidr]) -> Option<Cidr> {
    let ranges = [[172, 30], [10, 89], [192, 168], [172, 29]];
    ranges
        .iter()
        .flat_map(|[a, b]| (0..=255).map(|c| Cidr::new(Ipv4Addr::new(*a, *b, c, 0), 24)))
        .find(|candidate| !taken.iter().any(|taken| taken.overlaps(*candidate)))
}

#[derive(Deserialize)]
struct RouteAnswer {
    dst: String,
}

/// The ranges that `ip -json route` names; default routes are none.
fn routed(answer: &[u8]) -> Result<Vec<Cidr>, serde_json::Error> {
    let routes: Vec<RouteAnswer> =
        if answer.is_empty() { Vec::new() } else { serde_json::from_slice(answer)? };
    Ok(routes.iter().filter_map(|r| r.dst.parse().ok()).filter(|c: &Cidr| c.bits > 0).collect())
}

/// Chooses the range of a new cluster's bridge.
///
/// # Errors
/// When none is free.
pub fn choose_subnet() -> Result<Cidr, NetworkError> {
    let answer = run("ip", ["-json", "-4", "route", "show", "table", "all"])?;
    let taken = routed(&answer).map_err(NetworkError::Answer)?;
    free_subnet(&taken).ok_or(NetworkError::NoFreeSubnet)
}

/// The name of the host's interface on the bridge: at most 15 bytes.
pub fn host_link(cluster: &Cluster) -> String {
    let prefix = cluster.prefix();
    if prefix.len() < 15 { format!("{prefix}0") } else { format!("cx{:08x}", short_hash(&prefix)) }
}

/// The metric of routes on nodes that stand behind whatever kube-proxy makes.
const LAST: u32 = 0x7000_0000;

/// The metric of the cluster's blackhole routes: behind any other route, and the cluster's own.
fn metric(cluster: &Cluster) -> u32 {
    LAST | (short_hash(&cluster.name) >> 8)
}

fn blackholes(cluster: &Cluster) -> [String; 3] {
    [POD_RANGE.to_owned(), SERVICE_RANGE.to_owned(), cluster.subnet.to_string()]
}

/// Makes the blackhole routes: before anything else exists that could send to the cluster's ranges.
///
/// # Errors
/// When the journal cannot be written or `ip` fails.
pub fn fence(cluster: &Cluster, journal: &mut Journal) -> Result<(), NetworkError> {
    let metric = metric(cluster);
    let mut batch = String::new();
    for destination in blackholes(cluster) {
        batch.push_str(&format!("route replace blackhole {destination} metric {metric}\n"));
        journal.record(Change::Route { destination, metric }).map_err(io_error("write the journal"))?;
    }
    Ok(ip_batch(None, &batch)?)
}

/// Makes the bridge and the host's port of it. What is there already stays.
///
/// # Errors
/// When the journal cannot be written or `ip` fails.
pub fn bridge(cluster: &Cluster, journal: &mut Journal) -> Result<(), NetworkError> {
    let (lan, link) = (cluster.lan(), host_link(cluster));
    note_netns_directory(journal)?;
    journal.record(Change::Namespace { name: lan.clone() }).map_err(io_error("write the journal"))?;
    if !is_namespace(&lan) {
        remove_namespace(&lan)?;
        run("ip", ["netns", "add", &lan])?;
        ip_batch(
            Some(&lan),
            "link set lo up\n\
             link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set br0 addrgenmode none\n\
             link set br0 up\n",
        )?;
    }
    if !has_link(&link) {
        journal.record(Change::Link { name: link.clone() }).map_err(io_error("write the journal"))?;
        ip_batch(
            None,
            &format!(
                "link add {link} address {} type veth peer name host netns {lan}\n\
                 link set {link} addrgenmode none\n\
                 address add {}/{} dev {link}\n\
                 link set {link} up\n",
                mac(cluster.gateway()),
                cluster.gateway(),
                cluster.subnet.bits()
            ),
        )?;
    }
    Ok(ip_batch(Some(&lan), "link set host addrgenmode none\nlink set host master br0 up\n")?)
}

/// Makes a node's namespace anew, with its port on the bridge: the machine's network after a reboot.
///
/// # Errors
/// When `ip` fails.
pub fn plug(cluster: &Cluster, node: &Node) -> Result<(), NetworkError> {
    let (name, lan, port) = (cluster.netns(&node.name), cluster.lan(), &node.name);
    unplug(cluster, &node.name)?;
    run("ip", ["netns", "add", &name])?;
    let mut batch = format!(
        "link set lo up\n\
         link add eth0 address {mac} type veth peer name {port} netns {lan}\n\
         link set eth0 addrgenmode none\n\
         address add {ip}/{bits} dev eth0\n\
         link set eth0 up\n\
         route add blackhole {POD_RANGE} metric {LAST}\n\
         route add blackhole {SERVICE_RANGE} metric {LAST}\n",
        mac = mac(node.ip),
        ip = node.ip,
        bits = cluster.subnet.bits(),
    );
    if cluster.egress {
        batch.push_str(&format!("route add default via {}\n", cluster.gateway()));
    }
    ip_batch(Some(&name), &batch)?;
    ip_batch(Some(&lan), &format!("link set {port} addrgenmode none\nlink set {port} master br0 up\n"))?;
    Ok(())
}

/// Takes a node's link away and removes its namespace, as far as they exist.
///
/// # Errors
/// When `ip` fails.
pub fn unplug(cluster: &Cluster, node: &str) -> Result<(), NetworkError> {
    let lan = cluster.lan();
    if is_namespace(&lan) {
        // Deleting one end deletes the other at once, while a namespace is taken apart only later.
        let links = run("ip", ["-n", &lan, "-brief", "link", "show", "type", "veth"])?;
        let port = format!("{node}@");
        if String::from_utf8_lossy(&links).lines().any(|line| line.starts_with(&port)) {
            run("ip", ["-n", &lan, "link", "delete", node])?;
        }
    }
    remove_namespace(&cluster.netns(node))
}

/// The hardware address that goes with an address, so that a node that comes back is found at once.
fn mac(ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Lets the nodes reach the world: forwarding, and a table of ours that hides their addresses.
///
/// # Errors
/// When the journal or the setting cannot be written, or `nft` fails.
pub fn open_egress(cluster: &Cluster, journal: &mut Journal) -> Result<(), NetworkError> {
    const KEY: &str = "net/ipv4/ip_forward";
    let setting = Path::new("/proc/sys").join(KEY);
    let before =
        fs::read_to_string(&setting).map_err(io_error("read net.ipv4.ip_forward"))?.trim().to_owned();
    if before != "1" {
        journal.record(Change::Sysctl { key: KEY.into(), before }).map_err(io_error("write the journal"))?;
        fs::write(&setting, "1").map_err(io_error("write net.ipv4.ip_forward"))?;
    }
    let (name, link, subnet) = (cluster.prefix(), host_link(cluster), cluster.subnet);
    journal.record(Change::NftTable { name: name.clone() }).map_err(io_error("write the journal"))?;
    let rules = egress_rules(&name, &link, subnet);
    crate::host::run_with_input("nft", ["-f", "-"], rules.as_bytes())?;
    Ok(())
}

/// A table in which what nodes send to the world bears the host's address, and which lets nothing new in.
fn egress_rules(name: &str, link: &str, subnet: Cidr) -> String {
    format!(
        r#"table inet {name}
delete table inet {name}
table inet {name} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{link}" masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{link}" ip daddr {{ {POD_RANGE}, {SERVICE_RANGE} }} drop
    oifname "{link}" ct state != {{ established, related }} drop
  }}
}}
"#
    )
}

fn note_netns_directory(journal: &mut Journal) -> Result<(), NetworkError> {
    if !is_mount_point(Path::new(NETNS_DIR)) {
        journal.record(Change::NetnsDirectory).map_err(io_error("write the journal"))?;
    }
    Ok(())
}

const NETNS_DIR: &str = "/run/netns";

/// Where a named network namespace is found.
pub fn netns_path(name: &str) -> std::path::PathBuf {
    Path::new(NETNS_DIR).join(name)
}

fn is_mount_point(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|target| Path::new(target) == path))
}

/// Whether a name stands for a living namespace, and not for a file that lost its mount.
pub fn is_namespace(name: &str) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|m| m.dev());
    match (device(&netns_path(name)), device(Path::new("/proc/self/ns/net"))) {
        (Ok(file), Ok(namespaces)) => file == namespaces,
        _ => false,
    }
}

/// Whether the namespace in which the launcher runs has an interface called `name`.
fn has_link(name: &str) -> bool {
    // Not from /sys, which may show the interfaces of another namespace.
    run("ip", ["link", "show", "dev", name]).is_ok()
}

/// Removes a named namespace, or the file that is left of it.
///
/// # Errors
/// When `ip` fails.
pub fn remove_namespace(name: &str) -> Result<(), NetworkError> {
    if netns_path(name).exists() {
        run("ip", ["netns", "delete", name])?;
    }
    Ok(())
}

/// Removes an interface, if it exists.
///
/// # Errors
/// When `ip` fails.
pub fn remove_link(name: &str) -> Result<(), NetworkError> {
    if has_link(name) {
        run("ip", ["link", "delete", name])?;
    }
    Ok(())
}

/// Removes a blackhole route, if it exists.
///
/// # Errors
/// When `ip` fails.
pub fn remove_route(destination: &str, metric: u32) -> Result<(), NetworkError> {
    let metric = metric.to_string();
    let found = run(
        "ip",
        ["-json", "-4", "route", "show", "type", "blackhole", "exact", destination, "metric", &metric],
    )?;
    if !routed(&found).map_err(NetworkError::Answer)?.is_empty() {
        run("ip", ["route", "delete", "blackhole", destination, "metric", &metric])?;
    }
    Ok(())
}

/// Removes a table of ours, if it exists.
///
/// # Errors
/// When `nft` fails.
pub fn remove_table(name: &str) -> Result<(), NetworkError> {
    // Adding a table that exists does nothing, so that the deletion always finds one.
    let rules = format!("table inet {name}\ndelete table inet {name}\n");
    crate::host::run_with_input("nft", ["-f", "-"], rules.as_bytes())?;
    Ok(())
}

/// Takes down the directory of named namespaces if the launcher made it and nobody else uses it.
///
/// # Errors
/// When it is empty and cannot be removed.
pub fn remove_netns_directory() -> io::Result<()> {
    let dir = Path::new(NETNS_DIR);
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Ok(());
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    if is_mount_point(dir) {
        rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH)?;
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_parse_and_print() {
        assert_eq!(cidr("172.30.4.9/24").to_string(), "172.30.4.0/24");
        assert_eq!(cidr("10.0.0.1").to_string(), "10.0.0.1/32");
        assert_eq!(cidr("0.0.0.0/0").to_string(), "0.0.0.0/0");
        for bad in ["", "10.0.0/8", "10.0.0.0/33", "10.0.0.0/x", "::/0", "default"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn overlap_is_being_inside_one_another() {
        assert!(cidr("10.0.0.0/8").overlaps(cidr("10.89.0.0/24")));
        assert!(cidr("10.89.0.7/32").overlaps(cidr("10.89.0.0/24")));
        assert!(!cidr("10.89.1.0/24").overlaps(cidr("10.89.0.0/24")));
    }

    #[track_caller]
    fn check(taken: &[&str], expected: Option<&str>) {
        let taken: Vec<_> = taken.iter().map(|text| cidr(text)).collect();
        assert_eq!(free_subnet(&taken), expected.map(cidr));
    }

    #[test]
    fn a_new_bridge_avoids_what_is_routed() {
        check(&[], Some("172.30.0.0/24"));
        check(&["172.30.0.0/24", "192.0.2.0/24"], Some("172.30.1.0/24"));
        check(&["172.30.0.11/32"], Some("172.30.1.0/24"));
        check(&["172.16.0.0/12"], Some("10.89.0.0/24"));
        check(&["172.16.0.0/12", "10.0.0.0/8"], Some("192.168.0.0/24"));
        check(&["0.0.0.0/1", "128.0.0.0/1"], None);
    }

    #[test]
    fn default_routes_take_no_range() {
        let answer = br#"[{"dst":"default","gateway":"192.0.2.1"},{"type":"local","dst":"127.0.0.1"},
            {"type":"blackhole","dst":"10.244.0.0/16"}]"#;
        assert_eq!(routed(answer).unwrap(), [cidr("127.0.0.1"), cidr("10.244.0.0/16")]);
    }

    #[test]
    fn a_bridge_over_the_clusters_own_ranges_is_refused() {
        assert!(subnet("10.89.3.0/24").is_ok());
        for bad in ["10.244.7.0/24", "10.100.0.0/24", "172.30.0.0/16"] {
            assert!(subnet(bad).is_err(), "{bad}");
        }
    }
}
