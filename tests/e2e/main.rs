//! What users do, on whole clusters.

mod access;
mod attach;
mod backup;
mod bad_input;
mod footprint;
mod hooks;
mod lifecycle;
mod parity;
mod rollout;
mod streams;
mod web;
mod websocket;
