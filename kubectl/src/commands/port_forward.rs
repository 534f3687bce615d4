//! `kubectl port-forward`.

use std::sync::Arc;

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::exec::{api, name};
use crate::error::{Error, Result};
use crate::output::{println, warn};
use crate::pods;
use crate::session::{Call, Session};

/// Forward one or more local ports to a pod
#[derive(Args, Debug)]
pub struct PortForward {
    /// POD or TYPE/NAME
    pub target: String,
    /// [LOCAL_PORT:]REMOTE_PORT...
    #[arg(required = true)]
    pub ports: Vec<String>,
    /// Addresses to listen on
    #[arg(long, default_value = "localhost", value_delimiter = ',')]
    pub address: Vec<String>,
}

/// A local port and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    local: u16,
    remote: String,
}

fn parse(text: &str) -> Result<Mapping> {
    let bad = || Error::message(format!("invalid port format '{text}'"));
    let (local, remote) = match text.split_once(':') {
        Some(("", remote)) => (0, remote),
        Some((local, remote)) => (local.parse().map_err(|_| bad())?, remote),
        None => (text.parse().unwrap_or(0), text),
    };
    if remote.is_empty() || remote == "0" {
        return Err(bad());
    }
    Ok(Mapping { local, remote: remote.into() })
}

impl PortForward {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let mappings: Vec<Mapping> = self.ports.iter().map(|p| parse(p)).collect::<Result<_>>()?;
        let target = pods::target(session, std::slice::from_ref(&self.target)).await?;
        let service = match target.resource.is("", "services") {
            true => Some(session.json(&Call::get(target.path())).await?),
            false => None,
        };
        let pod = pods::pods_of(session, &target).await?.swap_remove(0);
        if pod["status"]["phase"] != "Running" {
            return Err(Error::message(format!(
                "unable to forward port because pod is not running. Current status={}",
                pod["status"]["phase"].as_str().unwrap_or("Unknown")
            )));
        }
        let api = Arc::new(api(session, &pod).await?);
        let pod_name: Arc<str> = name(&pod).into();
        let mut tasks = JoinSet::new();
        for mapping in mappings {
            let remote = remote_port(service.as_ref(), &pod, &mapping.remote)?;
            for listener in listen(&self.address, mapping.local).await? {
                tasks.spawn(serve(listener, api.clone(), pod_name.clone(), remote));
            }
        }
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(Ok(outcome)) => outcome,
                Some(Err(e)) => Err(Error::message(e)),
                None => Ok(()),
            },
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }
}

/// Listens on one port of every address; the port that the first was given is the others' too.
async fn listen(addresses: &[String], port: u16) -> Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut failure = None;
    let mut port = port;
    for address in addresses {
        let hosts: &[&str] = if address == "localhost" { &["127.0.0.1", "::1"] } else { &[address.as_str()] };
        for host in hosts {
            match TcpListener::bind((*host, port)).await {
                Ok(listener) => {
                    port = listener.local_addr()?.port();
                    listeners.push(listener);
                }
                Err(e) => failure = Some(format!("unable to listen on port {port}: {host}: {e}")),
            }
        }
    }
    match failure {
        Some(text) if listeners.is_empty() => Err(Error::message(text)),
        _ => Ok(listeners),
    }
}

async fn serve(listener: TcpListener, api: Arc<Api<Pod>>, pod: Arc<str>, remote: u16) -> Result<()> {
    let address = listener.local_addr()?;
    println(format!("Forwarding from {address} -> {remote}"))?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                println(format!("Handling connection for {}", address.port()))?;
                connections.spawn(forward(stream, api.clone(), pod.clone(), remote));
            }
            // What one connection fails with ends that connection only.
            Some(ended) = connections.join_next() => {
                if let Ok(Err(e)) = ended {
                    warn(format!("error forwarding port {remote} to pod {pod}: {}", e.report()));
                }
            }
        }
    }
}

async fn forward(mut local: TcpStream, api: Arc<Api<Pod>>, pod: Arc<str>, remote: u16) -> Result<()> {
    let mut forwarder = api.portforward(&pod, &[remote]).await.map_err(crate::streams::refused)?;
    let mut upstream = forwarder
        .take_stream(remote)
        .ok_or_else(|| Error::message("the server opened no stream for the port"))?;
    let error = forwarder.take_error(remote);
    let copied = tokio::io::copy_bidirectional(&mut local, &mut upstream).await;
    drop(upstream);
    if let Some(error) = error
        && let Ok(Some(message)) = tokio::time::timeout(std::time::Duration::from_millis(200), error).await
    {
        return Err(Error::message(message));
    }
    copied.map(|_| ()).map_err(|e| Error::message(format!("lost connection to pod: {e}")))
}

/// The pod's port that is meant: a number, a name, or a port of the service in front of it.
fn remote_port(service: Option<&Value>, pod: &Value, text: &str) -> Result<u16> {
    let Some(service) = service else { return container_port(pod, text) };
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let number = text.parse::<u16>().ok();
    let found = ports.iter().find(|p| p["name"] == text || number.is_some_and(|n| p["port"] == n));
    let Some(port) = found else {
        return Err(Error::message(format!("Service {} does not have a service port {text}", name(service))));
    };
    match (&port["targetPort"], service["spec"]["clusterIP"] == "None") {
        (_, true) => container_port(pod, &port["port"].to_string()),
        (Value::String(named), _) => container_port(pod, named),
        (Value::Number(number), _) if number.as_u64() != Some(0) => container_port(pod, &number.to_string()),
        _ => container_port(pod, &port["port"].to_string()),
    }
}

fn container_port(pod: &Value, text: &str) -> Result<u16> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(port);
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
    ports
        .find(|p| p["name"] == text)
        .and_then(|p| u16::try_from(p["containerPort"].as_u64()?).ok())
        .ok_or_else(|| Error::message(format!("Pod '{}' does not have a named port '{text}'", name(pod))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_numbers_names_or_service_ports() {
        assert_eq!(parse("8080:80").unwrap(), Mapping { local: 8080, remote: "80".into() });
        assert_eq!(parse(":80").unwrap(), Mapping { local: 0, remote: "80".into() });
        assert_eq!(parse("80").unwrap(), Mapping { local: 80, remote: "80".into() });
        assert!(parse("a:80").is_err() && parse("80:").is_err());
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 9}]}});
        assert_eq!(remote_port(None, &pod, "http").unwrap(), 8080);
        assert_eq!(remote_port(Some(&service), &pod, "80").unwrap(), 8080);
        assert_eq!(remote_port(Some(&service), &pod, "81").unwrap(), 9);
        assert!(remote_port(Some(&service), &pod, "82").is_err());
    }
}
