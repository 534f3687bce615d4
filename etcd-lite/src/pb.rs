//! The messages and services of etcd's v3 API, and those of the log.

/// Keys, values and events.
#[allow(missing_docs, clippy::all)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Requests, responses and services.
#[allow(missing_docs, clippy::all)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// What stands in the log beside keys and values.
#[allow(missing_docs, clippy::all)]
pub(crate) mod log {
    tonic::include_proto!("coxswain.etcdlite.v1");
}
