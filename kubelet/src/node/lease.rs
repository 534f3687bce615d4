//! The node's heartbeat: a Lease in `kube-node-lease`, renewed every ten seconds.

use std::time::Duration;

use client::{Client, Error, Patch};
use component::clock::Clock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// The namespace of the nodes' leases.
pub const NAMESPACE: &str = "kube-node-lease";
/// For how long a renewal holds, in seconds.
pub const DURATION_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(200);

/// The node owns its lease: whoever deletes the node deletes the lease with it.
fn owner(node: &str, uid: &str) -> Vec<OwnerReference> {
    vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }]
}

fn lease(node: &str, uid: &str, clock: &Clock) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.into()),
            owner_references: Some(owner(node, uid)),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(clock.micro_time()),
            ..LeaseSpec::default()
        }),
    }
}

/// Renews the lease or makes it. One that is taken over may still name a node that has been deleted since as its
/// owner, and would be deleted for that.
pub(crate) async fn renew(
    client: &Client,
    node: &str,
    uid: &str,
    take_over: bool,
    clock: &Clock,
) -> Result<(), Error> {
    let leases = client.namespaced::<Lease>(NAMESPACE);
    let spec = json!({"holderIdentity": node, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": clock.micro_time()});
    let mut change = json!({ "spec": spec });
    if take_over {
        change["metadata"] = json!({ "ownerReferences": owner(node, uid) });
    }
    match leases.patch(node, &Patch::Merge(change)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => leases.create(&lease(node, uid, clock)).await.map(|_| ()),
        Err(error) => Err(error),
    }
}

/// Renews until `token` says otherwise. A failed renewal is tried again soon, for less and less often.
pub async fn keep(client: Client, node: String, uid: String, clock: Clock, token: CancellationToken) {
    let mut retry = RETRY;
    let mut take_over = true;
    loop {
        let wait = match renew(&client, &node, &uid, take_over, &clock).await {
            Ok(()) => {
                take_over = false;
                retry = RETRY;
                RENEW
            }
            Err(error) => {
                tracing::warn!(%error, "renewing the node's lease failed; trying again");
                let wait = retry;
                retry = (retry * 2).min(Duration::from_secs(7));
                wait
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
