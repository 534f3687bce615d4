//! Makes conntrack forget UDP flows to endpoints that are gone: a client that keeps its port would
//! be sent there for as long as it talks.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::process::Stdio;

use tokio::process::Command;

use crate::net::Cidr;
use crate::rules::UdpFlow;

/// The arguments for `conntrack` that delete the entries of a flow.
pub fn arguments(flow: &UdpFlow) -> Vec<String> {
    let mut args: Vec<String> = ["-D", "-p", "udp"].map(str::to_owned).into();
    if let Some(address) = flow.address {
        args.extend(["--orig-dst".into(), address.to_string()]);
    }
    args.extend(["--orig-port-dst".into(), flow.port.to_string()]);
    args.extend(["--dst-nat".into(), flow.endpoint.to_string()]);
    args
}

/// Deletes the entries of flows that ended. What fails is logged: the entries time out by themselves.
pub async fn forget(flows: &[UdpFlow]) {
    for flow in flows {
        let output = Command::new("conntrack")
            .args(arguments(flow))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        match output {
            // It fails, too, when there is nothing to delete.
            Ok(output) if output.status.success() || no_entries(&output.stderr) => {}
            Ok(output) => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                tracing::warn!(?flow, stderr = stderr.trim(), "stale UDP flow could not be deleted");
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::warn!("conntrack is not installed: stale UDP flows remain until they time out");
                return;
            }
            Err(error) => tracing::warn!(?flow, %error, "conntrack cannot be started"),
        }
    }
}

/// After a restart: deletes the entries of Services whose endpoint went while nobody looked.
pub async fn forget_stale(wanted: &BTreeSet<UdpFlow>, service_range: Cidr) {
    let listing = Command::new("conntrack").args(["-L", "-p", "udp"]).kill_on_drop(true).output().await;
    match listing {
        Ok(listing) => forget(&stale(&String::from_utf8_lossy(&listing.stdout), wanted, service_range)).await,
        Err(error) => tracing::warn!(%error, "stale UDP flows remain until they time out"),
    }
}

/// Which entries of conntrack's listing belong to a Service and lead to none of its endpoints.
pub fn stale(listing: &str, wanted: &BTreeSet<UdpFlow>, service_range: Cidr) -> Vec<UdpFlow> {
    let mut by_port: HashMap<u16, Vec<&UdpFlow>> = HashMap::new();
    for flow in wanted {
        by_port.entry(flow.port).or_default().push(flow);
    }
    let mut found: Vec<UdpFlow> = Vec::new();
    for entry in listing.lines().filter_map(translated) {
        let UdpFlow { address, port, endpoint } = entry;
        let mut same = by_port.get(&port).into_iter().flatten().copied();
        let here = |flow: &&UdpFlow| flow.address.is_none() || flow.address == address;
        let alive = same.clone().filter(here).any(|flow| flow.endpoint == endpoint);
        let ours = address.is_some_and(|ip| service_range.contains(ip)) || same.any(|flow| here(&flow));
        if ours && !alive && !found.contains(&entry) {
            found.push(entry);
        }
    }
    found
}

/// One line of the listing, if its destination was translated.
fn translated(line: &str) -> Option<UdpFlow> {
    let values =
        |key: &'static str| line.split(' ').filter_map(move |w| w.strip_prefix(key)?.strip_prefix('='));
    let address: Ipv4Addr = values("dst").next()?.parse().ok()?;
    let port = values("dport").next()?.parse().ok()?;
    let endpoint = values("src").nth(1)?.parse().ok()?;
    (endpoint != address).then_some(UdpFlow { address: Some(address), port, endpoint })
}

fn no_entries(stderr: &[u8]) -> bool {
    String::from_utf8_lossy(stderr).contains("0 flow entries have been deleted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entries_of_one_endpoint_alone_are_selected() {
        let mut flow = UdpFlow {
            address: Some("10.96.0.9".parse().unwrap()),
            port: 53,
            endpoint: "10.244.1.3".parse().unwrap(),
        };
        let text = |flow: &UdpFlow| arguments(flow).join(" ");
        assert_eq!(text(&flow), "-D -p udp --orig-dst 10.96.0.9 --orig-port-dst 53 --dst-nat 10.244.1.3");
        flow.address = None;
        flow.port = 30053;
        assert_eq!(text(&flow), "-D -p udp --orig-port-dst 30053 --dst-nat 10.244.1.3");
    }

    #[test]
    fn entries_that_lead_to_no_endpoint_are_found() {
        let entry = |dst: &str, dport: u16, reply: &str| {
            format!(
                "udp      17 29 src=10.244.0.2 dst={dst} sport=5555 dport={dport} \
                 src={reply} dst=10.244.0.2 sport=8080 dport=5555 mark=0 use=1\n"
            )
        };
        let listing = [
            entry("10.96.0.9", 53, "10.244.1.3"),
            entry("10.96.0.9", 53, "10.244.1.4"),
            entry("10.96.0.77", 53, "10.244.1.3"),
            entry("172.30.0.1", 30053, "10.244.1.4"),
            entry("172.30.0.1", 30053, "10.244.1.3"),
            entry("192.0.2.1", 99, "10.0.0.1"),
            entry("192.0.2.1", 53, "192.0.2.1"),
            "conntrack v1.4.7 (conntrack-tools): 7 flow entries have been shown.\n".into(),
        ]
        .concat();
        let endpoint = "10.244.1.3".parse().unwrap();
        let wanted = BTreeSet::from([
            UdpFlow { address: "10.96.0.9".parse().ok(), port: 53, endpoint },
            UdpFlow { address: None, port: 30053, endpoint },
        ]);
        let found = stale(&listing, &wanted, "10.96.0.0/12".parse().unwrap());
        let shown: Vec<_> =
            found.iter().map(|f| format!("{} {} {}", f.address.unwrap(), f.port, f.endpoint)).collect();
        assert_eq!(
            shown,
            ["10.96.0.9 53 10.244.1.4", "10.96.0.77 53 10.244.1.3", "172.30.0.1 30053 10.244.1.4"]
        );
    }
}
