//! One shared informer per kind that several controllers read.

use api::Typed;
use api::meta::MetaExt;
use api::openapi::api::apps::v1::{Deployment, ReplicaSet};
use api::openapi::api::coordination::v1::Lease;
use api::openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use api::openapi::api::discovery::v1::EndpointSlice;
use client::{Client, Informer, ListParams, Store};
use component::tasks::Spawner;

use crate::pods;

/// Index: the uid of the managing owner.
const CONTROLLER: &str = "controller";
/// Index: the namespace of an object without a managing owner.
const ORPHAN: &str = "orphan";
/// Index of pods: the node that they are assigned to, empty for unassigned ones.
const NODE: &str = "node";
/// Index of EndpointSlices: `namespace/name` of their Service.
const SERVICE: &str = "service";

/// The label that names the Service of an EndpointSlice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The shared informers.
pub struct Informers {
    /// All Deployments.
    pub deployments: Informer<Deployment>,
    /// All ReplicaSets, indexed by owner.
    pub replica_sets: Informer<ReplicaSet>,
    /// All Pods, indexed by owner and by node.
    pub pods: Informer<Pod>,
    /// All Services.
    pub services: Informer<Service>,
    /// All Endpoints.
    pub endpoints: Informer<Endpoints>,
    /// All EndpointSlices, indexed by Service.
    pub endpoint_slices: Informer<EndpointSlice>,
    /// All Nodes.
    pub nodes: Informer<Node>,
    /// All Leases; the node lifecycle reads those of `kube-node-lease`.
    pub leases: Informer<Lease>,
    /// All Namespaces.
    pub namespaces: Informer<Namespace>,
    /// All ServiceAccounts.
    pub service_accounts: Informer<ServiceAccount>,
}

impl Informers {
    /// Informers that have not begun.
    pub fn new(client: &Client) -> Self {
        fn all<K: Typed>(client: &Client) -> Informer<K> {
            Informer::new(client.all(), ListParams::default())
        }
        let owned = all::<ReplicaSet>(client).index(CONTROLLER, controller_uid).index(ORPHAN, orphan);
        let pods = all::<Pod>(client).index(CONTROLLER, controller_uid).index(ORPHAN, orphan);
        Self {
            deployments: all(client),
            replica_sets: owned,
            pods: pods.index(NODE, |pod| vec![pods::node_name(pod).to_owned()]),
            services: all(client),
            endpoints: all(client),
            endpoint_slices: all(client).index(SERVICE, service_of),
            nodes: all(client),
            leases: all(client),
            namespaces: all(client),
            service_accounts: all(client),
        }
    }

    /// Begins all of them.
    pub fn start(&self, tasks: &Spawner) {
        self.deployments.start(tasks);
        self.replica_sets.start(tasks);
        self.pods.start(tasks);
        self.services.start(tasks);
        self.endpoints.start(tasks);
        self.endpoint_slices.start(tasks);
        self.nodes.start(tasks);
        self.leases.start(tasks);
        self.namespaces.start(tasks);
        self.service_accounts.start(tasks);
    }
}

fn controller_uid<K: Typed>(object: &K) -> Vec<String> {
    object.controller().map(|owner| owner.uid.clone()).into_iter().collect()
}

fn orphan<K: Typed>(object: &K) -> Vec<String> {
    if object.controller().is_some() { Vec::new() } else { vec![object.namespace().to_owned()] }
}

fn service_of(slice: &EndpointSlice) -> Vec<String> {
    let key = |name: &str| api::meta::key_of(slice.namespace(), name);
    slice.label(SERVICE_NAME).map(key).into_iter().collect()
}

/// The objects that an owner manages, and those of its namespace that nobody manages.
pub fn owned_or_orphaned<O: Typed, K: Typed>(store: &Store<K>, owner: &O) -> Vec<std::sync::Arc<K>> {
    let mut objects = store.by_index(CONTROLLER, owner.uid());
    objects.extend(store.by_index(ORPHAN, owner.namespace()));
    objects
}

/// The objects that the owner with a uid manages.
pub fn owned<K: Typed>(store: &Store<K>, uid: &str) -> Vec<std::sync::Arc<K>> {
    store.by_index(CONTROLLER, uid)
}

/// The pods that are assigned to a node.
pub fn pods_on(store: &Store<Pod>, node: &str) -> Vec<std::sync::Arc<Pod>> {
    store.by_index(NODE, node)
}

/// The EndpointSlices of a Service, by whomever they are managed.
pub fn slices_of(store: &Store<EndpointSlice>, service: &str) -> Vec<std::sync::Arc<EndpointSlice>> {
    store.by_index(SERVICE, service)
}

/// The key of the managing owner, if it is of a kind.
pub fn owner_key<O: Typed, K: Typed>(object: &K) -> Option<String> {
    let owner = object.controller()?;
    let of_kind = owner.kind == O::KIND && owner.api_version == O::API_VERSION;
    of_kind.then(|| api::meta::key_of(object.namespace(), &owner.name))
}
