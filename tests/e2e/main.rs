//! What users do, on whole clusters.

mod bad_input;
mod footprint;
mod lifecycle;
mod parity;
mod rollout;
mod streams;
mod web;
