//! The tunnel over real gRPC, with a kubelet that does what it is told.

use std::net::SocketAddr;

use component::tasks::Tasks;
use proto::LogRequest;
use proto::node_tunnel_client::NodeTunnelClient;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};

use super::*;

type Kubelet = NodeTunnelClient<Channel>;

fn user(name: &str, group: &str) -> User {
    User::of(name, &[group])
}

/// A server whose every client is `node`, and such a client.
async fn connect(tunnels: &Arc<Tunnels>, tasks: &Tasks, node: &str) -> Kubelet {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let user = user(&format!("system:node:{node}"), "system:nodes");
    let peer = Peer { user, address: SocketAddr::from(([127, 0, 0, 1], 1)) };
    let identify = move |mut request: Request<()>| {
        request.extensions_mut().insert(peer.clone());
        Ok(request)
    };
    let service = tonic::service::interceptor::InterceptedService::new(tunnels.service(), identify);
    tasks.spawn("server", async move {
        Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    NodeTunnelClient::connect(format!("http://{address}")).await.unwrap()
}

async fn listen(kubelet: &mut Kubelet, node: &str) -> Result<Streaming<TunnelRequest>, Status> {
    Ok(kubelet.listen(ListenRequest { node: node.into() }).await?.into_inner())
}

/// Serves a request with these frames behind its acceptance.
async fn serve(
    kubelet: &mut Kubelet,
    id: &str,
    frames: Vec<Frame>,
) -> Result<Streaming<ClientFrame>, Status> {
    let frames = std::iter::once(Frame::Accept(id.into())).chain(frames);
    let frames: Vec<_> = frames.map(|frame| NodeFrame { frame: Some(frame) }).collect();
    Ok(kubelet.serve(tokio_stream::iter(frames)).await?.into_inner())
}

fn log() -> Asked {
    Asked::Log(LogRequest::default())
}

#[tokio::test]
async fn a_request_reaches_its_node_and_the_answer_whoever_asked() {
    let tasks = Tasks::new("test");
    let tunnels = Tunnels::new(CancellationToken::new(), tasks.spawner());
    let mut kubelet = connect(&tunnels, &tasks, "n1").await;
    let mut requests = listen(&mut kubelet, "n1").await.unwrap();
    let asker = user("jane", "people");
    let answer = async {
        let request = requests.message().await.unwrap().unwrap();
        assert_eq!(request.user.unwrap().name, "jane");
        let frames = vec![Frame::Started(true), Frame::Stdout("text".into())];
        serve(&mut kubelet, &request.id, frames).await.unwrap()
    };
    let (tunnel, mut input) = tokio::join!(tunnels.open("n1", &asker, log()), answer);
    let mut tunnel = tunnel.unwrap();
    assert_eq!(tunnel.output.next().await, Some(Frame::Stdout("text".into())));
    tunnel.input.data("input".into()).await.unwrap();
    let frame = input.message().await.unwrap().unwrap().frame;
    assert_eq!(frame, Some(client_frame::Frame::Stdin("input".into())));
    drop(tunnel);
    assert!(input.message().await.unwrap().is_none());
}

#[tokio::test]
async fn what_the_node_refuses_is_refused() {
    let tasks = Tasks::new("test");
    let tunnels = Tunnels::new(CancellationToken::new(), tasks.spawner());
    let mut kubelet = connect(&tunnels, &tasks, "n1").await;
    let mut requests = listen(&mut kubelet, "n1").await.unwrap();
    let refusal = StatusError::bad_request("no such container");
    let json = serde_json::to_vec(&refusal.to_value()).unwrap();
    let answer = async {
        let request = requests.message().await.unwrap().unwrap();
        serve(&mut kubelet, &request.id, vec![Frame::Status(json.into())]).await
    };
    let asker = user("jane", "people");
    let (tunnel, _answer) = tokio::join!(tunnels.open("n1", &asker, log()), answer);
    let error = tunnel.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (400, "no such container"));
}

#[tokio::test]
async fn a_node_that_is_not_connected_is_unavailable() {
    let tasks = Tasks::new("test");
    let tunnels = Tunnels::new(CancellationToken::new(), tasks.spawner());
    let asker = user("jane", "people");
    assert_eq!(tunnels.open("n1", &asker, log()).await.unwrap_err().code(), 503);
    let mut kubelet = connect(&tunnels, &tasks, "n1").await;
    let mut requests = listen(&mut kubelet, "n1").await.unwrap();
    assert!(tunnels.connected("n1"));
    // It goes away with a request in hand.
    let leave = async {
        requests.message().await.unwrap();
        drop(requests);
    };
    let (tunnel, ()) = tokio::join!(tunnels.open("n1", &asker, log()), leave);
    assert_eq!(tunnel.unwrap_err().code(), 503);
    assert!(!tunnels.connected("n1"));
    assert!(lock(&tunnels.state).pending.is_empty());
}

#[tokio::test]
async fn a_node_listens_and_answers_for_itself_alone() {
    let tasks = Tasks::new("test");
    let tunnels = Tunnels::new(CancellationToken::new(), tasks.spawner());
    let mut kubelet = connect(&tunnels, &tasks, "n1").await;
    let mut other = connect(&tunnels, &tasks, "n2").await;
    let denied = listen(&mut other, "n1").await.unwrap_err();
    assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    let mut requests = listen(&mut kubelet, "n1").await.unwrap();
    let asker = user("jane", "people");
    let steal = async {
        let request = requests.message().await.unwrap().unwrap();
        let stolen = serve(&mut other, &request.id, vec![Frame::Started(true)]).await;
        assert_eq!(stolen.unwrap_err().code(), tonic::Code::NotFound);
        let unknown = serve(&mut kubelet, "guess", vec![]).await;
        assert_eq!(unknown.unwrap_err().code(), tonic::Code::NotFound);
        serve(&mut kubelet, &request.id, vec![Frame::Started(true)]).await.unwrap()
    };
    let (tunnel, _own) = tokio::join!(tunnels.open("n1", &asker, log()), steal);
    tunnel.unwrap();
}

#[tokio::test]
async fn a_later_tunnel_takes_the_place_of_an_earlier_one() {
    let tasks = Tasks::new("test");
    let tunnels = Tunnels::new(CancellationToken::new(), tasks.spawner());
    let mut kubelet = connect(&tunnels, &tasks, "n1").await;
    let mut first = listen(&mut kubelet, "n1").await.unwrap();
    let mut second = listen(&mut kubelet, "n1").await.unwrap();
    assert_eq!(first.message().await.unwrap_err().code(), tonic::Code::Aborted);
    drop(first);
    assert!(tunnels.connected("n1"));
    tunnels.shutdown.cancel();
    assert!(second.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_node_that_takes_nothing_more_is_told_that_whoever_asked_is_gone() {
    let tasks = Tasks::new("test");
    let tunnels = Tunnels::new(CancellationToken::new(), tasks.spawner());
    let mut kubelet = connect(&tunnels, &tasks, "n1").await;
    let mut requests = listen(&mut kubelet, "n1").await.unwrap();
    let asker = user("jane", "people");
    let answer = async {
        let request = requests.message().await.unwrap().unwrap();
        let input = serve(&mut kubelet, &request.id, vec![Frame::Started(true)]).await.unwrap();
        (request.id, input)
    };
    let (tunnel, (id, _input)) = tokio::join!(tunnels.open("n1", &asker, log()), answer);
    let tunnel = tunnel.unwrap();
    // More than the windows of the stream take.
    let flood = tunnel.input.data(vec![0; 8 << 20].into());
    assert!(tokio::time::timeout(Duration::from_millis(500), flood).await.is_err());
    drop(tunnel);
    tokio::time::pause();
    let cancel = requests.message().await.unwrap().unwrap();
    assert_eq!((cancel.id, cancel.request), (id, Some(Asked::Cancel(CancelRequest {}))));
}
