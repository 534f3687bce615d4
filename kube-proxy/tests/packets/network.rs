//! A node with two pods, and another machine, each a network namespace that nothing leaves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kube_proxy::dns::{Names, Zone};
use kube_proxy::model::{Endpoint, Kind, Protocol, ServiceModel, ServicePort};
use kube_proxy::proxy::{Proxy, Synced};
use kube_proxy::rules::Params;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub const NODE_IP: &str = "172.30.0.1";
pub const OTHER_IP: &str = "172.30.0.2";
pub const POD_A: &str = "10.244.0.2";
pub const POD_B: &str = "10.244.0.3";
/// A pod on the other machine.
pub const POD_C: &str = "10.244.1.5";
const PATIENCE: Duration = Duration::from_secs(3);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One network namespace; gone when dropped.
pub struct Namespace(String);

impl Namespace {
    pub fn new(role: &str) -> Self {
        let name = format!("cxpt-{}-{}-{role}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let namespace = Self(name);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    pub fn ip(&self, args: &[&str]) {
        ip(&[&["-n", &self.0], args].concat());
    }

    /// Runs a program inside and returns its output; it must succeed.
    #[track_caller]
    pub fn output(&self, args: &[&str]) -> String {
        let output =
            Command::new("ip").args(["netns", "exec", &self.0]).args(args).output().expect("ip starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Starts a thread whose network is this namespace.
    pub fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let file = File::open(format!("/run/netns/{}", self.0)).expect("the namespace exists");
        thread::spawn(move || {
            use std::os::fd::AsFd;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter");
            work()
        })
    }

    /// Runs something in this namespace and waits for it.
    #[track_caller]
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(work).join().expect("the work does not panic")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("ip starts");
    assert!(
        output.status.success(),
        "ip {args:?}: {} (root is needed)",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The whole world of a test. The proxy's thread ends first.
pub struct World {
    pub proxy: ProxyThread,
    pub pod_a: Namespace,
    pub pod_b: Namespace,
    pub other: Namespace,
    pub node: Namespace,
}

pub fn params() -> Params {
    Params {
        cluster_cidrs: vec!["10.244.0.0/16".parse().expect("a range")],
        service_range: "10.96.0.0/12".parse().expect("a range"),
        cluster_dns: Some(Ipv4Addr::new(10, 96, 0, 10)),
    }
}

impl World {
    /// Pods, and the other machine, are connected; servers answer with their name on 8080 (TCP and UDP).
    pub fn new() -> Self {
        let [node, pod_a, pod_b, other] = ["node", "a", "b", "other"].map(Namespace::new);
        for (pod, address) in [(&pod_a, POD_A), (&pod_b, POD_B)] {
            let veth = format!("veth-{}", &address[address.len() - 1..]);
            node.ip(&["link", "add", &veth, "type", "veth", "peer", "name", "eth0", "netns", &pod.0]);
            node.ip(&["addr", "add", "10.244.0.1/32", "dev", &veth]);
            node.ip(&["link", "set", &veth, "up"]);
            node.ip(&["route", "add", address, "dev", &veth]);
            pod.ip(&["addr", "add", &format!("{address}/32"), "dev", "eth0"]);
            pod.ip(&["link", "set", "eth0", "up"]);
            pod.ip(&["route", "add", "10.244.0.1", "dev", "eth0"]);
            pod.ip(&["route", "add", "default", "via", "10.244.0.1"]);
        }
        node.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &other.0]);
        node.ip(&["addr", "add", &format!("{NODE_IP}/24"), "dev", "eth0"]);
        node.ip(&["link", "set", "eth0", "up"]);
        node.ip(&["route", "add", "10.244.1.0/24", "via", OTHER_IP]);
        other.ip(&["addr", "add", &format!("{OTHER_IP}/24"), "dev", "eth0"]);
        other.ip(&["link", "set", "eth0", "up"]);
        other.ip(&["addr", "add", &format!("{POD_C}/32"), "dev", "lo"]);
        other.ip(&["route", "add", "default", "via", NODE_IP]);
        node.run(|| kube_proxy::sysctl::apply().expect("/proc/sys is writable"));
        serve(&pod_a, POD_A, "a");
        serve(&pod_b, POD_B, "b");
        serve(&other, POD_C, "c");
        let proxy = ProxyThread::start(&node);
        Self { proxy, pod_a, pod_b, other, node }
    }

    /// Programs exactly these Services and forgets those that were programmed before.
    pub fn sync(&mut self, models: &[ServiceModel]) -> Synced {
        self.proxy.sync(models)
    }
}

enum Order {
    Sync(BTreeMap<String, Option<ServiceModel>>),
    Distrust,
}

/// A proxy on the node, in a thread of its own.
pub struct ProxyThread {
    orders: mpsc::Sender<Order>,
    done: mpsc::Receiver<Result<Synced, String>>,
    known: Vec<String>,
}

impl ProxyThread {
    pub fn start(node: &Namespace) -> Self {
        let (orders, received) = mpsc::channel();
        let (report, done) = mpsc::channel();
        node.start(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let mut proxy = Proxy::new(params(), Names::new(Zone::new("cluster.local", vec![])));
            for order in received {
                match order {
                    Order::Sync(changes) => {
                        let synced = runtime.block_on(async {
                            let synced = proxy.sync(changes).await.map_err(|e| e.to_string())?;
                            kube_proxy::conntrack::forget(&synced.ended).await;
                            if synced.full {
                                let (flows, range) = proxy.udp_flows();
                                kube_proxy::conntrack::forget_stale(&flows, range).await;
                            }
                            Ok(synced)
                        });
                        if report.send(synced).is_err() {
                            return;
                        }
                    }
                    Order::Distrust => proxy.distrust(),
                }
            }
        });
        Self { orders, done, known: Vec::new() }
    }

    pub fn distrust(&self) {
        self.orders.send(Order::Distrust).expect("the proxy's thread runs");
    }

    pub fn sync(&mut self, models: &[ServiceModel]) -> Synced {
        let mut changes: BTreeMap<_, _> = self.known.drain(..).map(|key| (key, None)).collect();
        changes.extend(models.iter().map(|model| (model.key(), Some(model.clone()))));
        self.known = models.iter().map(ServiceModel::key).collect();
        self.order(changes)
    }

    /// Changes one Service and leaves the others.
    pub fn change(&mut self, model: &ServiceModel) -> Synced {
        self.order(BTreeMap::from([(model.key(), Some(model.clone()))]))
    }

    fn order(&self, changes: BTreeMap<String, Option<ServiceModel>>) -> Synced {
        self.orders.send(Order::Sync(changes)).expect("the proxy's thread runs");
        self.done.recv().expect("the proxy's thread answers").expect("nft takes the rules")
    }
}

/// Answers on 8080 with the server's name and the client's address; TCP connections echo line by line.
fn serve(namespace: &Namespace, address: &str, name: &'static str) {
    let address: SocketAddr = format!("{address}:8080").parse().expect("an address");
    let (ready, is_ready) = mpsc::channel();
    let udp_ready = ready.clone();
    namespace.start(move || {
        let listener = TcpListener::bind(address).expect("the address is there");
        ready.send(()).expect("it is waited for");
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, name));
        }
    });
    namespace.start(move || {
        let socket = UdpSocket::bind(address).expect("the address is there");
        udp_ready.send(()).expect("it is waited for");
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} {}", client.ip()).as_bytes(), client);
        }
    });
    for _ in 0..2 {
        is_ready.recv_timeout(PATIENCE).expect("the server starts");
    }
}

fn answer(mut stream: TcpStream, name: &str) -> Option<()> {
    let client = stream.peer_addr().ok()?.ip();
    let mut byte = [0; 1];
    while stream.read(&mut byte).ok()? == 1 {
        stream.write_all(format!("{name} {client}\n").as_bytes()).ok()?;
    }
    Some(())
}

/// A TCP connection to a server as above.
pub struct Connection(TcpStream);

impl Connection {
    pub fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address.parse().expect("an address"), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// The server's name and the address that it sees.
    pub fn ask(&mut self) -> io::Result<String> {
        self.0.write_all(b"?")?;
        let mut line = Vec::new();
        let mut byte = [0; 1];
        while self.0.read(&mut byte)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

/// One TCP request; an error by its kind.
pub fn tcp(from: &Namespace, to: &str) -> Result<String, io::ErrorKind> {
    let to = to.to_owned();
    from.run(move || Connection::open(&to).and_then(|mut c| c.ask()).map_err(|e| e.kind()))
}

/// One UDP request from a port (0 for any).
pub fn udp(from: &Namespace, to: &str, port: u16) -> Result<String, io::ErrorKind> {
    let to = to.to_owned();
    from.run(move || {
        let ask = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect(&to)?;
            socket.send(b"?")?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        ask().map_err(|e: io::Error| e.kind())
    })
}

pub fn endpoint(address: &str) -> Endpoint {
    let local = address.starts_with("10.244.0.");
    Endpoint {
        ip: address.parse().expect("an address"),
        port: 8080,
        ready: true,
        serving: true,
        terminating: false,
        local,
        maybe_local: local,
        hinted: true,
    }
}

/// A Service with a TCP and a UDP port 80 and the NodePort 30080.
pub fn service(name: &str, cluster_ip: &str, endpoints: &[&str]) -> ServiceModel {
    let port = |protocol: Protocol| ServicePort {
        name: protocol.lower().into(),
        protocol,
        port: 80,
        node_port: Some(30080),
        endpoints: endpoints.iter().map(|e| endpoint(e)).collect(),
    };
    ServiceModel {
        namespace: "default".into(),
        name: name.into(),
        kind: Kind::Virtual {
            cluster_ips: vec![cluster_ip.parse().expect("an address")],
            external_ips: vec![],
        },
        ports: vec![port(Protocol::Tcp), port(Protocol::Udp)],
        internal_local: false,
        external_local: false,
        affinity: None,
    }
}
