//! SPDY/3.1, as kubectl and container runtimes speak it for exec, attach and port-forward.
//!
//! No maintained crate speaks this protocol, and its two users here, the API server towards clients
//! and the kubelet towards the container runtime, need the same one. [`frame`] and [`headers`] are
//! pure; [`connection`] multiplexes streams over any byte stream.
//!
//! The peers that matter all use Go's spdystream, which neither sends nor obeys WINDOW_UPDATE. So
//! the send window is obeyed only of a peer whose SETTINGS announce one, updates are sent only to a peer
//! that knows them, and what bounds memory is
//! that a connection whose received bytes nobody reads is not read any further.
#![deny(missing_docs)]

pub mod connection;
pub mod frame;
pub mod headers;

pub use connection::{
    Config, Driver, Error, Incoming, RecvStream, Role, SendStream, Session, Stream, connection,
};
pub use frame::{Decoder, Encoder, Frame, FrameError};
pub use headers::Headers;

/// The token of the HTTP `Upgrade` header.
pub const UPGRADE: &str = "SPDY/3.1";
