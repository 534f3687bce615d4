//! The container runtime: CRI v1 over its Unix socket.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// The label that bears a pod's name, on sandboxes and containers.
pub const POD_NAME_LABEL: &str = "io.kubernetes.pod.name";
/// The label that bears a pod's namespace.
pub const POD_NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
/// The label that bears a pod's uid.
pub const POD_UID_LABEL: &str = "io.kubernetes.pod.uid";
/// The label that bears a container's name.
pub const CONTAINER_NAME_LABEL: &str = "io.kubernetes.container.name";

/// How long a call may take that does not wait for something of unknown length.
const CALL: Duration = Duration::from_secs(120);
/// The largest answer that is read: a list of every container of a large node.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// A setting or a call that failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The endpoint is no `unix://` address with an absolute path.
    #[error("container runtime endpoint {0:?} is not a unix:///path address")]
    Endpoint(String),
    /// The runtime answered with an error, or could not be reached (to be tried again).
    #[error("{}", describe(.0))]
    Call(#[from] tonic::Status),
    /// The answer lacks a part that the interface promises.
    #[error("the runtime's answer to {0} is incomplete")]
    Incomplete(&'static str),
}

fn describe(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

impl RuntimeError {
    /// Whether the thing that was asked about does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Call(s) if s.code() == tonic::Code::NotFound)
    }

    /// Whether the runtime does not know this call.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Call(s) if s.code() == tonic::Code::Unimplemented)
    }

    /// Whether the runtime could not be reached or did not answer in time.
    pub fn is_unreachable(&self) -> bool {
        use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable};
        matches!(self, Self::Call(s) if matches!(s.code(), Unavailable | DeadlineExceeded | Cancelled))
    }

    /// What the runtime said, without the code: for messages that people read in a pod's status.
    pub fn desc(&self) -> String {
        match self {
            Self::Call(status) => status.message().to_owned(),
            other => other.to_string(),
        }
    }
}

type Result<T> = std::result::Result<T, RuntimeError>;

/// A handle on the runtime; clones share one connection, which is made on the first call and made
/// again whenever it breaks.
#[derive(Clone, Debug)]
pub struct Runtime {
    channel: Channel,
    socket: PathBuf,
}

/// The socket's path in `unix:///run/containerd/containerd.sock`, or a bare absolute path.
pub fn socket_path(endpoint: &str) -> Result<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    let path = Path::new(path);
    if path.is_absolute() { Ok(path.to_owned()) } else { Err(RuntimeError::Endpoint(endpoint.to_owned())) }
}

impl Runtime {
    /// A runtime at `unix:///path`. Nothing is connected yet.
    pub fn new(endpoint: &str) -> Result<Self> {
        let socket = socket_path(endpoint)?;
        let path = socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // The address is not used: the connector knows the socket.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Ok(Self { channel, socket })
    }

    /// The path of the runtime's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The connection, for services of the runtime beyond CRI.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The runtime service itself.
    pub fn service(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// The image service itself.
    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Name and version of the runtime.
    pub async fn version(&self) -> Result<cri::VersionResponse> {
        let request = cri::VersionRequest { version: "v1".into() };
        Ok(self.service().version(timed(request, CALL)).await?.into_inner())
    }

    /// Whether the runtime and its network are ready.
    pub async fn status(&self) -> Result<cri::RuntimeStatus> {
        let request = cri::StatusRequest { verbose: false };
        let answer = self.service().status(timed(request, CALL)).await?.into_inner();
        answer.status.ok_or(RuntimeError::Incomplete("Status"))
    }

    /// Tells the runtime from which range this node's pods take their addresses.
    pub async fn set_pod_cidr(&self, pod_cidr: &str) -> Result<()> {
        let network_config = Some(cri::NetworkConfig { pod_cidr: pod_cidr.into() });
        let request =
            cri::UpdateRuntimeConfigRequest { runtime_config: Some(cri::RuntimeConfig { network_config }) };
        self.service().update_runtime_config(timed(request, CALL)).await?;
        Ok(())
    }

    /// Every sandbox that bears these labels; all for none.
    pub async fn sandboxes(&self, labels: &[(&str, &str)]) -> Result<Vec<cri::PodSandbox>> {
        let filter = cri::PodSandboxFilter { label_selector: selector(labels), ..Default::default() };
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        Ok(self.service().list_pod_sandbox(timed(request, CALL)).await?.into_inner().items)
    }

    /// Every container, in any state, that bears these labels; all for none.
    pub async fn containers(&self, labels: &[(&str, &str)]) -> Result<Vec<cri::Container>> {
        let filter = cri::ContainerFilter { label_selector: selector(labels), ..Default::default() };
        let request = cri::ListContainersRequest { filter: Some(filter) };
        Ok(self.service().list_containers(timed(request, CALL)).await?.into_inner().containers)
    }

    /// A sandbox's state and addresses.
    pub async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let answer = self.service().pod_sandbox_status(timed(request, CALL)).await?.into_inner();
        answer.status.ok_or(RuntimeError::Incomplete("PodSandboxStatus"))
    }

    /// A container's state, exit code, times and log path.
    pub async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus> {
        let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: false };
        let answer = self.service().container_status(timed(request, CALL)).await?.into_inner();
        answer.status.ok_or(RuntimeError::Incomplete("ContainerStatus"))
    }

    /// Creates and starts a pod's sandbox; returns its id.
    pub async fn run_sandbox(&self, config: cri::PodSandboxConfig, handler: &str) -> Result<String> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() };
        let limit = Duration::from_secs(240);
        Ok(self.service().run_pod_sandbox(timed(request, limit)).await?.into_inner().pod_sandbox_id)
    }

    /// Stops a sandbox and what runs in it, and gives its network back. Idempotent.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.into() };
        absent_is_done(self.service().stop_pod_sandbox(timed(request, CALL)).await)
    }

    /// Removes a stopped sandbox and its containers. Idempotent.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        absent_is_done(self.service().remove_pod_sandbox(timed(request, CALL)).await)
    }

    /// Creates a container in a sandbox; returns its id.
    pub async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(self.service().create_container(timed(request, CALL)).await?.into_inner().container_id)
    }

    /// Starts a created container.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let request = cri::StartContainerRequest { container_id: id.into() };
        self.service().start_container(timed(request, CALL)).await?;
        Ok(())
    }

    /// Sends the stop signal, waits for `grace`, then kills; returns when the container has ended. Idempotent.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = cri::StopContainerRequest { container_id: id.into(), timeout };
        absent_is_done(self.service().stop_container(timed(request, grace.saturating_add(CALL))).await)
    }

    /// Removes an ended container. Idempotent.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest { container_id: id.into() };
        absent_is_done(self.service().remove_container(timed(request, CALL)).await)
    }

    /// Makes the runtime open a container's log file anew, after it was moved away.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = cri::ReopenContainerLogRequest { container_id: id.into() };
        self.service().reopen_container_log(timed(request, CALL)).await?;
        Ok(())
    }

    /// Runs a command in a container and waits for its end, for at most `limit`.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: &[String],
        limit: Duration,
    ) -> Result<cri::ExecSyncResponse> {
        let timeout = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX).max(1);
        let request = cri::ExecSyncRequest { container_id: id.into(), cmd: cmd.to_vec(), timeout };
        // The runtime keeps the time; a little more is given to it so that its own answer arrives.
        let patience = limit.saturating_add(Duration::from_secs(5));
        Ok(self.service().exec_sync(timed(request, patience)).await?.into_inner())
    }

    /// The image of a name or id, if the node has it.
    pub async fn image(&self, image: &str) -> Result<Option<cri::Image>> {
        let spec = cri::ImageSpec { image: image.into(), ..Default::default() };
        let request = cri::ImageStatusRequest { image: Some(spec), verbose: false };
        Ok(self.images().image_status(timed(request, CALL)).await?.into_inner().image)
    }

    /// Every image of the node.
    pub async fn list_images(&self) -> Result<Vec<cri::Image>> {
        let request = cri::ListImagesRequest { filter: None };
        Ok(self.images().list_images(timed(request, CALL)).await?.into_inner().images)
    }

    /// Pulls an image; takes as long as it takes. Returns the image's reference.
    pub async fn pull_image(
        &self,
        image: &str,
        auth: Option<cri::AuthConfig>,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let spec = cri::ImageSpec { image: image.into(), ..Default::default() };
        let request = cri::PullImageRequest { image: Some(spec), auth, sandbox_config: Some(sandbox_config) };
        Ok(self.images().pull_image(request).await?.into_inner().image_ref)
    }

    /// Removes an image by id. Idempotent.
    pub async fn remove_image(&self, image: &str) -> Result<()> {
        let spec = cri::ImageSpec { image: image.into(), ..Default::default() };
        let request = cri::RemoveImageRequest { image: Some(spec) };
        absent_is_done(self.images().remove_image(timed(request, CALL)).await)
    }

    /// Where images are stored and what they take.
    pub async fn image_fs(&self) -> Result<cri::ImageFsInfoResponse> {
        Ok(self.images().image_fs_info(timed(cri::ImageFsInfoRequest {}, CALL)).await?.into_inner())
    }
}

fn timed<T>(message: T, limit: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}

fn selector(labels: &[(&str, &str)]) -> HashMap<String, String> {
    labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn absent_is_done<T>(answer: std::result::Result<tonic::Response<T>, tonic::Status>) -> Result<()> {
    match answer {
        Ok(_) => Ok(()),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
        Err(status) => Err(status.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets() {
        let path = |text: &str| socket_path(text).ok().map(|p| p.display().to_string());
        assert_eq!(path("unix:///run/c.sock").as_deref(), Some("/run/c.sock"));
        assert_eq!(path("/run/c.sock").as_deref(), Some("/run/c.sock"));
        assert_eq!(path("tcp://127.0.0.1:1"), None);
        assert_eq!(path("unix://relative"), None);
    }
}
