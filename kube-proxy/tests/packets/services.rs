//! Services as their clients see them.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use crate::network::*;

const VIP: &str = "10.96.7.1";
const WEB: &str = "10.96.7.1:80";
const NODE_PORT: &str = "172.30.0.1:30080";

fn names(answers: impl Iterator<Item = String>) -> BTreeSet<String> {
    answers.map(|a| a.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_endpoint_gets_traffic_and_sees_the_pod_that_asks() {
    let mut world = World::new();
    world.sync(&[service("web", VIP, &[POD_B, POD_C])]);
    let answers: Vec<_> = (0..30).map(|_| tcp(&world.pod_a, WEB).unwrap()).collect();
    assert!(answers.iter().all(|a| a.ends_with(POD_A)), "{answers:?}");
    assert_eq!(names(answers.into_iter()), ["b", "c"].map(str::to_owned).into());
    let answers = (0..30).map(|_| udp(&world.pod_a, WEB, 0).unwrap());
    assert_eq!(names(answers), ["b", "c"].map(str::to_owned).into());
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let mut world = World::new();
    world.sync(&[service("web", VIP, &[POD_A])]);
    let seen = tcp(&world.pod_a, WEB).unwrap();
    assert_eq!(seen, "a 10.244.0.1", "the node stands in between");
    assert!(udp(&world.pod_a, WEB, 0).unwrap().starts_with("a "));
}

#[test]
fn the_node_and_other_machines_reach_services() {
    let mut world = World::new();
    world.node.ip(&["route", "add", "10.96.0.0/12", "dev", "eth0"]);
    world.sync(&[service("web", VIP, &[POD_A, POD_C])]);
    for _ in 0..8 {
        tcp(&world.node, WEB).unwrap();
    }
    world.sync(&[service("web", VIP, &[POD_A])]);
    assert_eq!(tcp(&world.other, WEB).unwrap(), "a 10.244.0.1", "off-cluster clients are masqueraded");
}

#[test]
fn node_ports_answer_on_the_nodes_addresses_and_not_on_loopback() {
    let mut world = World::new();
    world.sync(&[service("web", VIP, &[POD_A, POD_B, POD_C])]);
    for _ in 0..12 {
        tcp(&world.other, NODE_PORT).unwrap();
        udp(&world.other, NODE_PORT, 0).unwrap();
        tcp(&world.pod_a, NODE_PORT).unwrap();
        tcp(&world.node, NODE_PORT).unwrap();
    }
    assert_eq!(tcp(&world.node, "127.0.0.1:30080"), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn a_local_policy_shows_clients_addresses_and_drops_where_nothing_serves() {
    let mut world = World::new();
    let mut model = service("web", VIP, &[POD_A, POD_C]);
    model.external_local = true;
    world.sync(&[model.clone()]);
    for _ in 0..8 {
        assert_eq!(tcp(&world.other, NODE_PORT).unwrap(), format!("a {OTHER_IP}"));
    }
    model.ports.iter_mut().for_each(|p| p.endpoints = vec![endpoint(POD_C)]);
    world.sync(&[model]);
    assert_eq!(tcp(&world.other, NODE_PORT), Err(ErrorKind::TimedOut));
    assert!(
        tcp(&world.pod_a, NODE_PORT).unwrap().starts_with("c "),
        "from within, the policy does not count"
    );
}

#[test]
fn what_has_no_endpoint_or_no_service_is_refused_at_once() {
    let mut world = World::new();
    world.node.ip(&["route", "add", "10.96.0.0/12", "via", OTHER_IP]);
    world.sync(&[service("web", VIP, &[])]);
    let began = std::time::Instant::now();
    for address in [WEB, "10.96.7.1:81", "10.97.0.9:443", NODE_PORT] {
        for from in [&world.pod_a, &world.node] {
            assert_eq!(tcp(from, address), Err(ErrorKind::ConnectionRefused), "{address}");
            // On the node itself, sending fails already.
            let refused = udp(from, address, 0).unwrap_err();
            assert!(
                matches!(refused, ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied),
                "{address}"
            );
        }
    }
    assert_eq!(tcp(&world.other, NODE_PORT), Err(ErrorKind::ConnectionRefused));
    assert!(began.elapsed().as_secs() < 2, "nobody waited");
}

#[test]
fn changes_of_endpoints_are_followed_and_connections_stay() {
    let mut world = World::new();
    world.sync(&[service("web", VIP, &[POD_B])]);
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let (reply, replies) = std::sync::mpsc::channel();
    let client = world.pod_a.start(move || {
        let mut connection = Connection::open(WEB).unwrap();
        for () in asked {
            reply.send(connection.ask().unwrap()).unwrap();
        }
    });
    let established = || {
        ask.send(()).unwrap();
        replies.recv().unwrap()
    };
    assert_eq!(established(), format!("b {POD_A}"));
    let done = world.sync(&[service("web", VIP, &[POD_C])]);
    assert!(!done.full && done.lines < 30, "{done:?}");
    assert!(tcp(&world.pod_a, WEB).unwrap().starts_with("c "));
    assert_eq!(established(), format!("b {POD_A}"), "TCP is left alone");

    // The proxy is killed; the Service changes while it is away; another one takes over.
    world.proxy = ProxyThread::start(&world.node);
    assert_eq!(established(), format!("b {POD_A}"));
    assert!(tcp(&world.pod_a, WEB).unwrap().starts_with("c "), "rules outlive the proxy");
    let done = world.sync(&[service("web", VIP, &[POD_C])]);
    assert_eq!((done.full, done.lines), (true, 0), "nothing had changed");
    world.proxy = ProxyThread::start(&world.node);
    let done = world.sync(&[service("web", VIP, &[POD_A])]);
    assert!(done.full && done.lines > 0 && done.lines < 30, "{done:?}");
    assert!(tcp(&world.pod_b, WEB).unwrap().starts_with("a "));
    assert_eq!(established(), format!("b {POD_A}"));
    drop(ask);
    client.join().unwrap();
}

#[test]
fn udp_clients_that_keep_their_port_leave_an_endpoint_that_goes() {
    let mut world = World::new();
    world.sync(&[service("web", VIP, &[POD_B])]);
    assert_eq!(udp(&world.pod_a, WEB, 5555).unwrap(), format!("b {POD_A}"));
    assert!(udp(&world.other, NODE_PORT, 5555).unwrap().starts_with("b "));
    world.sync(&[service("web", VIP, &[POD_C])]);
    assert_eq!(udp(&world.pod_a, WEB, 5555).unwrap(), format!("c {POD_A}"));
    assert!(udp(&world.other, NODE_PORT, 5555).unwrap().starts_with("c "));

    // The endpoint goes while the proxy is away.
    world.proxy = ProxyThread::start(&world.node);
    world.sync(&[service("web", VIP, &[POD_B])]);
    assert_eq!(udp(&world.pod_a, WEB, 5555).unwrap(), format!("b {POD_A}"));
    assert!(udp(&world.other, NODE_PORT, 5555).unwrap().starts_with("b "));
}

#[test]
fn session_affinity_keeps_a_client_with_its_endpoint_across_restarts() {
    let mut world = World::new();
    let mut model = service("web", VIP, &[POD_B, POD_C]);
    model.affinity = Some(60);
    world.sync(std::slice::from_ref(&model));
    let first = tcp(&world.pod_a, WEB).unwrap();
    for _ in 0..12 {
        assert_eq!(tcp(&world.pod_a, WEB).unwrap(), first);
    }
    world.proxy = ProxyThread::start(&world.node);
    model.ports[0].endpoints.insert(0, endpoint(POD_A));
    world.sync(&[model]);
    for _ in 0..12 {
        assert_eq!(tcp(&world.pod_a, WEB).unwrap(), first);
    }
}

#[test]
fn a_table_that_vanishes_is_made_again() {
    let mut world = World::new();
    let models = [service("web", VIP, &[POD_B])];
    world.sync(&models);
    let (seen, was_seen) = std::sync::mpsc::channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    world.node.start(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut watch = kube_proxy::nft::watch::TableWatch::new().unwrap();
            ready.send(()).unwrap();
            watch.removed().await.unwrap();
        });
        seen.send(()).unwrap();
    });
    is_ready.recv().unwrap();
    world.node.output(&["nft", "flush", "ruleset"]);
    was_seen.recv_timeout(std::time::Duration::from_secs(3)).expect("the removal is announced");
    assert!(tcp(&world.pod_a, WEB).is_err());
    world.proxy.distrust();
    world.sync(&models);
    assert!(tcp(&world.pod_a, WEB).unwrap().starts_with("b "));

    // Not even noticed: the next change finds out by itself.
    world.node.output(&["nft", "flush", "ruleset"]);
    world.sync(&[service("web", VIP, &[POD_C])]);
    assert!(tcp(&world.pod_a, WEB).unwrap().starts_with("c "));
}

#[test]
fn many_endpoints_all_get_traffic() {
    let mut world = World::new();
    for i in 10..22 {
        world.other.ip(&["addr", "add", &format!("10.244.1.{i}/32"), "dev", "lo"]);
    }
    let addresses: Vec<String> = (10..22).map(|i| format!("10.244.1.{i}")).collect();
    let mut all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    all.push(POD_C);
    world.sync(&[service("web", VIP, &all)]);
    // Only one of the thirteen has a server; the others refuse.
    let answered = (0..120).filter(|_| tcp(&world.pod_a, WEB).is_ok()).count();
    assert!((1..60).contains(&answered), "{answered}");
}
