//! Finds out whether a process that was started does its work.

use std::sync::Arc;
use std::time::Duration;

use crate::components::{Probe, Spec};
use crate::rest::{Rest, chain};
use crate::supervise::Shared;

/// The pauses between questions: short at first, as everybody waits for the answer.
const PAUSES: [Duration; 2] = [Duration::from_millis(15), Duration::from_millis(250)];
/// How often is asked before the pauses become long.
const EAGER: u32 = 200;

/// Returns once the process does its work; says meanwhile why it does not.
pub(super) async fn wait(shared: &Arc<Shared>, spec: &Spec, mut explain: impl FnMut(String)) {
    for attempt in 0.. {
        match check(shared, spec).await {
            Ok(()) => return,
            Err(reason) => explain(reason),
        }
        // Nothing tells when a port begins to answer; once it does, nobody asks again.
        tokio::time::sleep(PAUSES[usize::from(attempt >= EAGER)]).await;
    }
}

async fn check(shared: &Arc<Shared>, spec: &Spec) -> Result<(), String> {
    match &spec.probe {
        Probe::Running | Probe::NodeHttp { .. } => Ok(()),
        Probe::Https { port, path, ca, client } => {
            let rest = Rest::new(&shared.paths, *port, ca, client).map_err(|e| chain(&e))?;
            rest.healthy(path).await
        }
        Probe::Containerd => containerd(shared, spec).await,
    }
}

/// containerd does its work when it has the images without which no pod can start.
async fn containerd(shared: &Arc<Shared>, spec: &Spec) -> Result<(), String> {
    let node = spec.node.as_deref().unwrap_or_default();
    let socket = shared.paths.containerd_socket(node);
    tokio::net::UnixStream::connect(&socket).await.map_err(|e| format!("{}: {e}", socket.display()))?;
    let snapshotter = shared.cluster.borrow().snapshotter.clone();
    let archive = shared.paths.state.join("images").join("built-in.tar");
    let wanted =
        std::fs::read(shared.paths.state.join("images").join("built-in.json")).map_err(|e| e.to_string())?;
    let wanted: Vec<crate::images::Written> = serde_json::from_slice(&wanted).map_err(|e| e.to_string())?;
    let loaded =
        crate::images::ensure(&socket, &archive, &wanted, &snapshotter).await.map_err(|e| chain(&e))?;
    tracing::info!(node, loaded, "images are there");
    Ok(())
}
