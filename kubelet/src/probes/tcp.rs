//! Probes that open a TCP connection.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Outcome, authority};

/// Success is a connection that is accepted in time.
pub async fn ask(host: &str, port: u16, limit: Duration) -> Outcome {
    let address = authority(host, port);
    match timeout(limit, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(format!("dial tcp {address}: connect: {}", plain(&error))),
        Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

/// An error's text without the number that Rust adds.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
