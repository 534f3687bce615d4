//! The controllers, each named as upstream names it.

use std::pin::Pin;

use crate::context::Context;

mod clusterrole_aggregation;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod garbagecollector;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod podgc;
mod replicaset;
mod resourcequota;
mod root_ca_cert_publisher;
mod serviceaccount;
mod serviceaccount_token;
mod tainteviction;

/// Runs a controller for as long as this instance leads.
pub(crate) type Start = fn(Context) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// All controllers, under the names that `--controllers` knows.
pub(crate) const ALL: &[(&str, Start)] = &[
    ("deployment-controller", |ctx| Box::pin(deployment::run(ctx))),
    ("replicaset-controller", |ctx| Box::pin(replicaset::run(ctx))),
    ("disruption-controller", |ctx| Box::pin(disruption::run(ctx))),
    ("endpoints-controller", |ctx| Box::pin(endpoints::run(ctx))),
    ("endpointslice-controller", |ctx| Box::pin(endpointslice::run(ctx))),
    ("node-ipam-controller", |ctx| Box::pin(nodeipam::run(ctx))),
    ("node-lifecycle-controller", |ctx| Box::pin(nodelifecycle::run(ctx))),
    ("taint-eviction-controller", |ctx| Box::pin(tainteviction::run(ctx))),
    ("namespace-controller", |ctx| Box::pin(namespace::run(ctx))),
    ("garbage-collector-controller", |ctx| Box::pin(garbagecollector::run(ctx))),
    ("serviceaccount-controller", |ctx| Box::pin(serviceaccount::run(ctx))),
    ("serviceaccount-token-controller", |ctx| Box::pin(serviceaccount_token::run(ctx))),
    ("clusterrole-aggregation-controller", |ctx| Box::pin(clusterrole_aggregation::run(ctx))),
    ("resourcequota-controller", |ctx| Box::pin(resourcequota::run(ctx))),
    ("root-ca-certificate-publisher-controller", |ctx| Box::pin(root_ca_cert_publisher::run(ctx))),
    ("pod-garbage-collector-controller", |ctx| Box::pin(podgc::run(ctx))),
];
