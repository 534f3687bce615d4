//! Endpoints: what is refused and how a row looks.

use serde_json::json;

use super::*;
use crate::registry::testing::{invalid, row, valid};

#[test]
fn subsets_have_addresses_and_ports_names() {
    valid(
        &EndpointsStrategy,
        json!({"subsets": [{"addresses": [{"ip": "10.244.0.1"}], "ports": [{"port": 80}]}]}),
    );
    invalid(
        &EndpointsStrategy,
        json!({"subsets": [{"ports": [{"port": 0}, {"name": "b", "port": 81, "protocol": "X"}]},
            {"addresses": [{"ip": "127.0.0.1"}, {"ip": "x"}]}]}),
        &[
            "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
            "subsets[0].ports[0].name: Required value",
            "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "subsets[0].ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "subsets[1].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "subsets[1].addresses[1].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
}

#[test]
fn a_row_shows_three_and_counts_the_rest() {
    let ips: Vec<_> = (1..=5).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
    let many = json!({"metadata": {"name": "web"}, "subsets": [{"addresses": ips, "ports": [{"port": 80}]}]});
    row(&EndpointsStrategy, many, &["web", "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...", "<unknown>"]);
    row(&EndpointsStrategy, json!({"metadata": {"name": "web"}}), &["web", "<none>", "<unknown>"]);
    let portless = json!({"metadata": {"name": "web"}, "subsets": [{"addresses": [{"ip": "fd00::1"}]}]});
    row(&EndpointsStrategy, portless, &["web", "fd00::1", "<unknown>"]);
}
