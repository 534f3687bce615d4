//! The DNS interface, the name server and the routes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use component::tasks::Tasks;
use kube_proxy::dns::{self, Names, Zone};
use kube_proxy::{link, routes};

use crate::network::*;

const DNS: &str = "10.96.0.10:53";

/// A query for an A record, in wire format.
fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn over_udp(name: &'static str) -> Vec<u8> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket.connect(DNS).unwrap();
    socket.send(&query(name)).unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn over_tcp(name: &'static str) -> Vec<u8> {
    let mut stream = TcpStream::connect(DNS).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let query = query(name);
    stream.write_all(&[&[0, u8::try_from(query.len()).unwrap()], query.as_slice()].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    answer
}

/// A name server; its sockets are closed when it was dropped.
struct NameServer(Option<mpsc::Sender<()>>, Option<std::thread::JoinHandle<()>>);

impl Drop for NameServer {
    fn drop(&mut self) {
        drop(self.0.take());
        let _ = self.1.take().map(std::thread::JoinHandle::join);
    }
}

/// Starts a name server on the node and waits until it takes connections, which it does last.
fn name_server(node: &Namespace, names: Names) -> NameServer {
    let (stop, stopped) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    let thread = node.start(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let tasks = Tasks::new("test");
        runtime.block_on(async {
            let netlink = kube_proxy::netlink(&tasks.spawner()).unwrap();
            let index = link::ensure(&netlink, Some(Ipv4Addr::new(10, 96, 0, 10))).await.unwrap();
            assert_eq!(link::ensure(&netlink, Some(Ipv4Addr::new(10, 96, 0, 10))).await.unwrap(), index);
            let config = dns::Config { bind: DNS.parse::<SocketAddr>().unwrap(), upstreams: vec![] };
            dns::serve(config, names, Arc::default(), &tasks.spawner());
        });
        ready.send(()).unwrap();
        let _ = stopped.recv();
        drop(tasks);
    });
    is_ready.recv_timeout(Duration::from_secs(5)).expect("the name server starts");
    let answers = || node.run(|| TcpStream::connect(DNS).is_ok() && listens_over_udp());
    assert!((0..300).any(|_| answers()), "the name server answers");
    NameServer(Some(stop), Some(thread))
}

/// Whether a datagram is not refused at once.
fn listens_over_udp() -> bool {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket.connect(DNS).unwrap();
    socket.send(&query("cluster.local")).unwrap();
    socket.recv(&mut [0; 512]).is_ok()
}

#[test]
fn names_are_answered_on_the_node_without_conntrack_and_after_a_restart() {
    let mut world = World::new();
    world.sync(&[]);
    let names = Names::new(Zone::new("cluster.local", vec![]));
    let model = Arc::new(service("web", "10.96.7.1", &[]));
    names.update(|zone| {
        zone.set("default/web", Some(model));
        zone.set_ready();
    });
    for _ in 0..2 {
        let stop = name_server(&world.node, names.clone());
        for from in [&world.pod_a, &world.node] {
            let name = "web.default.svc.cluster.local";
            let udp = from.run(move || over_udp(name));
            assert_eq!((udp[1], udp[3] & 15), (7, 0));
            assert!(udp.ends_with(&[10, 96, 7, 1]), "{udp:?}");
            assert_eq!(from.run(move || over_tcp(name)), udp);
            let missing = from.run(|| over_udp("nope.default.svc.cluster.local"));
            assert_eq!(missing[3] & 15, 3, "NXDOMAIN");
        }
        drop(stop);
    }
    let tracked = world.node.output(&["conntrack", "-L"]);
    assert!(!tracked.contains("port=53"), "{tracked}");
}

#[test]
fn routes_of_ours_alone_are_touched() {
    let world = World::new();
    world.node.ip(&["route", "add", "10.244.9.0/24", "via", OTHER_IP]);
    let gateway = |ip: &str| routes::Via::Gateway(ip.parse().unwrap());
    let apply = |want: &[(&str, routes::Via)]| {
        let want: BTreeMap<_, _> = want.iter().map(|(cidr, via)| (cidr.parse().unwrap(), *via)).collect();
        world.node.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let tasks = Tasks::new("test");
            runtime.block_on(async {
                let netlink = kube_proxy::netlink(&tasks.spawner()).unwrap();
                routes::apply(&netlink, &want).await.map_err(|e| e.to_string())
            })
        })
    };
    let shown = || {
        let text = world.node.output(&["ip", "route", "show", "proto", "215"]);
        text.lines().map(|l| l.trim().to_owned()).collect::<Vec<_>>()
    };
    apply(&[("10.244.2.0/24", gateway("172.30.0.2")), ("10.244.3.0/24", gateway("172.30.0.3"))]).unwrap();
    assert_eq!(shown(), ["10.244.2.0/24 via 172.30.0.2 dev eth0", "10.244.3.0/24 via 172.30.0.3 dev eth0"]);
    apply(&[("10.244.2.0/24", gateway("172.30.0.9"))]).unwrap();
    assert_eq!(shown(), ["10.244.2.0/24 via 172.30.0.9 dev eth0"]);
    let taken = apply(&[("10.244.9.0/24", gateway("172.30.0.9")), ("10.244.4.0/24", gateway("172.30.0.4"))]);
    assert!(taken.unwrap_err().contains("10.244.9.0/24"));
    assert_eq!(shown(), ["10.244.4.0/24 via 172.30.0.4 dev eth0"]);
    apply(&[]).unwrap();
    assert!(shown().is_empty());
    let others = world.node.output(&["ip", "route", "show", "10.244.9.0/24"]);
    assert!(others.contains("via 172.30.0.2"), "{others}");
}
