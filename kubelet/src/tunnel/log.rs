//! Serves logs.

use api::StatusError;
use proto::{LogRequest, PodRef};

use super::{Inbound, Node, Output, pod};
use crate::logs::{Log, LogError, Options, source};
use crate::runtime::{CONTAINER_NAME_LABEL, POD_UID_LABEL};

/// Serves one log until its end or until whoever asked is gone.
pub(super) async fn serve(node: &Node, request: LogRequest, inbound: &mut Inbound, mut output: Output) {
    let (log, container) = match open(node, &request).await {
        Ok(opened) => opened,
        Err(error) => return output.fail(&error).await,
    };
    if output.started().await.is_err() {
        return;
    }
    let end = output.clone();
    let outcome = tokio::select! {
        outcome = log.send(&node.runtime, &container, &mut output) => outcome,
        () = inbound.gone() => Err(LogError::Gone),
    };
    match outcome {
        Ok(()) => end.succeed().await,
        Err(LogError::Gone) => {}
        Err(error) => end.fail(&StatusError::internal(error)).await,
    }
}

async fn open(node: &Node, request: &LogRequest) -> Result<(Log, String), StatusError> {
    let reference = pod(request.pod.clone())?;
    let options =
        Options::of(request, node.clock.now()).map_err(|e| StatusError::bad_request(e.to_string()))?;
    let id = container(node, &reference, request).await?;
    let status = node.runtime.container_status(&id).await.map_err(StatusError::internal)?;
    let log = Log::open(&status.log_path, &options).await.map_err(StatusError::internal)?;
    Ok((log, id))
}

async fn container(node: &Node, reference: &PodRef, request: &LogRequest) -> Result<String, StatusError> {
    let labels =
        [(POD_UID_LABEL, reference.uid.as_str()), (CONTAINER_NAME_LABEL, request.container.as_str())];
    let containers = node.runtime.containers(&labels).await.map_err(StatusError::internal)?;
    let pod = (node.pods)(&format!("{}/{}", reference.namespace, reference.name)).unwrap_or_default();
    // A kubelet that does not know the pod yet can still name it.
    let mut pod = (*pod).clone();
    pod.metadata.name = Some(reference.name.clone());
    let chosen = source::choose(&containers, &pod, &request.container, request.previous);
    Ok(chosen.map_err(|e| StatusError::bad_request(e.to_string()))?.id.clone())
}
