//! Port-forward over the channels of a WebSocket: two for each port, and one connection for each.

use api::StatusError;
use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use proto::node_frame::Frame;
use tokio::sync::mpsc;

use super::Target;
use crate::rest::query::Parameters;
use crate::rest::streams::activity::Activity;
use crate::rest::streams::channels::{Event, Protocol};
use crate::rest::streams::websocket::farewell;
use crate::tunnel::{Input, Output, Tunnel};

/// The protocols, the best first.
pub(super) const PROTOCOLS: &[&str] = &[
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "portforward.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
/// Ports of one session: a channel is named by a byte, or by a digit.
const MAX_PORTS: usize = 100;
/// Messages that may wait for the client.
const QUEUE: usize = 8;

/// The ports that a client asks for.
pub(super) fn ports(parameters: &Parameters) -> Result<Vec<u16>, StatusError> {
    let named: Vec<&str> = parameters.all("ports").flat_map(|ports| ports.split(',')).collect();
    if named.is_empty() {
        return Err(StatusError::bad_request("query parameter \"ports\" is required"));
    }
    if named.len() > MAX_PORTS {
        return Err(StatusError::bad_request(format!(
            "at most {MAX_PORTS} ports may be forwarded at a time"
        )));
    }
    let parse = |text: &&str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
    let wrong = |text: &&str| StatusError::bad_request(format!("unable to parse {text:?} as a port"));
    named.iter().map(|text| parse(text).ok_or_else(|| wrong(text))).collect()
}

/// Serves a session: all its connections are opened at once, and it ends with the last.
pub(super) async fn session(socket: WebSocket, protocol: Protocol, ports: Vec<u16>, target: Target) {
    let (mut sink, mut stream) = socket.split();
    let (messages, mut queue) = mpsc::channel::<Message>(QUEUE);
    let activity = Activity::new();
    let mut sent_all = false;
    {
        let write = async {
            while let Some(message) = queue.recv().await {
                if sink.send(message).await.is_err() {
                    return false;
                }
                activity.touch();
            }
            true
        };
        let serve = async {
            let messages = messages;
            let tunnels = open(&ports, protocol, &target, &messages).await;
            let (outputs, inputs): (Vec<_>, Vec<_>) = tunnels.into_iter().map(Option::unzip).unzip();
            let copies = outputs.into_iter().enumerate().filter_map(|(at, output)| Some((at, output?)));
            let copies = join_all(copies.map(|(at, output)| down(at, output, protocol, messages.clone())));
            drop(messages);
            tokio::select! {
                _ = copies => true,
                () = up(&mut stream, protocol, &inputs, &activity) => false,
            }
        };
        tokio::select! {
            (written, served) = async { tokio::join!(write, serve) } => sent_all = written && served,
            () = activity.idle() => {}
        }
    }
    if sent_all {
        farewell(sink, stream).await;
    }
}

/// Connects to every port; says to the client which channels are which, and what failed.
async fn open(
    ports: &[u16],
    protocol: Protocol,
    target: &Target,
    messages: &mpsc::Sender<Message>,
) -> Vec<Option<(Output, Input)>> {
    let one = async |(at, port): (usize, &u16)| {
        let (data, error) = (at as u8 * 2, at as u8 * 2 + 1);
        for channel in [data, error] {
            // A client that is gone is noticed by its reader.
            let _ = messages.send(protocol.message(channel, &port.to_le_bytes())).await;
        }
        match target.open(*port).await {
            Ok(Tunnel { output, input }) => Some((output, input)),
            Err(refused) => {
                let text = refused.0.message.clone().unwrap_or_default();
                let _ = messages.send(protocol.message(error, text.as_bytes())).await;
                None
            }
        }
    };
    join_all(ports.iter().enumerate().map(one)).await
}

async fn down(at: usize, mut output: Output, protocol: Protocol, messages: mpsc::Sender<Message>) {
    // The protocol cannot close one direction: when the port's peer does, the connection is over.
    while let Some(Frame::Stdout(bytes)) = output.next().await {
        if messages.send(protocol.message(at as u8 * 2, &bytes)).await.is_err() {
            return;
        }
    }
}

async fn up(
    stream: &mut futures::stream::SplitStream<WebSocket>,
    protocol: Protocol,
    inputs: &[Option<Input>],
    activity: &Activity,
) {
    while let Some(Ok(message)) = stream.next().await {
        activity.touch();
        match protocol.read(message) {
            Event::Data(channel, bytes) if channel % 2 == 0 => send(inputs, channel, bytes).await,
            Event::Gone => return,
            _ => {}
        }
    }
}

async fn send(inputs: &[Option<Input>], channel: u8, bytes: Bytes) {
    if let Some(Some(input)) = inputs.get(usize::from(channel / 2)) {
        // A connection that has ended leaves the others alone.
        let _ = input.data(bytes).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Option<&[u16]>) {
        let parameters = Parameters::parse(&format!("/x?{query}").parse().unwrap()).unwrap();
        assert_eq!(ports(&parameters).ok().as_deref(), expected);
    }

    #[test]
    fn ports_are_numbers_above_zero() {
        check("ports=80&ports=443", Some(&[80, 443]));
        check("ports=80,443", Some(&[80, 443]));
        check("ports=0", None);
        check("ports=65536", None);
        check("ports=http", None);
        check("", None);
    }
}
