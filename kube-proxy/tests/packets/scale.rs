//! How long a change takes among many Services: `cargo test -p kube-proxy --test packets -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use kube_proxy::model::Kind;

use crate::network::*;

fn measure(services: u32, budget: Duration) {
    let mut world = World::new();
    let model = |i: u32, last: u8| {
        let mut model = service(&format!("web-{i}"), "10.96.0.1", &["10.244.1.7", "10.244.1.8"]);
        let address = std::net::Ipv4Addr::from(0x0a61_0000 + i);
        model.kind = Kind::Virtual { cluster_ips: vec![address], external_ips: vec![] };
        model.ports.truncate(1);
        model.ports[0].node_port = None;
        model.ports[0].endpoints.push(endpoint(&format!("10.244.1.{last}")));
        model
    };
    let began = Instant::now();
    world.sync(&(0..services).map(|i| model(i, 9)).collect::<Vec<_>>());
    println!("{services} services: first sync {:?}", began.elapsed());
    let mut took: Vec<Duration> = (20..40)
        .map(|last| {
            let began = Instant::now();
            let done = world.proxy.change(&model(services / 2, last));
            assert!(!done.full && done.lines < 12, "{done:?}");
            began.elapsed()
        })
        .collect();
    took.sort();
    println!("{services} services: one endpoint, median {:?}, worst {:?}", took[10], took[19]);
    assert!(took[10] <= budget, "{took:?}");
}

#[test]
#[ignore = "a measurement"]
fn one_endpoint_among_1000_services() {
    measure(1000, Duration::from_millis(50));
}

#[test]
#[ignore = "a measurement"]
fn one_endpoint_among_10000_services() {
    measure(10_000, Duration::from_millis(250));
}
