//! The protocol between components, generated from `proto/*.proto`, and the way in which a
//! Kubernetes `Status` travels in a gRPC error.

#[allow(missing_docs, clippy::all)]
mod generated {
    tonic::include_proto!("coxswain.v1");
}

pub use generated::*;

pub mod codec;
pub mod errors;

/// The compiled `.proto` files, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The largest message that is sent or received, in bytes: a list page or an object of the
/// largest size that the API accepts, with room to spare.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
