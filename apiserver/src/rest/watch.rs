//! Watches: chunked JSON lines, each with the type of the event and its object.

use std::sync::Arc;

use api::selector::FieldSelector;
use api::status::StatusError;
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use super::path::ResourcePath;
use super::query::Parameters;
use super::render::View;
use super::{respond, verbs};
use crate::registry::session::{self, Session, Step};
use crate::server::App;

/// Begins a watch and answers with its stream.
pub(super) async fn serve(
    app: &Arc<App>,
    path: &ResourcePath,
    parameters: &Parameters,
    headers: &HeaderMap,
) -> Result<Response, StatusError> {
    let view = verbs::view(app, path, parameters, headers)?;
    let mut query = parameters.watch()?;
    if !path.name.is_empty() {
        // A watch of one object, in the old style.
        let one = FieldSelector::equal("metadata.name", &path.name).to_string();
        query.field_selector =
            if query.field_selector.is_empty() { one } else { format!("{},{one}", query.field_selector) };
    }
    let session = app.registry.watch(path.kind, &path.namespace, &query).await?;
    let open = app.requests.long_running();
    let shutdown = app.shutdown.clone();
    let lines =
        futures::stream::unfold((session, Lines { view, first: true }), move |(mut session, mut lines)| {
            let shutdown = shutdown.clone();
            async move {
                let step = tokio::select! {
                    step = session.next() => step?,
                    // The client comes again, to this server or another, and resumes.
                    () = shutdown.cancelled() => return None,
                };
                Some((Ok::<_, std::convert::Infallible>(lines.write(step)), (session, lines)))
            }
        });
    let body = futures::StreamExt::inspect(lines, move |_| {
        let _ = &open;
    });
    Ok(respond::json(StatusCode::OK, Body::from_stream(body)))
}

struct Lines {
    view: View,
    first: bool,
}

impl Lines {
    fn write(&mut self, step: Step) -> Bytes {
        let mut out = BytesMut::new();
        match step {
            Step::Changes(changes) => {
                for change in changes {
                    let object = self.view.event_object(&change.entry().json, self.first);
                    self.first = false;
                    line(&mut out, change.type_(), &object);
                }
            }
            Step::Bookmark { revision, initial_end } => {
                let object = self.view.bookmark(revision, initial_end, self.first);
                self.first = false;
                line(&mut out, "BOOKMARK", &object);
            }
            Step::Expired => {
                line(&mut out, "ERROR", &respond::encode(&session::expired().to_value(), false));
            }
        }
        out.freeze()
    }
}

fn line(out: &mut BytesMut, type_: &str, object: &[u8]) {
    out.reserve(object.len() + 40);
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
