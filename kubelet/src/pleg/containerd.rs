//! containerd's event service (`containerd.services.events.v1`), on the socket that also serves CRI.

use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use crate::runtime::{Runtime, RuntimeError};

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

#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Any>,
}

/// The beginning of `containerd.events.TaskExit`.
#[derive(Clone, PartialEq, prost::Message)]
struct TaskExit {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    id: String,
}

/// Whether an event tells of a container, rather than of a command that was run in one.
fn concerns_a_container(envelope: &Envelope) -> bool {
    if envelope.topic != "/tasks/exit" {
        return true;
    }
    let exit =
        envelope.event.as_ref().and_then(|e| <TaskExit as prost::Message>::decode(e.value.as_slice()).ok());
    exit.is_none_or(|e| e.id.is_empty() || e.id == e.container_id)
}

/// Wakes for each event of a pod's container; returns when the stream ends.
pub async fn listen(runtime: &Runtime, wake: impl Fn()) -> Result<(), RuntimeError> {
    let topics = ["/tasks/start", "/tasks/exit", "/tasks/oom", "/tasks/delete", "/containers/delete"];
    let filters = topics.iter().map(|t| format!("topic==\"{t}\",namespace==k8s.io")).collect();
    let mut client = tonic::client::Grpc::new(runtime.channel());
    client.ready().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let codec = ProstCodec::<SubscribeRequest, Envelope>::default();
    let path = PathAndQuery::from_static("/containerd.services.events.v1.Events/Subscribe");
    let request = tonic::Request::new(SubscribeRequest { filters });
    let mut stream = client.server_streaming(request, path, codec).await?.into_inner();
    while let Some(envelope) = stream.message().await? {
        if concerns_a_container(&envelope) {
            wake();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn the_end_of_a_command_in_a_container_is_no_news() {
        let exit = |id: &str| Envelope {
            namespace: "k8s.io".into(),
            topic: "/tasks/exit".into(),
            event: Some(Any {
                type_url: "containerd.events.TaskExit".into(),
                value: TaskExit { container_id: "c".into(), id: id.into() }.encode_to_vec(),
            }),
        };
        assert!(concerns_a_container(&exit("c")));
        assert!(!concerns_a_container(&exit("exec-1")));
        assert!(concerns_a_container(&Envelope { topic: "/tasks/start".into(), ..Envelope::default() }));
    }
}
