//! `kubectl create service`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::How;
use crate::error::{Error, Result};

#[derive(Args, Debug)]
pub struct Service {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand, Debug)]
enum Sub {
    /// Create a ClusterIP service
    Clusterip(Ports),
    /// Create a NodePort service
    Nodeport(Ports),
    /// Create a LoadBalancer service
    Loadbalancer(Ports),
    /// Create an ExternalName service
    Externalname(ExternalName),
}

#[derive(Args, Debug)]
struct Ports {
    name: String,
    /// PORT[:TARGET]...
    #[arg(long, value_delimiter = ',')]
    tcp: Vec<String>,
    /// Assign your own ClusterIP or set to 'None' for a headless service
    #[arg(long)]
    clusterip: Option<String>,
    /// Port used to expose the service on each node in a cluster
    #[arg(long)]
    node_port: Option<u16>,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct ExternalName {
    name: String,
    /// External name of service
    #[arg(long)]
    external_name: String,
    #[command(flatten)]
    how: How,
}

impl Service {
    /// The object, and how it is created.
    pub fn object(self) -> Result<(Value, How)> {
        match self.command {
            Sub::Clusterip(p) => p.object("ClusterIP"),
            Sub::Nodeport(p) => p.object("NodePort"),
            Sub::Loadbalancer(p) => p.object("LoadBalancer"),
            Sub::Externalname(e) => {
                let object = json!({
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": e.name, "labels": {"app": e.name}},
                    "spec": {"type": "ExternalName", "externalName": e.external_name, "selector": {"app": e.name}},
                    "status": {"loadBalancer": {}},
                });
                Ok((object, e.how))
            }
        }
    }
}

impl Ports {
    fn object(self, kind: &str) -> Result<(Value, How)> {
        let headless = self.clusterip.as_deref() == Some("None");
        if self.tcp.is_empty() && !headless {
            return Err(Error::message("at least one tcp port specifier must be provided"));
        }
        let ports = self.tcp.iter().map(|p| port(p, self.node_port)).collect::<Result<Vec<_>>>()?;
        let mut spec = json!({"type": kind, "selector": {"app": self.name}});
        if !ports.is_empty() {
            spec["ports"] = json!(ports);
        }
        if let Some(ip) = &self.clusterip {
            spec["clusterIP"] = json!(ip);
        }
        let object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name, "labels": {"app": self.name}},
            "spec": spec,
            "status": {"loadBalancer": {}},
        });
        Ok((object, self.how))
    }
}

fn port(text: &str, node_port: Option<u16>) -> Result<Value> {
    let (port, target) = text.split_once(':').unwrap_or((text, text));
    let number: u16 = port.parse().map_err(|e| Error::message(format!("invalid port {port:?}: {e}")))?;
    let target_value = target.parse::<u16>().map_or_else(|_| json!(target), |n| json!(n));
    let mut spec = json!({"name": text.replace(':', "-"), "port": number, "protocol": "TCP", "targetPort": target_value});
    if let Some(node_port) = node_port {
        spec["nodePort"] = json!(node_port);
    }
    Ok(spec)
}
