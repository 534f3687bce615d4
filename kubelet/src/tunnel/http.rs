//! Serves one connection to the kubelet's own endpoints.

use api::StatusError;

use super::port_forward::copy;
use super::{CHUNK, Inbound, Node, Output};

/// Answers requests until whoever asked is gone.
pub(super) async fn serve(node: &Node, inbound: &mut Inbound, output: Output) {
    if output.started().await.is_err() {
        return;
    }
    let (near, far) = tokio::io::duplex(CHUNK);
    let served = component::health::serve_stream(far, node.http.clone());
    let copied = copy(near, inbound, &output);
    tokio::pin!(served, copied);
    let outcome = tokio::select! {
        copied = &mut copied => copied,
        served = &mut served => {
            if let Err(error) = served {
                tracing::debug!(error, "a connection to the kubelet's endpoints broke");
            }
            // What was answered last is still on its way.
            copied.await
        }
    };
    match outcome {
        Ok(()) => output.succeed().await,
        Err(error) => output.fail(&StatusError::internal(error)).await,
    }
}
