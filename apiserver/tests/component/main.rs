//! The API server against a real etcd: every test has its own of both, on loopback ports of their own.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod access;
mod aggregation;
mod appear;
mod apply;
mod auth;
mod bad_input;
mod content;
mod crud;
mod custom;
mod delete;
mod fuzz;
mod history;
mod kubectl;
mod lists;
mod node;
mod policies;
mod proxy;
mod quota;
mod restart;
mod samples;
mod support;
mod watches;
mod webhooks;
mod writes;
