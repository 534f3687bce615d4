//! A running server, asked by etcdctl and by the etcd-client crate, and killed.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod etcdctl;
mod histories;
mod kill;
mod leases;
mod support;
mod tls;
mod watches;
