//! EndpointSlices: what is refused, what may change, how a row looks.

use serde_json::json;

use super::*;
use crate::registry::testing::{invalid, invalid_update, row, valid};

#[test]
fn addresses_are_of_their_type() {
    valid(
        &EndpointSliceStrategy,
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
    );
    valid(&EndpointSliceStrategy, json!({"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1"]}]}));
    invalid(&EndpointSliceStrategy, json!({"endpoints": []}), &["addressType: Required value"]);
    invalid(
        &EndpointSliceStrategy,
        json!({"addressType": "IPv4", "endpoints": [{"addresses": []}, {"addresses": ["fd00::1", "127.0.0.1"]}]}),
        &[
            "endpoints[0].addresses: Required value: must contain at least 1 address",
            "endpoints[1].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address, (e.g. 10.9.8.7 or 192.0.2.1)",
            "endpoints[1].addresses[1]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ],
    );
}

#[test]
fn ports_are_named_once() {
    invalid(
        &EndpointSliceStrategy,
        json!({"addressType": "IPv4", "endpoints": [], "ports": [{"port": 80}, {"port": 70000}]}),
        &[
            "ports[1].name: Duplicate value: \"\"",
            "ports[1].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
}

#[test]
fn the_type_of_addresses_is_immutable() {
    invalid_update(
        &EndpointSliceStrategy,
        json!({"addressType": "IPv4", "endpoints": []}),
        json!({"addressType": "IPv6", "endpoints": []}),
        &["addressType: Invalid value: \"IPv6\": field is immutable"],
    );
}

#[test]
fn a_row_shows_ports_and_addresses() {
    row(
        &EndpointSliceStrategy,
        json!({"metadata": {"name": "web-1"}, "addressType": "IPv4", "ports": [{"port": 80}, {}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]}),
        &["web-1", "IPv4", "80,*", "10.0.0.1,10.0.0.2", "<unknown>"],
    );
    row(
        &EndpointSliceStrategy,
        json!({"metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": []}),
        &["web-1", "IPv4", "<unset>", "<unset>", "<unknown>"],
    );
}
