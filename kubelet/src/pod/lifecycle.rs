//! Lifecycle hooks: what runs after a container's start and before its stop.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::probes::{self, Outcome};
use crate::runtime::Runtime;

/// Runs a hook; the error is what its event says. Takes as long as the hook does.
pub async fn run(
    runtime: &Runtime,
    handler: &LifecycleHandler,
    container: &Container,
    id: &str,
    host: &str,
    limit: Duration,
) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let command = action.command.as_deref().unwrap_or_default();
        return match runtime.exec_sync(id, command, limit).await {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => {
                let output = [answer.stdout, answer.stderr].concat();
                let (code, output) = (answer.exit_code, String::from_utf8_lossy(&output).into_owned());
                Err(format!("command '{}' exited with {code}: {output}", command.join(" ")))
            }
            Err(error) => Err(error.to_string()),
        };
    }
    if let Some(action) = &handler.http_get {
        let port = probes::port(&action.port, container)?;
        let host = action.host.as_deref().unwrap_or(host);
        return match probes::http::ask(action, host, port, limit).await {
            Outcome::Success => Ok(()),
            Outcome::Failure(why) | Outcome::Error(why) => Err(why),
        };
    }
    if let Some(action) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0)).min(limit)).await;
        return Ok(());
    }
    Err("invalid handler: no action is given".into())
}
