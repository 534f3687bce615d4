//! The verbs of the API, but watch.

use std::sync::Arc;

use api::kinds::{Nature, Typed};
use api::openapi::api::core::v1::Pod;
use api::status::StatusError;
use api::{Object, Subresource};
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, header};
use serde_json::Value;

use super::compress;
use super::negotiate::{self, Form};
use super::path::ResourcePath;
use super::query::{Parameters, WriteVerb};
use super::render::{Include, ListMeta, View};
use super::{body, respond};
use crate::registry::store::{Patch, PatchType, Target, WriteOptions, Written};
use crate::registry::{delete, pods};
use crate::server::{App, Peer};
use crate::storage::Entry;

/// Lists are sent in pieces of about this many bytes.
const PIECE: usize = 64 << 10;

/// One request, authorized.
pub(super) struct Call<'a> {
    pub app: &'a Arc<App>,
    pub peer: &'a Peer,
    pub path: &'a ResourcePath,
    pub parameters: &'a Parameters,
    /// The client's `User-Agent`.
    pub agent: String,
    /// Whether a large answer is compressed.
    pub gzip: bool,
}

/// How this request wants to see objects.
pub(super) fn view(
    app: &App,
    path: &ResourcePath,
    parameters: &Parameters,
    headers: &HeaderMap,
) -> Result<View, StatusError> {
    Ok(View {
        kind: path.kind,
        form: negotiate::form(headers, api::protobuf::knows(path.kind.api_version, path.kind.kind))?,
        include: Include::parse(parameters.get("includeObject"))?,
        now: app.clock.now(),
    })
}

impl Call<'_> {
    pub(super) async fn run(mut self, verb: &str, request: Request<Body>) -> Result<Response, StatusError> {
        let (parts, body) = request.into_parts();
        let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
        self.agent = agent.unwrap_or_default().to_owned();
        self.gzip = matches!(verb, "get" | "list") && compress::accepted(&parts.headers);
        let view = view(self.app, self.path, self.parameters, &parts.headers)?;
        if matches!(verb, "get" | "list") {
            return if verb == "get" { self.get(&view).await } else { self.list(&view).await };
        }
        let bytes = body::read(&parts.headers, body).await?;
        let media = body::media_type(&parts.headers);
        match (verb, self.path.subresource) {
            ("create", None) if self.path.kind.kind == "Binding" && self.path.kind.group.is_empty() => {
                self.bind_named(body::document(&media, &bytes)?).await
            }
            ("create", None) if self.path.kind.nature == Nature::Review => {
                self.review(body::document(&media, &bytes)?).await
            }
            ("create", Some(Subresource::Token)) => self.token(body::document(&media, &bytes)?).await,
            ("create", None) => self.create(&view, body::checked(&media, &bytes)?).await,
            ("create", Some(Subresource::Binding)) => self.bind(body::document(&media, &bytes)?).await,
            ("create", Some(Subresource::Eviction)) => self.evict(body::document(&media, &bytes)?).await,
            ("update", _) => self.update(&view, body::checked(&media, &bytes)?).await,
            ("patch", _) => self.patch(&view, &media, &bytes).await,
            ("delete", _) => self.delete(options_document(&media, &bytes)?).await,
            ("deletecollection", _) => self.delete_collection(&view, options_document(&media, &bytes)?).await,
            _ => Err(StatusError::method_not_allowed()),
        }
    }

    fn target(&self) -> Target<'_> {
        Target { kind: self.path.kind, namespace: &self.path.namespace, name: &self.path.name }
    }

    fn pretty(&self) -> bool {
        self.parameters.flag("pretty")
    }

    /// An answer in the encoding that was asked for.
    fn answer(&self, view: &View, code: StatusCode, json: Bytes) -> Response {
        if view.form == Form::Protobuf
            && let Ok(value) = serde_json::from_slice::<Value>(&json)
            && let Some(body) = api::protobuf::encode(&value)
        {
            return self.large(body.into(), |body| respond::protobuf(code, body));
        }
        self.bytes(code, json)
    }

    /// A whole answer, compressed where it is large.
    fn large(&self, body: Bytes, respond: impl FnOnce(Bytes) -> Response) -> Response {
        if !self.gzip || body.len() < compress::THRESHOLD {
            return respond(body);
        }
        let mut response = respond(compress::whole(&body));
        compress::mark(&mut response);
        response
    }

    fn bytes(&self, code: StatusCode, json: Bytes) -> Response {
        if self.pretty()
            && let Ok(value) = serde_json::from_slice::<Value>(&json)
        {
            return respond::value(code, &value, true);
        }
        self.large(json, |json| respond::json(code, json))
    }

    /// A Scale has a table of its own; anything else is shown in the form that was asked for.
    fn shown(&self, view: &View, json: &Bytes) -> Bytes {
        if self.path.subresource == Some(Subresource::Scale) { view.scale(json) } else { view.object(json) }
    }

    async fn get(&self, view: &View) -> Result<Response, StatusError> {
        let version = self.parameters.get("resourceVersion");
        let json = if self.path.subresource == Some(Subresource::Scale) {
            view.scale(&self.app.registry.get_scale(self.target(), version).await?)
        } else {
            let target = self.target();
            let entry = self.app.registry.get(target.kind, target.namespace, target.name, version).await?;
            view.object(&entry.json)
        };
        Ok(self.answer(view, StatusCode::OK, json))
    }

    async fn list(&self, view: &View) -> Result<Response, StatusError> {
        let query = self.parameters.list()?;
        let list = self.app.registry.list(self.path.kind, &self.path.namespace, &query).await?;
        let meta = ListMeta {
            revision: list.revision,
            continue_token: list.continue_token,
            remaining: list.remaining,
        };
        let Some((head, tail)) = view.list_envelope(&meta) else {
            let table = view.list_table(&meta, list.entries.iter().map(|e| &e.json));
            return Ok(self.bytes(StatusCode::OK, table));
        };
        if view.form == Form::Protobuf {
            let body = view.protobuf_list(&meta, list.entries.iter().map(|e| &e.json));
            return Ok(self.large(body, |body| respond::protobuf(StatusCode::OK, body)));
        }
        let size: usize = list.entries.iter().map(|e| e.json.len()).sum();
        let pieces = pieces(*view, head, list.entries, tail);
        if self.pretty() {
            let whole: Vec<u8> = pieces.flatten().collect();
            return Ok(self.bytes(StatusCode::OK, whole.into()));
        }
        if self.gzip && size >= compress::THRESHOLD {
            let stream =
                futures::stream::iter(compress::pieces(pieces).map(Ok::<_, std::convert::Infallible>));
            let mut response = respond::json(StatusCode::OK, Body::from_stream(stream));
            compress::mark(&mut response);
            return Ok(response);
        }
        let stream = futures::stream::iter(pieces.map(Ok::<_, std::convert::Infallible>));
        Ok(respond::json(StatusCode::OK, Body::from_stream(stream)))
    }

    async fn create(
        &self,
        view: &View,
        (document, duplicates): body::Checked,
    ) -> Result<Response, StatusError> {
        let (kind, namespace) = (self.path.kind, self.path.namespace.as_str());
        let options = WriteOptions { duplicates, ..self.parameters.write(WriteVerb::Create, &self.agent)? };
        let written = self.app.registry.create(&self.peer.user, kind, namespace, document, &options).await?;
        Ok(self.written(view, &written))
    }

    async fn review(&self, document: Value) -> Result<Response, StatusError> {
        let (kind, namespace) = (self.path.kind, self.path.namespace.as_str());
        let desk = self.app.desk();
        let answer = desk.answer(&self.peer.user, kind.group, kind.kind, namespace, document).await?;
        Ok(respond::value(StatusCode::CREATED, &answer, self.pretty()))
    }

    async fn token(&self, document: Value) -> Result<Response, StatusError> {
        let target = self.target();
        let entry = self.app.registry.get(target.kind, target.namespace, target.name, "").await?;
        let account = Object::parse(&entry.json).map_err(StatusError::internal)?;
        let shown = || document.clone();
        let dry_run = self.parameters.dry_run()?;
        let part =
            self.app.registry.admit_part(&self.peer.user, target, Subresource::Token, dry_run, shown).await?;
        let document = part.unwrap_or(document);
        let made = self.app.desk().token_request(&self.peer.user, &account, document)?;
        Ok(respond::value(StatusCode::CREATED, &made, self.pretty()))
    }

    async fn update(
        &self,
        view: &View,
        (document, duplicates): body::Checked,
    ) -> Result<Response, StatusError> {
        let options = WriteOptions { duplicates, ..self.parameters.write(WriteVerb::Update, &self.agent)? };
        let sub = self.path.subresource;
        let (registry, user) = (&self.app.registry, &self.peer.user);
        let may_create = || super::authorize(self.app, self.peer, self.path, self.parameters, "create");
        let written = registry.update(user, self.target(), sub, document, &options, &may_create).await?;
        Ok(self.written(view, &written))
    }

    async fn patch(&self, view: &View, media: &str, bytes: &[u8]) -> Result<Response, StatusError> {
        let (registry, user, sub) = (&self.app.registry, &self.peer.user, self.path.subresource);
        let type_ = match media {
            "application/json-patch+json" => PatchType::Json,
            "application/merge-patch+json" => PatchType::Merge,
            "application/strategic-merge-patch+json" => PatchType::Strategic,
            "application/apply-patch+yaml" => {
                let (document, duplicates) = body::yaml(bytes)?;
                let options =
                    WriteOptions { duplicates, ..self.parameters.write(WriteVerb::Apply, &self.agent)? };
                let may_create =
                    || super::authorize(self.app, self.peer, self.path, self.parameters, "create");
                let written =
                    registry.apply(user, self.target(), sub, document, &options, &may_create).await?;
                return Ok(self.written(view, &written));
            }
            _ => {
                return Err(StatusError::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, \
                     application/strategic-merge-patch+json, application/apply-patch+yaml",
                ));
            }
        };
        let (document, duplicates) = body::checked_json(bytes)?;
        let options = WriteOptions { duplicates, ..self.parameters.write(WriteVerb::Patch, &self.agent)? };
        let patch = Patch { type_, document };
        let written = registry.patch(user, self.target(), sub, &patch, &options).await?;
        Ok(self.written(view, &written))
    }

    fn written(&self, view: &View, written: &Written) -> Response {
        let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        // What the registry returns is in the requested kind already, which a view of another kind may not convert
        // again; conversion recognises that by its fields.
        let mut response = self.answer(view, code, self.shown(view, &written.json));
        respond::warn(&mut response, &written.warnings);
        response
    }

    async fn bind(&self, document: Value) -> Result<Response, StatusError> {
        let binding = pods::parse_binding(self.path.kind, &self.path.name, document)?;
        let dry_run = self.parameters.dry_run()?;
        Box::pin(self.app.registry.bind(&self.peer.user, self.target(), &binding, dry_run)).await?;
        Ok(self.success(StatusCode::CREATED))
    }

    /// The older way to bind a pod: `bindings`, whose document names it.
    async fn bind_named(&self, document: Value) -> Result<Response, StatusError> {
        let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = Pod::kind();
        let binding = pods::parse_binding(kind, &name, document)?;
        if name.is_empty() {
            return Err(StatusError::bad_request("metadata.name: the pod that is bound must be named"));
        }
        let target = Target { kind, namespace: &self.path.namespace, name: &name };
        let dry_run = self.parameters.dry_run()?;
        self.app.registry.bind(&self.peer.user, target, &binding, dry_run).await?;
        Ok(respond::value(StatusCode::CREATED, &respond::success(kind, &name, ""), self.pretty()))
    }

    async fn evict(&self, document: Value) -> Result<Response, StatusError> {
        let mut options = pods::parse_eviction(&self.path.name, document)?;
        self.parameters.fill_delete_options(&mut options)?;
        Box::pin(self.app.registry.evict(&self.peer.user, self.target(), &options)).await?;
        Ok(self.success(StatusCode::CREATED))
    }

    fn success(&self, code: StatusCode) -> Response {
        respond::value(code, &respond::success(self.path.kind, &self.path.name, ""), self.pretty())
    }

    async fn delete(&self, document: Option<Value>) -> Result<Response, StatusError> {
        let mut options = delete::parse_options(document)?;
        self.parameters.fill_delete_options(&mut options)?;
        let written = self.app.registry.delete(&self.peer.user, self.target(), None, &options).await?;
        if written.deleted {
            let status = respond::deleted(self.path.kind, &written.json);
            return Ok(respond::value(StatusCode::OK, &status, self.pretty()));
        }
        Ok(self.bytes(StatusCode::OK, written.json))
    }

    async fn delete_collection(&self, view: &View, document: Option<Value>) -> Result<Response, StatusError> {
        let mut options = delete::parse_options(document)?;
        self.parameters.fill_delete_options(&mut options)?;
        let query = self.parameters.list()?;
        let (kind, namespace) = (self.path.kind, self.path.namespace.as_str());
        let registry = &self.app.registry;
        let (items, revision) =
            registry.delete_collection(&self.peer.user, kind, namespace, &query, &options).await?;
        let meta = ListMeta { revision, ..ListMeta::default() };
        let Some((head, tail)) = view.list_envelope(&meta) else {
            return Ok(self.bytes(StatusCode::OK, view.list_table(&meta, items.iter())));
        };
        let mut whole = head.into_bytes();
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                whole.push(b',');
            }
            whole.extend_from_slice(&view.object(item));
        }
        whole.extend_from_slice(tail.as_bytes());
        Ok(self.bytes(StatusCode::OK, whole.into()))
    }
}

/// The options of a deletion; an empty body has none.
fn options_document(media: &str, bytes: &[u8]) -> Result<Option<Value>, StatusError> {
    if bytes.iter().all(u8::is_ascii_whitespace) { Ok(None) } else { body::document(media, bytes).map(Some) }
}

/// A list, piece by piece as the client takes it; no more than one piece is copied at a time.
fn pieces(
    view: View,
    head: String,
    entries: Vec<Arc<Entry>>,
    tail: &'static str,
) -> impl Iterator<Item = Bytes> + Send + 'static {
    let mut entries = entries.into_iter().enumerate();
    let mut head = Some(head);
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PIECE);
        if let Some(head) = head.take() {
            piece.extend_from_slice(head.as_bytes());
        }
        while piece.len() < PIECE {
            let Some((i, entry)) = entries.next() else {
                piece.extend_from_slice(tail.as_bytes());
                over = true;
                break;
            };
            if i > 0 {
                piece.extend_from_slice(b",");
            }
            piece.extend_from_slice(&view.object(&entry.json));
        }
        Some(piece.freeze())
    })
}
