//! Serves one forwarded connection.

use std::net::IpAddr;

use api::StatusError;
use bytes::BytesMut;
use k8s_cri::v1 as cri;
use proto::client_frame::Frame as Input;
use proto::node_frame::Frame;
use proto::{PodRef, PortForwardRequest};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CHUNK, Inbound, Node, Output, netns};
use crate::runtime::POD_UID_LABEL;

/// Connects to the port and copies in both directions, each of which may close on its own.
pub(super) async fn serve(node: &Node, request: PortForwardRequest, inbound: &mut Inbound, output: Output) {
    let stream = match connect(node, request).await {
        Ok(stream) => stream,
        Err(error) => return output.fail(&error).await,
    };
    if output.started().await.is_err() {
        return;
    }
    match copy(stream, inbound, &output).await {
        Ok(()) => output.succeed().await,
        Err(error) => output.fail(&StatusError::internal(error)).await,
    }
}

async fn connect(node: &Node, request: PortForwardRequest) -> Result<TcpStream, StatusError> {
    let port = u16::try_from(request.port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| StatusError::bad_request(format!("invalid port {}", request.port)))?;
    let address = match request.address.as_str() {
        "" => None,
        text => {
            let parsed = text.parse::<IpAddr>();
            Some(parsed.map_err(|_| StatusError::bad_request(format!("invalid address {text:?}")))?)
        }
    };
    let Some(reference) = request.pod else {
        let connected = netns::connect(None, address, port).await;
        return connected.map_err(|why| {
            StatusError::internal(format!("error connecting to port {port} of node {:?}: {why}", node.name))
        });
    };
    let namespace = namespace(node, &reference).await?;
    netns::connect(namespace.as_deref(), address, port).await.map_err(|why| {
        let pod = format!("{}_{}", reference.name, reference.namespace);
        StatusError::internal(format!(
            "error forwarding port {port} to pod {pod}, uid {}: {why}",
            reference.uid
        ))
    })
}

/// The path of the pod's network namespace; none if the pod uses that of the node.
async fn namespace(node: &Node, reference: &PodRef) -> Result<Option<String>, StatusError> {
    let sandboxes = node.runtime.sandboxes(&[(POD_UID_LABEL, &reference.uid)]).await;
    let sandboxes = sandboxes.map_err(StatusError::internal)?;
    let ready = sandboxes.iter().filter(|s| s.state() == cri::PodSandboxState::SandboxReady);
    let Some(sandbox) = ready.max_by_key(|s| s.created_at) else {
        let text =
            format!("unable to forward port because pod {:?} is not running on this node", reference.name);
        return Err(StatusError::internal(text));
    };
    let call = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.id.clone(), verbose: true };
    let answer = node.runtime.service().pod_sandbox_status(call).await.map_err(StatusError::internal)?;
    let info = answer.into_inner().info.remove("info").unwrap_or_default();
    let info: Value = serde_json::from_str(&info).map_err(StatusError::internal)?;
    Ok(network_namespace(&info))
}

fn network_namespace(info: &Value) -> Option<String> {
    let namespaces = info.pointer("/runtimeSpec/linux/namespaces")?.as_array()?;
    let network = namespaces.iter().find(|n| n["type"] == "network")?;
    let path = network["path"].as_str().filter(|path| !path.is_empty());
    // A namespace that the runtime made together with the process is known by the process.
    path.map(str::to_owned)
        .or_else(|| info["pid"].as_u64().filter(|p| *p != 0).map(|p| format!("/proc/{p}/ns/net")))
}

/// Copies between a connection and whoever asked for it, until either is gone.
pub(super) async fn copy<S: AsyncRead + AsyncWrite>(
    stream: S,
    inbound: &mut Inbound,
    output: &Output,
) -> std::io::Result<()> {
    let (read, write) = tokio::io::split(stream);
    tokio::select! {
        // The port's peer decides when a connection is over: its answer may be longer in coming than
        // the question.
        outcome = down(read, output) => outcome,
        outcome = up(inbound, write) => outcome,
        () = output.gone() => Ok(()),
    }
}

/// Copies from the port; then waits, since the other direction may still be open.
async fn down(mut read: impl AsyncRead + Unpin, output: &Output) -> std::io::Result<()> {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        buffer.reserve(CHUNK);
        let gone = if read.read_buf(&mut buffer).await? == 0 {
            output.send(Frame::StdoutClosed(true)).await.is_err()
        } else {
            if output.stdout(buffer.split().freeze()).await.is_ok() {
                continue;
            }
            true
        };
        if gone {
            return Ok(());
        }
        return std::future::pending().await;
    }
}

/// Copies to the port until whoever asked is gone.
async fn up(inbound: &mut Inbound, write: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut write = Some(write);
    while let Some(frame) = inbound.next().await {
        match (frame, &mut write) {
            (Input::Stdin(bytes), Some(open)) => {
                let written = open.write_all(&bytes).await;
                // A peer that reads no more may still have something to say.
                write = write.filter(|_| written.is_ok());
            }
            (Input::StdinClosed(_), Some(open)) => {
                let _ = open.shutdown().await;
                // Kept, since dropping a half that is shut down does nothing more.
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(info: Value, expected: Option<&str>) {
        assert_eq!(network_namespace(&info).as_deref(), expected);
    }

    #[test]
    fn the_network_namespace_is_read_from_the_sandbox() {
        let spec =
            |namespaces: Value| json!({"pid": 7, "runtimeSpec": {"linux": {"namespaces": namespaces}}});
        check(
            spec(json!([{"type": "pid"}, {"type": "network", "path": "/run/netns/a"}])),
            Some("/run/netns/a"),
        );
        check(spec(json!([{"type": "network"}])), Some("/proc/7/ns/net"));
        check(spec(json!([{"type": "pid"}])), None);
        check(json!({}), None);
    }
}
