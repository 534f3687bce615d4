//! The launcher: brings up a cluster on this machine, each node a set of namespaces of its own, and takes it
//! down again so that the host is left as it was.
#![deny(missing_docs)]

pub mod boot;
pub mod certs;
pub mod cgroups;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod components;
pub mod containerd;
pub mod host;
pub mod images;
pub mod journal;
pub mod kubeconfig;
pub mod network;
pub mod process;
pub mod rest;
pub mod steps;
pub mod supervise;
