//! `pods/NAME/exec` and `pods/NAME/attach`.

use api::StatusError;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::Method;
use proto::TerminalSize;
use proto::tunnel_request::Request as Ask;
use proto::{AttachRequest, ExecRequest};
use serde::Deserialize;

use super::{Asked, spdy, target, websocket};
use crate::rest::query::Parameters;
use crate::tunnel::Tunnel;

/// The longest message about a terminal's size that is read.
const MAX_RESIZE: usize = 1024;

/// Which streams a client opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

pub(super) async fn exec(asked: &Asked<'_>, request: Request) -> Result<Response, StatusError> {
    let parameters = Parameters::parse(request.uri())?;
    let wanted = wanted(&parameters)?;
    let command: Vec<String> = parameters.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(StatusError::bad_request("you must specify at least one command for the container"));
    }
    let target = target::container(asked.pod, parameters.get("container"))?;
    let ask = Ask::Exec(ExecRequest {
        pod: Some(asked.pod_ref()),
        container: target.container,
        command,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        tty: wanted.tty,
    });
    serve(asked, request, wanted, ask).await
}

pub(super) async fn attach(asked: &Asked<'_>, request: Request) -> Result<Response, StatusError> {
    let parameters = Parameters::parse(request.uri())?;
    let wanted = wanted(&parameters)?;
    let target = target::container(asked.pod, parameters.get("container"))?;
    let ask = Ask::Attach(AttachRequest {
        pod: Some(asked.pod_ref()),
        container: target.container,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        // A process has its terminal since it was started, whatever the client would like.
        stderr: wanted.stderr && !target.tty,
        tty: target.tty,
    });
    serve(asked, request, wanted, ask).await
}

async fn serve(
    asked: &Asked<'_>,
    request: Request,
    wanted: Wanted,
    ask: Ask,
) -> Result<Response, StatusError> {
    asked.has_node()?;
    if request.method() != Method::GET && request.method() != Method::POST {
        return Err(StatusError::method_not_allowed());
    }
    // What the client speaks is settled before the node is troubled.
    if websocket::requested(request.headers()) {
        let upgrade = websocket::Upgrade::of(request, super::channels::EXEC).await?;
        let tunnel = open(asked, ask).await?;
        Ok(upgrade.exec(asked.app, wanted, tunnel))
    } else {
        let upgrade = spdy::Upgrade::of(request, spdy::EXEC)?;
        let tunnel = open(asked, ask).await?;
        Ok(upgrade.exec(asked.app, wanted, tunnel))
    }
}

async fn open(asked: &Asked<'_>, ask: Ask) -> Result<Tunnel, StatusError> {
    asked.app.tunnels.open(asked.node, asked.user, ask).await
}

fn wanted(parameters: &Parameters) -> Result<Wanted, StatusError> {
    // Output is wanted unless the client says that it is not.
    let unless_refused = |name: &str| parameters.all(name).next().is_none() || parameters.flag(name);
    let tty = parameters.flag("tty");
    let wanted = Wanted {
        stdin: parameters.flag("stdin"),
        stdout: unless_refused("stdout"),
        // A terminal has one output.
        stderr: unless_refused("stderr") && !tty,
        tty,
    };
    if wanted.stdin || wanted.stdout || wanted.stderr {
        Ok(wanted)
    } else {
        Err(StatusError::bad_request("you must specify at least 1 of stdin, stdout, stderr"))
    }
}

/// A Status of the node for a client whose protocol has only text; none for success.
pub(super) fn plain(json: &[u8]) -> Option<String> {
    let status: api::openapi::apimachinery::pkg::apis::meta::v1::Status =
        serde_json::from_slice(json).ok()?;
    (status.status.as_deref() != Some("Success")).then(|| status.message.unwrap_or_default())
}

/// The Status of a session that the node ended without one.
pub(super) fn broken() -> Bytes {
    let error = StatusError::internal("the connection to the node was lost");
    serde_json::to_vec(&error.to_value()).unwrap_or_default().into()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Reads the sizes of a terminal out of a stream of JSON documents.
#[derive(Default)]
pub(super) struct Sizes(Vec<u8>);

impl Sizes {
    /// The last size that the bytes complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<TerminalSize> {
        self.0.extend_from_slice(bytes);
        let mut documents = serde_json::Deserializer::from_slice(&self.0).into_iter::<Size>();
        let mut last = None;
        while let Some(Ok(size)) = documents.next() {
            last = Some(size);
        }
        let consumed = documents.byte_offset();
        self.0.drain(..consumed);
        if self.0.len() > MAX_RESIZE {
            self.0.clear();
        }
        last.map(|size| TerminalSize { width: size.width.into(), height: size.height.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Option<(bool, bool, bool, bool)>) {
        let parameters = Parameters::parse(&format!("/x?{query}").parse().unwrap()).unwrap();
        assert_eq!(wanted(&parameters).ok().map(|w| (w.stdin, w.stdout, w.stderr, w.tty)), expected);
    }

    #[test]
    fn streams_are_those_that_the_client_asks_for() {
        check("stdin=true&stdout=true&tty=true", Some((true, true, false, true)));
        check("command=ls", Some((false, true, true, false)));
        check("stdout=1&stderr=false", Some((false, true, false, false)));
        check("stdout=false&stderr=false", None);
        check("stdout=false&stderr=false&stdin=1", Some((true, false, false, false)));
    }

    #[test]
    fn sizes_are_read_however_they_are_cut() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.push(b"{\"Width\":80,\"Hei"), None);
        assert_eq!(sizes.push(b"ght\":24}\n"), Some(TerminalSize { width: 80, height: 24 }));
        let two = b"{\"Width\":1,\"Height\":2}{\"Width\":3,\"Height\":4}";
        assert_eq!(sizes.push(two), Some(TerminalSize { width: 3, height: 4 }));
        assert_eq!(sizes.push(&[b'x'; 2000]), None);
        assert_eq!(sizes.push(b"{\"Width\":5,\"Height\":6}"), Some(TerminalSize { width: 5, height: 6 }));
    }
}
