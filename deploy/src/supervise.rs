//! The supervisor: a small process in the background that owns the cluster's processes, restarts what dies, and
//! answers on a socket. When it is killed they go on; the next one adopts them.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use component::tasks::Tasks;
use rustix::fs::FlockOperation;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, watch};

use crate::cluster::{Cluster, ClusterError, Paths};
use crate::components::specs;

pub mod protocol;
mod ready;
mod unit;

pub use protocol::{Client, Phase, Request, State, SupervisorError, UnitState};
use unit::{Units, Wanted};

/// What the units share.
struct Shared {
    paths: Paths,
    cluster: watch::Sender<Arc<Cluster>>,
    state: watch::Sender<State>,
}

/// Why the supervisor could not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{0}")]
    Unknown(String),
    #[error("could not mark the node as stopped")]
    Mark(#[source] io::Error),
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
}

/// Runs the supervisor of a cluster until it is told to shut down. Says "ready" on standard output once it answers.
///
/// # Errors
/// When the cluster is unknown, another supervisor owns it, or the socket cannot be made.
pub async fn run(paths: Paths, name: &str) -> anyhow::Result<()> {
    let cluster = Arc::new(Cluster::load(&paths, name)?);
    fs::create_dir_all(&paths.run)?;
    let lock = fs::File::create(paths.run.join("supervisor.lock"))?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        anyhow::bail!("another supervisor owns the cluster {name:?}");
    }
    let socket = paths.socket();
    match fs::remove_file(&socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let pid = i32::try_from(std::process::id())?;
    crate::process::Record::of(pid, 0)?.write(&paths.pid("supervisor"))?;

    let shared = Arc::new(Shared {
        paths,
        cluster: watch::Sender::new(cluster),
        state: watch::Sender::new(State::default()),
    });
    let tasks = Tasks::new("supervisor");
    let units = Arc::new(Mutex::new(Units::new(shared.clone(), tasks.spawner())));
    units.lock().await.reload();
    println!("ready");
    // Whoever started us reads standard output until it is closed.
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    tracing::info!(cluster = name, "supervising");

    let token = component::shutdown::signals();
    let down = tokio_util::sync::CancellationToken::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let stream = accepted?.0;
                let work = serve(stream, shared.clone(), units.clone(), down.clone());
                tasks.spawn("connection", async move {
                    if let Err(error) = work.await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
            () = down.cancelled() => break,
            // The processes stay; whoever comes next adopts them.
            () = token.cancelled() => break,
            task = tasks.failed() => anyhow::bail!("the task {task} panicked"),
        }
    }
    fs::remove_file(&socket)?;
    tracing::info!("leaving");
    Ok(())
}

/// Answers the requests of one connection, a line each.
async fn serve(
    stream: UnixStream,
    shared: Arc<Shared>,
    units: Arc<Mutex<Units>>,
    down: tokio_util::sync::CancellationToken,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let request = serde_json::from_str::<Request>(&line);
        let last = matches!(request, Ok(Request::Shutdown));
        let answer = match request {
            Ok(Request::Wait { version }) => {
                let mut state = shared.state.subscribe();
                // The sender lives in `shared`, so this ends only with a change.
                let changed = state.wait_for(|state| state.version != version).await;
                changed.map(|state| state.clone()).map_err(|e| e.to_string())
            }
            Ok(request) => answer(&request, &shared, &units).await.map_err(|e| crate::rest::chain(&e)),
            Err(error) => Err(format!("not understood: {error}")),
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        bytes.push(b'\n');
        write.write_all(&bytes).await?;
        if last && answer.is_ok() {
            down.cancel();
        }
    }
    Ok(())
}

async fn answer(
    request: &Request,
    shared: &Arc<Shared>,
    units: &Arc<Mutex<Units>>,
) -> Result<State, Refusal> {
    // One change at a time; `Wait` and `Status` are not kept waiting by it.
    match request {
        Request::Status | Request::Wait { .. } => {}
        Request::Reload => {
            let cluster = Cluster::load(&shared.paths, &shared.cluster.borrow().name)?;
            shared.cluster.send_replace(Arc::new(cluster));
            units.lock().await.reload();
        }
        Request::Stop { target } => stop(target, shared, units).await?,
        Request::Start { target } => {
            let units = units.lock().await;
            if shared.cluster.borrow().node(target).is_some() {
                match fs::remove_file(shared.paths.stopped(target)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Refusal::Mark(e)),
                    _ => {}
                }
            }
            units.set(target, Wanted::Run).map_err(Refusal::Unknown)?;
        }
        Request::Restart { target } => {
            let units = units.lock().await;
            units.set(target, Wanted::Stop).map_err(Refusal::Unknown)?;
            units.stopped(target).await;
            units.set(target, Wanted::Run).map_err(Refusal::Unknown)?;
        }
        Request::Shutdown => {
            let units = units.lock().await;
            units.kill_all().await;
        }
    }
    Ok(shared.state.borrow().clone())
}

/// Stops a process gracefully, or a node as if its power was cut.
async fn stop(target: &str, shared: &Arc<Shared>, units: &Arc<Mutex<Units>>) -> Result<(), Refusal> {
    let units = units.lock().await;
    let cluster = shared.cluster.borrow().clone();
    if cluster.node(target).is_none() {
        units.set(target, Wanted::Stop).map_err(Refusal::Unknown)?;
        units.stopped(target).await;
        return Ok(());
    }
    let mark: PathBuf = shared.paths.stopped(target);
    crate::cluster::write_atomically(&mark, b"", 0o644).map_err(Refusal::Mark)?;
    units.set(target, Wanted::Killed).map_err(Refusal::Unknown)?;
    units.stopped(target).await;
    let name = target.to_owned();
    let unplugged = tokio::task::spawn_blocking(move || crate::network::unplug(&cluster, &name)).await;
    unplugged.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
    Ok(())
}

impl Units {
    /// Brings the units to what the description of the cluster says.
    fn reload(&mut self) {
        let cluster = self.shared.cluster.borrow().clone();
        let paths = self.shared.paths.clone();
        for spec in specs(&cluster, &paths) {
            let stopped = spec.node.as_ref().is_some_and(|node| paths.stopped(node).exists());
            self.add(spec, if stopped { Wanted::Killed } else { Wanted::Run });
        }
    }
}
