//! Flags that several binaries have, under upstream's names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::tls::ServerTls;

/// How a component reaches the API server.
#[derive(clap::Args, Clone, Debug)]
pub struct ClientArgs {
    /// Path to the kubeconfig file that names the API servers and this component's certificate.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
}

/// Leader election by Lease, as upstream's controller-manager and scheduler have it.
#[derive(clap::Args, Clone, Debug)]
pub struct LeaderArgs {
    /// Contend for leadership before working, so that several instances may run.
    #[arg(long, default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// How long others wait after the last renewal before they take over.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,
    /// How long the leader tries to renew before it steps down.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,
    /// The time between attempts to acquire or renew.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,
    /// Namespace of the Lease.
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
}

/// The secure port on which a component shows health, metrics and what it decided.
#[derive(clap::Args, Clone, Debug)]
pub struct ServeArgs {
    /// The address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub bind_address: IpAddr,
    /// The port to listen on; 0 listens on none.
    #[arg(long, default_value_t = 0)]
    pub secure_port: u16,
    /// The serving certificate. Without it the port is served without TLS, which is allowed on loopback only.
    #[arg(long, value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// The key of the serving certificate.
    #[arg(long, value_name = "FILE")]
    pub tls_private_key_file: Option<PathBuf>,
    /// The CA whose client certificates are accepted.
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
}

/// Where and how to serve, after the flags were checked.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The address.
    pub addr: SocketAddr,
    /// The certificate; without it, plain HTTP on loopback.
    pub tls: Option<ServerTls>,
}

impl ServeArgs {
    /// Checks the flags against each other; `None` when the port is 0.
    ///
    /// # Errors
    /// Every contradiction, in words that name the flags.
    pub fn check(&self) -> Result<Option<Serving>, Vec<String>> {
        let mut problems = Vec::new();
        let tls = match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(cert), Some(key)) => Some(ServerTls {
                cert: cert.clone(),
                key: key.clone(),
                client_ca: self.client_ca_file.clone(),
            }),
            (None, None) => None,
            _ => {
                problems.push("--tls-cert-file and --tls-private-key-file must be given together".into());
                None
            }
        };
        if self.secure_port != 0 && tls.is_none() && !self.bind_address.is_loopback() {
            problems.push(format!(
                "--bind-address {} needs --tls-cert-file: without TLS only loopback is allowed",
                self.bind_address
            ));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let addr = SocketAddr::new(self.bind_address, self.secure_port);
        Ok((self.secure_port != 0).then_some(Serving { addr, tls }))
    }
}

/// Parses a duration as Go writes it: `300ms`, `1.5h`, `1m30s`, `0`.
///
/// # Errors
/// A sentence that names what was given.
pub fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(error());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
        let number: f64 = rest[..digits].parse().map_err(|_| error())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(error()),
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_parse() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "s", "5x", "-5s", "1m3", "1..5s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_public_port_needs_tls() {
        let args = ServeArgs {
            bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            secure_port: 1,
            tls_cert_file: None,
            tls_private_key_file: Some("key".into()),
            client_ca_file: None,
        };
        assert_eq!(args.check().expect_err("two problems").len(), 2);
        assert!(
            ServeArgs { secure_port: 0, tls_private_key_file: None, ..args }.check().expect("fine").is_none()
        );
    }
}
