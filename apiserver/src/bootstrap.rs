//! What the server itself puts into a cluster: the system namespaces, and the Service by which pods reach it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use api::Kind;
use api::status::StatusError;
use serde_json::{Value, json};

use crate::admission::namespace_lifecycle::SYSTEM_NAMESPACES;
use crate::admission::priority;
use crate::auth::{User, rbac};
use crate::registry::Registry;
use crate::registry::store::{Target, WriteOptions};

/// How the API server is reached from within the cluster.
#[derive(Clone, Debug)]
pub struct Address {
    /// The address that Endpoints name.
    pub advertise: IpAddr,
    /// The port that the server listens on.
    pub port: u16,
    /// The first address of the service range.
    pub cluster_ip: Ipv4Addr,
}

/// Creates what is missing, and tries until it is there.
pub async fn run(registry: &Registry, address: &Address) {
    let mut pause = Duration::from_millis(100);
    loop {
        match attempt(registry, address).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "could not create the system objects; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

async fn attempt(registry: &Registry, address: &Address) -> Result<(), StatusError> {
    for name in SYSTEM_NAMESPACES {
        ensure(registry, "", "Namespace", "", json!({"metadata": {"name": name}}), Present::Keep).await?;
    }
    rbac::reconcile::run(registry).await?;
    for (name, value, description) in priority::BUILT_IN {
        let class = priority::document(name, *value, description);
        ensure(registry, "scheduling.k8s.io", "PriorityClass", "", class, Present::Keep).await?;
    }
    ensure(registry, "", "Service", "default", service(address), Present::Keep).await?;
    if address.advertise.is_loopback() {
        // Endpoints may not be on the loopback: no pod could reach them.
        tracing::warn!(address = %address.advertise, "the advertised address is a loopback; pods will not reach the API");
        return Ok(());
    }
    ensure(registry, "", "Endpoints", "default", endpoints(address), Present::Replace).await?;
    let slice = endpoint_slice(address);
    ensure(registry, "discovery.k8s.io", "EndpointSlice", "default", slice, Present::Replace).await
}

/// What to do when the object exists.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Present {
    /// It is as it was made by whomever.
    Keep,
    /// It is to be as it is said here.
    Replace,
}

/// Creates an object of the server's own, or brings the one that there is up to date.
///
/// # Errors
/// What a write can refuse.
pub(crate) async fn ensure(
    registry: &Registry,
    group: &str,
    kind: &str,
    namespace: &str,
    document: Value,
    present: Present,
) -> Result<(), StatusError> {
    let kind = Kind::find(group, kind).expect("it is in the table");
    let user = User::apiserver();
    let options = WriteOptions { manager: "kube-apiserver".into(), ..WriteOptions::default() };
    let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    match registry.create(&user, kind, namespace, document.clone(), &options).await {
        Err(error) if error.is_already_exists() && present == Present::Keep => Ok(()),
        Err(error) if error.is_already_exists() => {
            let target = Target { kind, namespace, name: &name };
            registry.update(&user, target, None, document, &options, &|| Ok(())).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn labels() -> Value {
    json!({"component": "apiserver", "provider": "kubernetes"})
}

fn service(address: &Address) -> Value {
    json!({
        "metadata": {"name": "kubernetes", "labels": labels()},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address.cluster_ip.to_string(),
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": address.port}],
        },
    })
}

fn endpoints(address: &Address) -> Value {
    json!({
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": address.advertise.to_string()}],
            "ports": [{"name": "https", "protocol": "TCP", "port": address.port}],
        }],
    })
}

fn endpoint_slice(address: &Address) -> Value {
    let family = if address.advertise.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": [{"addresses": [address.advertise.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "protocol": "TCP", "port": address.port}],
    })
}

/// Lets the store forget revisions older than `every`, again and again.
pub async fn compact(registry: &Registry, every: Duration) {
    let mut before = registry.hub().revision();
    loop {
        tokio::time::sleep(every).await;
        let now = registry.hub().revision();
        if before > 0 && now > before {
            match registry.etcd().compact(before).await {
                Ok(()) => tracing::debug!(revision = before, "the store was compacted"),
                Err(error) => tracing::warn!(%error, "could not compact the store"),
            }
        }
        before = now;
    }
}
