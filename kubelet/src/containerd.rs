//! containerd's own services, on the socket that also serves CRI: its events and its tasks.
//!
//! Another runtime answers that it does not know them.

use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::runtime::Runtime;

/// The namespace in which containerd keeps what CRI made.
const NAMESPACE: &str = "k8s.io";

#[derive(Clone, PartialEq, prost::Message)]
struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// One event.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    #[prost(string, tag = "2")]
    namespace: String,
    /// What it is about, such as `/tasks/exit`.
    #[prost(string, tag = "3")]
    pub topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Any>,
}

/// The beginning of `containerd.events.TaskExit` and of `TaskExecAdded`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskEvent {
    /// The container.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// The process: that of a command that is run in the container, else empty or the container's id.
    #[prost(string, tag = "2")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteProcessRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteResponse {}

impl Envelope {
    /// What the event says of a process; none when it does not decode.
    pub fn task(&self) -> Option<TaskEvent> {
        <TaskEvent as prost::Message>::decode(self.event.as_ref()?.value.as_slice()).ok()
    }

    /// An event of a task, as containerd writes it.
    #[cfg(test)]
    pub fn of_task(topic: &str, container_id: &str, id: &str) -> Self {
        let event = TaskEvent { container_id: container_id.into(), id: id.into() };
        let value = prost::Message::encode_to_vec(&event);
        let event = Some(Any { type_url: "containerd.events.Task".into(), value });
        Self { namespace: NAMESPACE.into(), topic: topic.into(), event }
    }
}

/// The events of these topics, from now on.
///
/// # Errors
/// `Unimplemented` from another runtime; else the runtime could not be reached.
pub async fn events(runtime: &Runtime, topics: &[&str]) -> Result<Streaming<Envelope>, Status> {
    let filters = topics.iter().map(|t| format!("topic==\"{t}\",namespace=={NAMESPACE}")).collect();
    let mut client = tonic::client::Grpc::new(runtime.channel());
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let codec = ProstCodec::<SubscribeRequest, Envelope>::default();
    let path = PathAndQuery::from_static("/containerd.services.events.v1.Events/Subscribe");
    let answer = client.server_streaming(Request::new(SubscribeRequest { filters }), path, codec).await?;
    Ok(answer.into_inner())
}

/// Gives back what is held for a process that has ended: a command that was run in a container.
///
/// # Errors
/// `NotFound` when that has happened already.
pub async fn delete_process(runtime: &Runtime, container_id: &str, exec_id: &str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(runtime.channel());
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let codec = ProstCodec::<DeleteProcessRequest, DeleteResponse>::default();
    let path = PathAndQuery::from_static("/containerd.services.tasks.v1.Tasks/DeleteProcess");
    let (container_id, exec_id) = (container_id.to_owned(), exec_id.to_owned());
    let mut request = Request::new(DeleteProcessRequest { container_id, exec_id });
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    client.unary(request, path, codec).await.map(drop)
}
