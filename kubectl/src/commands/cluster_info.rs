//! `kubectl cluster-info`.

use clap::Args;
use std::io::IsTerminal;

use crate::error::Result;
use crate::output::println;
use crate::resource::targets::{Filter, Target, items, list};
use crate::session::Session;

/// Display addresses of the control plane and of services with the label kubernetes.io/cluster-service=true
#[derive(Args, Debug)]
pub struct ClusterInfo {}

impl ClusterInfo {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let url = session.target().await?.config.cluster_url.to_string();
        let url = url.trim_end_matches('/');
        let target = Target {
            resource: session.resource("services").await?,
            name: None,
            namespace: "kube-system".into(),
            document: None,
        };
        let filter = Filter { labels: "kubernetes.io/cluster-service=true".into(), ..Filter::default() };
        let services = list(session, &target, &filter).await?;
        println(line("Kubernetes control plane", url))?;
        for service in items(&services) {
            let meta = &service["metadata"];
            let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
            let (name, namespace) = (text(&meta["name"]), text(&meta["namespace"]));
            let label = text(&meta["labels"]["kubernetes.io/name"]);
            let port = &service["spec"]["ports"][0];
            let scheme = if port["port"] == 443 { "https:" } else { "" };
            let place = format!(
                "{url}/api/v1/namespaces/{namespace}/services/{scheme}{name}:{}/proxy",
                text(&port["name"])
            );
            println(line(if label.is_empty() { &name } else { &label }, &place))?;
        }
        println("\nTo further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.")
    }
}

/// Coloured on a terminal, as upstream does it.
fn line(name: &str, url: &str) -> String {
    if std::io::stdout().is_terminal() {
        format!("\u{1b}[0;32m{name}\u{1b}[0m is running at \u{1b}[0;33m{url}\u{1b}[0m")
    } else {
        format!("{name} is running at {url}")
    }
}
