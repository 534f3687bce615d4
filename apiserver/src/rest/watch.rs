//! Watches: JSON lines, each with the type of the event and its object, as a chunked body, an HTTP/2 stream or
//! WebSocket messages.

use std::sync::Arc;

use api::selector::FieldSelector;
use api::status::StatusError;
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::{HeaderValue, Request, StatusCode, header};
use serde_json::Value;

use super::negotiate::Form;
use super::path::ResourcePath;
use super::query::Parameters;
use super::render::View;
use super::streams::websocket::{self, Upgrade};
use super::{respond, verbs};
use crate::registry::session::{self, Session, Step};
use crate::server::App;

/// Begins a watch and answers with its stream.
pub(super) async fn serve(
    app: &Arc<App>,
    path: &ResourcePath,
    parameters: &Parameters,
    request: Request<Body>,
) -> Result<Response, StatusError> {
    let view = verbs::view(app, path, parameters, request.headers())?;
    let mut query = parameters.watch()?;
    if !path.name.is_empty() {
        // A watch of one object, in the old style.
        let one = FieldSelector::equal("metadata.name", &path.name).to_string();
        query.field_selector =
            if query.field_selector.is_empty() { one } else { format!("{},{one}", query.field_selector) };
    }
    let session = app.registry.watch(path.kind, &path.namespace, &query).await?;
    if websocket::requested(request.headers()) {
        // Its messages are lines of text.
        let form = if view.form == Form::Protobuf { Form::Objects } else { view.form };
        let lines = lines(app, session, View { form, ..view });
        let upgrade = Upgrade::of(request, &[]).await?;
        return Ok(upgrade.run(app, "watch websocket", |socket| websocket::lines(socket, lines)));
    }
    let body = lines(app, session, view).map(Ok::<_, std::convert::Infallible>);
    let mut response = respond::json(StatusCode::OK, Body::from_stream(body));
    if view.form == Form::Protobuf {
        let media = HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch");
        response.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    Ok(response)
}

/// The lines of a watch, several at a time, until it or the server ends.
fn lines(app: &App, session: Session, view: View) -> impl Stream<Item = Bytes> + Send + use<> {
    let open = app.requests.long_running();
    let shutdown = app.shutdown.clone();
    let state = (session, Lines { view, first: true }, open);
    futures::stream::unfold(state, move |(mut session, mut lines, open)| {
        let shutdown = shutdown.clone();
        async move {
            let step = tokio::select! {
                step = session.next() => step?,
                // The client comes again, to this server or another, and resumes.
                () = shutdown.cancelled() => return None,
            };
            Some((lines.write(step), (session, lines, open)))
        }
    })
}

/// Bytes around an object in its line, at most.
const ENVELOPE: usize = 40;

struct Lines {
    view: View,
    first: bool,
}

impl Lines {
    fn write(&mut self, step: Step) -> Bytes {
        let mut out = BytesMut::new();
        match step {
            Step::Changes(changes) => {
                out.reserve(changes.iter().map(|c| c.entry().json.len() + ENVELOPE).sum());
                for change in changes {
                    let object = self.view.event_object(&change.entry().json, self.first);
                    self.first = false;
                    self.line(&mut out, change.type_(), &object);
                }
            }
            Step::Bookmark { revision, initial_end } => {
                let object = self.view.bookmark(revision, initial_end, self.first);
                self.first = false;
                self.line(&mut out, "BOOKMARK", &object);
            }
            Step::Expired => {
                self.line(&mut out, "ERROR", &respond::encode(&session::expired().to_value(), false));
            }
        }
        out.freeze()
    }

    /// One event, in the encoding of the watch.
    fn line(&self, out: &mut BytesMut, type_: &str, object: &[u8]) {
        if self.view.form != Form::Protobuf {
            return line(out, type_, object);
        }
        let value: Value = serde_json::from_slice(object).unwrap_or_default();
        let body = api::protobuf::encode(&value).unwrap_or_else(|| api::protobuf::encode_status(&value));
        out.extend_from_slice(&api::protobuf::encode_event(type_, &body));
    }
}

fn line(out: &mut BytesMut, type_: &str, object: &[u8]) {
    out.reserve(object.len() + ENVELOPE);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(type_.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object.trim_ascii_end());
    out.extend_from_slice(b"}\n");
}

const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Session>();
};
