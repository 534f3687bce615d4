//! The part of the table that does not depend on Services: hooks, maps and the rules around them.

use sha2::{Digest, Sha256};

use super::{Params, TABLE};

/// The chain that refuses a packet: `tcp reset` for TCP, `port unreachable` for the rest.
pub const REJECT: &str = "reject-packet";
/// The chain that marks a packet for masquerading, and continues.
pub const MARK: &str = "mark-for-masquerade";
/// The bit of the packet mark that asks for masquerading: upstream's `--iptables-masquerade-bit 14`.
const BIT: &str = "0x4000";

/// The chain whose name tells which base a table was made with, and so whether it can be kept.
pub fn marker(params: &Params) -> String {
    format!("base-{}", hash(&body(params)))
}

/// The commands that make the table anew, empty of Services, in place of any that is there.
pub fn base(params: &Params) -> String {
    let mut script = format!("add table ip {TABLE}\ndelete table ip {TABLE}\nadd table ip {TABLE}\n");
    script += &body(params);
    script += &format!("add chain ip {TABLE} {}\n", marker(params));
    script
}

/// The first eight bytes of a SHA-256, in hexadecimal.
pub(super) fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn body(params: &Params) -> String {
    let mut script = String::new();
    for (kind, definition) in OBJECTS {
        script += &format!("add {kind} ip {TABLE} {definition}\n");
    }
    for (chain, hook, rules) in chains(params) {
        let hook = hook.map(|hook| format!(" {{ {hook} policy accept; }}")).unwrap_or_default();
        script += &format!("add chain ip {TABLE} {chain}{hook}\n");
        for rule in rules {
            script += &format!("add rule ip {TABLE} {chain} {rule}\n");
        }
    }
    script
}

const OBJECTS: [(&str, &str); 5] = [
    ("map", "services { type ipv4_addr . inet_proto . inet_service : verdict; }"),
    ("map", "nodeports { type inet_proto . inet_service : verdict; }"),
    ("map", "no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }"),
    ("map", "no-endpoint-nodeports { type inet_proto . inet_service : verdict; }"),
    ("set", "hairpin { type ipv4_addr . ipv4_addr; }"),
];

type BaseChain = (&'static str, Option<&'static str>, Vec<String>);

/// In an order in which a chain comes after those that it goes to.
fn chains(params: &Params) -> Vec<BaseChain> {
    let mut chains = vec![
        (MARK, None, vec![format!("meta mark set meta mark or {BIT}")]),
        (
            REJECT,
            None,
            vec!["meta l4proto tcp reject with tcp reset".into(), "reject with icmp port-unreachable".into()],
        ),
    ];
    chains.extend(untracked_dns(params));
    chains.extend(translation(params));
    chains.extend(refusal(params));
    chains
}

/// DNS is answered on the node itself: conntrack has no part in it.
fn untracked_dns(params: &Params) -> Vec<BaseChain> {
    let Some(dns) = params.cluster_dns else { return Vec::new() };
    let rules = vec![
        format!("ip daddr {dns} meta l4proto {{ tcp, udp }} th dport 53 notrack"),
        format!("ip saddr {dns} meta l4proto {{ tcp, udp }} th sport 53 notrack"),
    ];
    vec![
        ("raw-prerouting", Some("type filter hook prerouting priority -300;"), rules.clone()),
        ("raw-output", Some("type filter hook output priority -300;"), rules),
    ]
}

fn exempt_dns(params: &Params) -> Option<String> {
    params.cluster_dns.map(|dns| format!("ip daddr {dns} return"))
}

/// Where new connections get their destination, and where some get this node's address as source.
fn translation(params: &Params) -> Vec<BaseChain> {
    let mut dispatch: Vec<String> = exempt_dns(params).into_iter().collect();
    if !params.cluster_cidrs.is_empty() {
        let pods = one_of(&params.cluster_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>());
        dispatch.push(format!("ip daddr {} ip saddr != {pods} jump {MARK}", params.service_range));
    }
    dispatch.push("ip daddr . meta l4proto . th dport vmap @services".into());
    dispatch
        .push("fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @nodeports".into());
    let hook = || vec!["jump dispatch".to_owned()];
    let mut postrouting = vec![
        format!("meta mark & {BIT} == {BIT} meta mark set meta mark xor {BIT} masquerade fully-random"),
        "ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random".into(),
    ];
    if !params.cluster_cidrs.is_empty() {
        // Who is no pod, such as the API server, knows no way back to one.
        let pods = one_of(&params.cluster_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>());
        postrouting
            .push(format!("ct status dnat ip saddr {pods} ip daddr != {pods} masquerade fully-random"));
    }
    vec![
        ("dispatch", None, dispatch),
        ("nat-prerouting", Some("type nat hook prerouting priority -100;"), hook()),
        ("nat-output", Some("type nat hook output priority -100;"), hook()),
        ("nat-postrouting", Some("type nat hook postrouting priority 100;"), postrouting),
    ]
}

/// After translation: what still has a virtual destination is refused here and never leaves the node.
fn refusal(params: &Params) -> Vec<BaseChain> {
    let services = "ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services".to_owned();
    let nodeports =
        "ct state new ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @no-endpoint-nodeports".to_owned();
    let mut leaving: Vec<String> = exempt_dns(params).into_iter().collect();
    leaving.push(services.clone());
    leaving.push(format!("ip daddr {} goto {REJECT}", params.service_range));
    let mut output = leaving.clone();
    output.push(format!("fib daddr type local {nodeports}"));
    vec![
        ("filter-input", Some("type filter hook input priority 0;"), vec![services, nodeports]),
        ("filter-forward", Some("type filter hook forward priority 0;"), leaving),
        ("filter-output", Some("type filter hook output priority 0;"), output),
    ]
}

fn one_of(items: &[String]) -> String {
    if let [one] = items { one.clone() } else { format!("{{ {} }}", items.join(", ")) }
}
