//! A node whose kubelet is played: what is asked of it through its tunnel reaches one server of the test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use client::Client;
use component::tasks::{Spawner, Tasks, lock};
use proto::client_frame::Frame as Input;
use proto::node_frame::Frame;
use proto::tunnel_request::Request as Asked;
use proto::{ListenRequest, NodeFrame, TunnelRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// The node; it ends when it is dropped.
pub struct Node {
    asked: Arc<Mutex<Vec<(String, Asked)>>>,
    _tasks: Tasks,
}

impl Node {
    /// Opens the tunnel. Every connection that is asked for leads to `backend`.
    pub async fn start(name: &str, client: Client, backend: SocketAddr) -> Self {
        let request = ListenRequest { node: name.to_owned() };
        let mut requests = client.tunnel().listen(request).await.expect("the tunnel opens").into_inner();
        let (asked, tasks) = (Arc::new(Mutex::new(Vec::new())), Tasks::new("node"));
        let (seen, spawner) = (asked.clone(), tasks.spawner());
        tasks.spawn("tunnel", async move {
            while let Ok(Some(TunnelRequest { id, user, request })) = requests.message().await {
                let Some(request) = request else { continue };
                lock(&seen).push((user.unwrap_or_default().name, request.clone()));
                if !matches!(request, Asked::Cancel(_)) {
                    let (client, own) = (client.clone(), spawner.clone());
                    spawner.spawn("session", serve(client, id, backend, own));
                }
            }
        });
        Self { asked, _tasks: tasks }
    }

    /// The last thing that somebody asked for, and who it was.
    pub fn last(&self) -> (String, Asked) {
        lock(&self.asked).last().cloned().expect("something was asked for")
    }
}

async fn serve(client: Client, id: String, backend: SocketAddr, tasks: Spawner) {
    let (frames, queue) = mpsc::channel(4);
    let send = |frame| {
        let frames: mpsc::Sender<NodeFrame> = frames.clone();
        async move { frames.send(NodeFrame { frame: Some(frame) }).await }
    };
    send(Frame::Accept(id)).await.expect("there is room");
    let mut inbound = client.tunnel().serve(ReceiverStream::new(queue)).await.expect("accepted").into_inner();
    let (mut read, mut write) = TcpStream::connect(backend).await.expect("the backend answers").into_split();
    send(Frame::Started(true)).await.expect("whoever asked is there");
    tasks.spawn("up", async move {
        while let Ok(Some(frame)) = inbound.message().await {
            let done = match frame.frame {
                Some(Input::Stdin(bytes)) => write.write_all(&bytes).await,
                Some(Input::StdinClosed(_)) => write.shutdown().await,
                _ => Ok(()),
            };
            if done.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 4096];
    loop {
        let frame = match read.read(&mut buffer).await {
            Ok(0) | Err(_) => Frame::StdoutClosed(true),
            Ok(size) => Frame::Stdout(bytes::Bytes::copy_from_slice(&buffer[..size])),
        };
        let last = matches!(frame, Frame::StdoutClosed(_));
        if send(frame).await.is_err() || last {
            return;
        }
    }
}
