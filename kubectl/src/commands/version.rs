//! `kubectl version`.

use clap::Args;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::output::{json as json_format, print, println, yaml};
use crate::session::{Call, Session};

/// The version of Kubernetes whose API this client speaks.
const API_VERSION: &str = "v1.35.0";

/// Print the client and server version information
#[derive(Args, Debug)]
pub struct Version {
    /// If true, shows client version only
    #[arg(long)]
    pub client: bool,
    /// One of 'yaml' or 'json'
    #[arg(long, short = 'o', default_value = "", hide_default_value = true)]
    pub output: String,
}

impl Version {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        if !matches!(self.output.as_str(), "" | "yaml" | "json") {
            return Err(Error::message("--output must be 'yaml' or 'json'"));
        }
        let mut document = json!({"clientVersion": client_version(), "kustomizeVersion": "none"});
        let mut failure = None;
        if !self.client {
            match session.json(&Call::get("/version")).await {
                Ok(server) => document["serverVersion"] = server,
                Err(e) => failure = Some(e),
            }
        }
        match self.output.as_str() {
            "yaml" => print(&yaml::document(&document))?,
            "json" => print(&json_format::pretty(&document))?,
            _ => {
                println(format!("Client Version: {API_VERSION}"))?;
                println("Kustomize Version: none")?;
                if let Some(version) = document["serverVersion"]["gitVersion"].as_str() {
                    println(format!("Server Version: {version}"))?;
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn client_version() -> Value {
    json!({
        "major": "1",
        "minor": "35",
        "gitVersion": API_VERSION,
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }),
    })
}
