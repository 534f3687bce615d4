//! The controllers against a real API server on a real etcd, with nodes whose kubelets are played.

mod collection;
mod disruption;
mod endpoints;
mod leadership;
mod nodes;
mod quota;
mod support;
mod workloads;
