//! The kernel settings without which Services do not work, in this network namespace.

use std::io;
use std::path::Path;

/// (file below /proc/sys, value, must be there). Packets are forwarded between pods and nodes, and
/// what passes between two pods on one bridge is seen by the rules.
const SETTINGS: [(&str, &str, bool); 2] =
    [("net/ipv4/ip_forward", "1", true), ("net/bridge/bridge-nf-call-iptables", "1", false)];

/// A setting that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("sysctl {name} cannot be set to {value} (is /proc/sys read-only?)")]
pub struct SysctlError {
    name: &'static str,
    value: &'static str,
    #[source]
    source: io::Error,
}

/// Makes the settings that are not right yet.
pub fn apply() -> Result<(), SysctlError> {
    for (name, value, required) in SETTINGS {
        let path = Path::new("/proc/sys").join(name);
        match std::fs::read_to_string(&path) {
            Ok(current) if current.trim() == value => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => continue,
            _ => {}
        }
        std::fs::write(&path, value).map_err(|source| SysctlError { name, value, source })?;
        tracing::info!(sysctl = name, value, "set");
    }
    Ok(())
}
