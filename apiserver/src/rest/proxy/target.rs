//! Where a proxied request goes: from the name in its path and the objects that it means.

use std::net::{IpAddr, SocketAddr};

use api::{Object, StatusError};
use proto::PodRef;
use serde_json::Value;

/// The port of a kubelet's own endpoints, as upstream has it. Ours are reached through the tunnel.
const KUBELET_PORT: &str = "10250";

/// A name in a path: `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`, where the port may be left empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a> {
    /// All of it.
    pub whole: &'a str,
    /// `http`, `https` or empty.
    pub scheme: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// A number, the name of a Service's port, or empty.
    pub port: &'a str,
}

impl<'a> Id<'a> {
    /// Takes a name apart. Nothing for what is none.
    pub fn parse(whole: &'a str) -> Option<Self> {
        let parts: Vec<&str> = whole.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme @ ("" | "http" | "https"), name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { whole, scheme, name, port })
    }
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A port of a pod.
    Pod {
        /// The pod's node.
        node: String,
        /// The pod.
        pod: PodRef,
        /// One of its addresses, and the port.
        address: SocketAddr,
    },
    /// A port of a node itself.
    Node {
        /// The node.
        node: String,
        /// The port.
        port: u16,
    },
    /// The kubelet's own endpoints.
    Kubelet {
        /// The node.
        node: String,
    },
    /// What is no pod of this cluster, as far as its endpoint says.
    Address(SocketAddr),
}

impl Place {
    /// The host as a URL names it.
    pub fn host(&self) -> String {
        match self {
            Self::Pod { address, .. } | Self::Address(address) => address.to_string(),
            Self::Node { node, port } => format!("{node}:{port}"),
            Self::Kubelet { node } => format!("{node}:{KUBELET_PORT}"),
        }
    }
}

/// Where a request goes, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Over TLS.
    pub https: bool,
    /// Where.
    pub place: Place,
}

/// Refuses what would lead to the server itself or nowhere.
fn proxyable(ip: IpAddr) -> Result<IpAddr, StatusError> {
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return Err(StatusError::bad_request("address not allowed"));
    }
    Ok(ip)
}

fn number(port: &str) -> Result<u16, StatusError> {
    let number = port.parse().ok().filter(|port| *port != 0);
    number.ok_or_else(|| StatusError::bad_request(format!("invalid port {port:?}")))
}

/// A port of a pod; its first one if none is named.
///
/// # Errors
/// 400 for a port that is no number and for a pod without an address or a node.
pub fn of_pod(pod: &Object, id: &Id<'_>) -> Result<Place, StatusError> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let mut ports = containers.into_iter().flatten().filter_map(|c| c["ports"].as_array()).flatten();
    let first = ports.find_map(|port| port["containerPort"].as_u64()).and_then(|p| u16::try_from(p).ok());
    let port = match (id.port, first) {
        ("", Some(first)) => first,
        ("", None) => {
            if id.scheme == "https" {
                443
            } else {
                80
            }
        }
        (port, _) => number(port)?,
    };
    let ip = pod.str_at("/status/podIP").parse();
    let ip = ip.map_err(|_| StatusError::bad_request("address not allowed"))?;
    let node = pod.str_at("/spec/nodeName").to_owned();
    let pod = PodRef {
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
    };
    Ok(Place::Pod { node, pod, address: SocketAddr::new(proxyable(ip)?, port) })
}

/// The kubelet, or another port of its node.
///
/// # Errors
/// 400 for a port that is no number.
pub fn of_node(node: &str, id: &Id<'_>) -> Result<Place, StatusError> {
    let node = node.to_owned();
    match id.port {
        "" | KUBELET_PORT => Ok(Place::Kubelet { node }),
        port => Ok(Place::Node { node, port: number(port)? }),
    }
}

/// The name of the Service's port that is meant.
///
/// # Errors
/// 503 for a number that the Service does not have.
pub fn service_port(service: &Object, id: &Id<'_>) -> Result<String, StatusError> {
    let Ok(number) = id.port.parse::<u64>() else { return Ok(id.port.to_owned()) };
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let port = ports.into_iter().flatten().find(|port| port["port"] == number).ok_or_else(|| {
        StatusError::unavailable(format!("no service port {number} found for service {:?}", id.name))
    })?;
    Ok(port["name"].as_str().unwrap_or_default().to_owned())
}

/// The endpoints that are ready, of the port of a name. One that must not be reached is an error in their midst.
pub fn endpoints(slices: &[Object], port: &str) -> Vec<Result<Place, StatusError>> {
    let list = |object: &Object, field: &str| {
        object.pointer(field).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let mut places = Vec::new();
    for slice in slices.iter().filter(|slice| slice.deletion_timestamp().is_none()) {
        let ports = list(slice, "/ports");
        let named = ports.iter().find(|p| p["name"].as_str().unwrap_or_default() == port);
        let number = named.and_then(|p| p["port"].as_u64()).and_then(|p| u16::try_from(p).ok());
        let Some(number) = number else { continue };
        for endpoint in list(slice, "/endpoints") {
            let ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
            let ip = endpoint.pointer("/addresses/0").and_then(Value::as_str);
            // A name instead of an address is for DNS to answer.
            if let (true, Some(ip)) = (ready, ip.and_then(|ip| ip.parse::<IpAddr>().ok())) {
                places.push(proxyable(ip).map(|ip| endpoint_at(&endpoint, SocketAddr::new(ip, number))));
            }
        }
    }
    places
}

fn endpoint_at(endpoint: &Value, address: SocketAddr) -> Place {
    let text = |at: &str| endpoint.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (node, uid) = (text("/nodeName"), text("/targetRef/uid"));
    if text("/targetRef/kind") != "Pod" || node.is_empty() || uid.is_empty() {
        return Place::Address(address);
    }
    let pod = PodRef { namespace: text("/targetRef/namespace"), name: text("/targetRef/name"), uid };
    Place::Pod { node, pod, address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::new(value).expect("a map")
    }

    fn id(text: &str) -> Id<'_> {
        Id::parse(text).expect("a name")
    }

    #[test]
    fn names_may_have_a_scheme_and_a_port() {
        let check = |text: &str, wanted: Option<(&str, &str, &str)>| {
            assert_eq!(Id::parse(text).map(|id| (id.scheme, id.name, id.port)), wanted, "{text}");
        };
        check("web", Some(("", "web", "")));
        check("web:80", Some(("", "web", "80")));
        check("https:web:", Some(("https", "web", "")));
        check("http:web:metrics", Some(("http", "web", "metrics")));
        check(":web:1", Some(("", "web", "1")));
        for bad in ["", ":80", "ftp:web:1", "a:b:c:d", "https::1"] {
            check(bad, None);
        }
    }

    fn pod(ip: &str) -> Object {
        object(json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"nodeName": "n", "containers": [{}, {"ports": [{"containerPort": 8080}]}]},
            "status": {"podIP": ip}}))
    }

    #[test]
    fn a_pod_is_reached_at_its_first_port_or_the_one_that_is_named() {
        let host = |name: &str| of_pod(&pod("10.244.0.7"), &id(name)).map(|place| place.host());
        assert_eq!(host("p").expect("fine"), "10.244.0.7:8080");
        assert_eq!(host("p:9").expect("fine"), "10.244.0.7:9");
        assert_eq!(host("p:x").expect_err("refused").code(), 400);
        for ip in ["127.0.0.1", "169.254.1.1", "", "0.0.0.0", "::1", "fe80::1", "224.0.0.1"] {
            assert_eq!(of_pod(&pod(ip), &id("p")).expect_err(ip).code(), 400);
        }
    }

    #[test]
    fn a_node_is_its_kubelet_unless_another_port_is_named() {
        let kubelet = Place::Kubelet { node: "n".into() };
        assert_eq!(of_node("n", &id("n")).expect("fine"), kubelet);
        assert_eq!(of_node("n", &id("https:n:10250")).expect("fine"), kubelet);
        assert_eq!(of_node("n", &id("n:9100")).expect("fine"), Place::Node { node: "n".into(), port: 9100 });
    }

    #[test]
    fn a_service_is_reached_at_a_ready_endpoint_of_its_port() {
        let service = object(json!({"spec": {"ports": [{"port": 80}, {"port": 81, "name": "m"}]}}));
        assert_eq!(service_port(&service, &id("web:80")).expect("fine"), "");
        assert_eq!(service_port(&service, &id("web:81")).expect("fine"), "m");
        assert_eq!(service_port(&service, &id("web:m")).expect("fine"), "m");
        let error = service_port(&service, &id("web:82")).expect_err("refused");
        assert_eq!((error.code(), error.to_string().contains("no service port 82 found")), (503, true));

        let target = json!({"kind": "Pod", "namespace": "d", "name": "p", "uid": "u"});
        let slice = object(json!({"ports": [{"port": 8080}, {"name": "m", "port": 9}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "n", "targetRef": target},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.3"]},
            {"addresses": ["127.0.0.1"]},
        ]}));
        let places = endpoints(std::slice::from_ref(&slice), "m");
        let hosts: Vec<_> = places.iter().map(|p| p.as_ref().map_or("refused".into(), Place::host)).collect();
        assert_eq!(hosts, ["10.0.0.1:9", "10.0.0.3:9", "refused"]);
        assert!(matches!(places[0], Ok(Place::Pod { .. })) && matches!(places[1], Ok(Place::Address(_))));
        assert!(endpoints(&[slice], "other").is_empty());
    }
}
