//! `kubectl expose`: a service in front of what has a selector.

use clap::Args;
use serde_json::{Map, Value, json};

use super::create::{How, Words, submit};
use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::pods::template_path;
use crate::resource::targets::{self, Filter};
use crate::session::Session;

const EXPOSED: Words = Words { failed: "", done: "exposed" };

/// Expose a resource as a new service
#[derive(Args, Debug)]
pub struct Expose {
    /// TYPE NAME or TYPE/NAME
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub how: How,
    /// The port that the service should serve on
    #[arg(long)]
    pub port: Option<u16>,
    /// Name or number for the port on the container
    #[arg(long)]
    pub target_port: Option<String>,
    /// The network protocol
    #[arg(long, default_value = "TCP")]
    pub protocol: String,
    /// The name for the newly created object
    #[arg(long)]
    pub name: Option<String>,
    /// ClusterIP, NodePort, LoadBalancer, or ExternalName
    #[arg(long = "type")]
    pub kind: Option<String>,
    /// ClusterIP to be assigned; 'None' for a headless service
    #[arg(long)]
    pub cluster_ip: Option<String>,
    /// A label selector to use for this service
    #[arg(long)]
    pub selector: Option<String>,
    /// Labels to apply to the service
    #[arg(long, short = 'l')]
    pub labels: Option<String>,
}

impl Expose {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let (targets, errors) = targets::resolve(session, &self.args, &self.files, false).await?;
        Error::from_list(errors)?;
        if targets.iter().any(|t| t.name.is_none()) || targets.is_empty() {
            return Err(Error::message("you must provide one or more resources by argument or filename"));
        }
        let (found, mut errors) = targets::fetch(session, &targets, &Filter::default()).await;
        for one in found {
            let outcome = match self.service(&one.target.resource.kind, &one.object) {
                Ok(service) => submit(session, &self.how, service, EXPOSED).await,
                Err(e) => Err(e),
            };
            if let Err(e) = outcome {
                errors.push(e);
            }
        }
        Error::from_list(errors)
    }

    fn service(&self, kind: &str, object: &Value) -> Result<Value> {
        let selector = match &self.selector {
            Some(text) => labels(text)?,
            None => selector(kind, object)?,
        };
        let own = &object["metadata"]["labels"];
        let labels = match &self.labels {
            Some(text) => Value::Object(labels(text)?),
            None => own.clone(),
        };
        let name = self
            .name
            .clone()
            .unwrap_or_else(|| object["metadata"]["name"].as_str().unwrap_or_default().into());
        let mut metadata = json!({"name": name});
        if labels.is_object() {
            metadata["labels"] = labels;
        }
        let mut spec = json!({"selector": selector, "ports": self.ports(kind, object)?});
        if let Some(kind) = &self.kind {
            spec["type"] = json!(kind);
        }
        if let Some(ip) = &self.cluster_ip {
            spec["clusterIP"] = json!(ip);
        }
        Ok(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": {"loadBalancer": {}}}),
        )
    }

    fn ports(&self, kind: &str, object: &Value) -> Result<Value> {
        let known: Vec<(u64, String)> = match kind {
            "Service" => ports_of(&object["spec"], "port"),
            _ => {
                let spec = object.pointer(template_path(kind)).unwrap_or(&Value::Null);
                let containers = spec["containers"].as_array().into_iter().flatten();
                containers.flat_map(|c| ports_of(c, "containerPort")).collect()
            }
        };
        let ports = match self.port {
            Some(port) => vec![(u64::from(port), self.protocol.clone())],
            None if known.is_empty() => {
                return Err(Error::message("couldn't find port via --port flag or introspection"));
            }
            None => known,
        };
        let several = ports.len() > 1;
        let port = |(i, (port, protocol)): (usize, (u64, String))| {
            let target = match &self.target_port {
                Some(text) => text.parse::<u16>().map_or_else(|_| json!(text), |n| json!(n)),
                None => json!(port),
            };
            let mut entry = json!({"port": port, "protocol": protocol, "targetPort": target});
            if several {
                entry["name"] = json!(format!("port-{}", i + 1));
            }
            entry
        };
        Ok(ports.into_iter().enumerate().map(port).collect())
    }
}

fn ports_of(holder: &Value, field: &str) -> Vec<(u64, String)> {
    let ports = holder["ports"].as_array().into_iter().flatten();
    ports
        .filter_map(|p| Some((p[field].as_u64()?, p["protocol"].as_str().unwrap_or("TCP").to_owned())))
        .collect()
}

fn labels(text: &str) -> Result<Map<String, Value>> {
    text.split(',')
        .filter(|p| !p.is_empty())
        .map(|p| super::change::pair(p).map(|(k, v)| (k, json!(v))))
        .collect()
}

fn selector(kind: &str, object: &Value) -> Result<Map<String, Value>> {
    let found = match kind {
        "Pod" => &object["metadata"]["labels"],
        "Service" | "ReplicationController" => &object["spec"]["selector"],
        "Deployment" | "ReplicaSet" => {
            if object["spec"]["selector"]["matchExpressions"].as_array().is_some_and(|e| !e.is_empty()) {
                return Err(Error::message("couldn't convert expressions to a map-based selector"));
            }
            &object["spec"]["selector"]["matchLabels"]
        }
        other => return Err(Error::message(format!("cannot expose a {other}"))),
    };
    match found.as_object() {
        Some(labels) if !labels.is_empty() => Ok(labels.clone()),
        _ => Err(Error::message(format!(
            "couldn't retrieve selectors via --selector flag or introspection: the {} has no labels and cannot be exposed",
            kind.to_lowercase()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        expose: Expose,
    }

    #[test]
    fn a_deployment_is_exposed_by_its_selector_and_ports() {
        let deployment = json!({"metadata": {"name": "web", "labels": {"app": "w"}}, "spec": {"selector": {"matchLabels": {"app": "w"}},
            "template": {"spec": {"containers": [{"ports": [{"containerPort": 80}]}]}}}});
        let line = Line::try_parse_from(["expose", "deploy/web", "--target-port=http"]).unwrap();
        let service = line.expose.service("Deployment", &deployment).unwrap();
        assert_eq!(
            service["spec"],
            json!({"selector": {"app": "w"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}]})
        );
        assert!(line.expose.service("ConfigMap", &json!({})).is_err());
    }
}
