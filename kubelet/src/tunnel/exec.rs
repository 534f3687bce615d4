//! Serves exec and attach through the runtime's streaming server.

use std::time::Duration;

use api::StatusError;
use bytes::Bytes;
use component::tasks::Tasks;
use k8s_cri::v1 as cri;
use proto::client_frame::Frame as Input;
use proto::node_frame::Frame;
use proto::{AttachRequest, ExecRequest, PodRef, TerminalSize};
use spdy::{RecvStream, SendStream, Session, Stream};
use tokio_util::sync::CancellationToken;

use super::leftover::{self, Activity};
use super::remote::{Remote, Wanted};
use super::{Gone, Inbound, Node, Output, pod};
use crate::runtime::{CONTAINER_NAME_LABEL, POD_UID_LABEL};

/// The longest Status that is read from the runtime.
const MAX_STATUS: usize = 64 * 1024;

/// How long the runtime may take to be told that a session is over.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs a command in a container.
pub(super) async fn exec(node: &Node, request: ExecRequest, inbound: &mut Inbound, output: Output) {
    let wanted = Wanted {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr && !request.tty,
        tty: request.tty,
    };
    let address = async {
        let container_id = running(node, &pod(request.pod)?, &request.container).await?;
        let call = cri::ExecRequest {
            container_id: container_id.clone(),
            cmd: request.command,
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        };
        let answer = node.runtime.service().exec(call).await.map_err(|e| refused(&e))?;
        Ok((answer.into_inner().url, container_id))
    };
    let (address, container_id) = match address.await {
        Ok(found) => found,
        Err(error) => return output.fail(&error).await,
    };
    let activity = Activity::new();
    let session = stream(address, wanted, inbound, output, &activity);
    if !wanted.stdin {
        return session.await;
    }
    tokio::select! {
        biased;
        () = leftover::release(&node.runtime, &container_id, &activity) => {}
        () = session => {}
    }
}

/// Joins the process that a container runs.
pub(super) async fn attach(node: &Node, request: AttachRequest, inbound: &mut Inbound, output: Output) {
    let wanted = Wanted {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr && !request.tty,
        tty: request.tty,
    };
    let address = async {
        let container_id = running(node, &pod(request.pod)?, &request.container).await?;
        let call = cri::AttachRequest {
            container_id,
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        };
        let answer = node.runtime.service().attach(call).await.map_err(|e| refused(&e))?;
        Ok(answer.into_inner().url)
    };
    match address.await {
        Ok(address) => stream(address, wanted, inbound, output, &Activity::new()).await,
        Err(error) => output.fail(&error).await,
    }
}

fn refused(error: &tonic::Status) -> StatusError {
    StatusError::internal(format!("rpc error: code = {:?} desc = {}", error.code(), error.message()))
}

/// The container of this name that runs.
async fn running(node: &Node, pod: &PodRef, name: &str) -> Result<String, StatusError> {
    let labels = [(POD_UID_LABEL, pod.uid.as_str()), (CONTAINER_NAME_LABEL, name)];
    let containers = node.runtime.containers(&labels).await.map_err(StatusError::internal)?;
    let newest = containers.iter().max_by_key(|c| c.created_at);
    match newest {
        Some(found) if found.state() == cri::ContainerState::ContainerRunning => Ok(found.id.clone()),
        // In upstream's words, which tools look for.
        Some(_) => {
            let about = format!(
                "cannot exec in a stopped state: container {name:?} of pod {:?} is not running",
                pod.name
            );
            Err(StatusError::internal(about))
        }
        None => Err(StatusError::new(404, "NotFound", format!("container not found ({name:?})"))),
    }
}

async fn stream(address: String, wanted: Wanted, inbound: &mut Inbound, output: Output, activity: &Activity) {
    let tasks = Tasks::new("exec");
    let remote = match Remote::open(&address, wanted, &tasks).await {
        Ok(remote) => remote,
        Err(error) => return output.fail(&StatusError::internal(error)).await,
    };
    if output.started().await.is_err() {
        return;
    }
    let Remote { session, error, stdin, stdout, stderr, resize, driver: _driver } = remote;
    let status = tokio::select! {
        status = outputs(&output, stdout, stderr, error, activity) => status,
        // Whoever asked is gone; the runtime takes the end of the session as a hang-up.
        () = inputs(inbound, &session, stdin, resize) => return,
        () = output.gone() => return,
    };
    match status {
        Ok(Some(status)) => {
            // Whoever is gone needs no answer.
            let _ = output.send(Frame::Status(status)).await;
        }
        Ok(None) => {
            let broken = format!("error streaming from the runtime: {}", session_error(&session).await);
            output.fail(&StatusError::internal(broken)).await;
        }
        Err(Gone) => {}
    }
    // A runtime that takes nothing any more needs no farewell.
    let _ = tokio::time::timeout(FAREWELL, session.close()).await;
}

async fn session_error(session: &Session) -> String {
    let closed = tokio::time::timeout(Duration::from_millis(100), session.closed()).await;
    closed.map_or_else(|_| "no status was sent".to_owned(), |error| error.to_string())
}

/// Copies all output, then gives the status with which the process ended.
///
/// The runtime writes the status when it has written all output, so what is not here then does not come:
/// the ends of the streams need not be waited for. They may never come, since the runtime's SPDY library
/// can block itself while it closes a connection on which input is left.
async fn outputs(
    output: &Output,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    error: Stream,
    activity: &Activity,
) -> Result<Option<Bytes>, Gone> {
    let ended = CancellationToken::new();
    let status = async {
        let status = status(error).await;
        ended.cancel();
        status
    };
    let (stdout, stderr, status) = tokio::join!(
        copy(output, stdout, Frame::Stdout as fn(Bytes) -> Frame, &ended, activity),
        copy(output, stderr, Frame::Stderr as fn(Bytes) -> Frame, &ended, activity),
        status,
    );
    stdout?;
    stderr?;
    Ok(status)
}

async fn copy(
    output: &Output,
    stream: Option<Stream>,
    frame: fn(Bytes) -> Frame,
    ended: &CancellationToken,
    activity: &Activity,
) -> Result<(), Gone> {
    let Some(stream) = stream else { return Ok(()) };
    let (mut recv, _send) = stream.split();
    loop {
        let read = tokio::select! {
            // What is here already goes first.
            biased;
            read = recv.read() => read,
            () = ended.cancelled() => return Ok(()),
        };
        // A stream that breaks has ended; the status tells what became of the process.
        let Ok(Some(bytes)) = read else { return Ok(()) };
        let _passing = activity.passing();
        output.chunks(bytes, frame).await?;
    }
}

/// What the runtime writes to the error stream; none if it wrote nothing.
async fn status(error: Stream) -> Option<Bytes> {
    let (mut recv, mut send): (RecvStream, SendStream) = error.split();
    // Nothing is written to it by a client.
    let _ = send.finish().await;
    let mut status = Vec::new();
    while let Ok(Some(bytes)) = recv.read().await {
        if status.len() + bytes.len() <= MAX_STATUS {
            status.extend_from_slice(&bytes);
        }
        if serde_json::from_slice::<serde_json::Value>(&status).is_ok_and(|value| value.is_object()) {
            break;
        }
    }
    (!status.is_empty()).then(|| status.into())
}

/// Passes input on until whoever asked is gone.
async fn inputs(inbound: &mut Inbound, session: &Session, stdin: Option<Stream>, resize: Option<Stream>) {
    let mut pace = Pace::default();
    // Both halves are kept to the end: a stream that is dropped is reset, and input with it.
    let (_stdin_recv, mut stdin) = stdin.map(Stream::split).unzip();
    let (_resize_recv, mut resize) = resize.map(Stream::split).unzip();
    while let Some(frame) = inbound.next().await {
        // A process that reads no more is no reason to end the session.
        let _ = match (frame, &mut stdin, &mut resize) {
            (Input::Stdin(bytes), Some(stdin), _) => {
                let size = bytes.len();
                match stdin.write(bytes).await {
                    Ok(()) => pace.keep(session, size).await,
                    Err(error) => Err(error),
                }
            }
            (Input::StdinClosed(_), Some(stdin), _) => stdin.finish().await,
            (Input::Resize(size), _, Some(resize)) => resize.write(resize_message(size)).await,
            _ => Ok(()),
        };
    }
}

/// Keeps input from running ahead of the process that reads it.
///
/// The runtime's SPDY library knows no windows. Input that it has not taken off the socket when the
/// process ends makes the kernel reset the connection, and the end of the output is lost with it. The
/// library hands what arrives to five workers, pings in turn to each; so when five pings are answered,
/// the one that has the input has passed on what came before.
#[derive(Default)]
struct Pace {
    bytes: usize,
    writes: usize,
}

impl Pace {
    const BYTES: usize = 64 * 1024;
    const WRITES: usize = 16;
    const WORKERS: usize = 5;

    async fn keep(&mut self, session: &Session, bytes: usize) -> Result<(), spdy::Error> {
        self.bytes += bytes;
        self.writes += 1;
        if self.bytes < Self::BYTES && self.writes < Self::WRITES {
            return Ok(());
        }
        *self = Self::default();
        futures::future::try_join_all((0..Self::WORKERS).map(|_| session.ping())).await.map(drop)
    }
}

fn resize_message(size: TerminalSize) -> Bytes {
    format!(
        "{{\"Width\":{},\"Height\":{}}}\n",
        size.width.min(u16::MAX.into()),
        size.height.min(u16::MAX.into())
    )
    .into()
}
