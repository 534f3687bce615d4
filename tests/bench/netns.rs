//! A network namespace for this process and all that it starts: nothing goes out, and no port is taken.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use coxswain::network::Cidr;
use rustix::thread::UnshareFlags;

/// The range of which the API server announces the first address.
pub const SUBNET: &str = "172.30.255.0/24";

/// Leaves the host's network for an empty one with loopback and the cluster's own address. It ends with the
/// last process in it.
///
/// # Errors
/// Without root.
pub fn enter() -> Result<()> {
    // SAFETY: only the network changes, and no thread has been started yet that would stay behind.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .context("could not leave the host's network: this needs root")?;
    let subnet: Cidr = SUBNET.parse().map_err(anyhow::Error::msg)?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["address", "add", &format!("{}/32", subnet.host(1)), "dev", "lo"])
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("ip does not start")?;
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}
