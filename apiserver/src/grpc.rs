//! The gRPC front: the Resources service over the same pipeline as REST.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::apply::{check_manager, manager_of_agent};
use api::status::StatusError;
use api::{Kind, Subresource};
use axum::Router;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use proto::resources_server::{Resources, ResourcesServer};
use proto::{
    CreateRequest, DeleteCollectionRequest, DeleteRequest, DeleteResponse, GetRequest, ListPage, ListRequest,
    Object, PatchRequest, UpdateRequest, WatchEvent, WatchRequest, errors::to_grpc, patch_request,
    watch_event,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::auth::{self, User};
use crate::custom::Table;
use crate::registry::read::ListQuery;
use crate::registry::session::{self, Session, Step, WatchQuery};
use crate::registry::store::{FieldValidation, Patch, PatchType, Target, WriteOptions};
use crate::registry::{convert, delete, pods};
use crate::rest::body;
use crate::server::{App, Peer};
use crate::storage::{Change, Entry, encoding};

/// How long a call may take, watches excepted.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of objects in one page of a list.
const PAGE_BYTES: usize = 1 << 20;
/// The services whose descriptors reflection and health name.
const SERVICE: &str = "coxswain.v1.Resources";

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The router of the front: the API, health and reflection.
///
/// # Errors
/// When the compiled descriptors are malformed, which the build rules out.
pub async fn router(app: Arc<App>) -> Result<Router, tonic_reflection::server::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(SERVICE, tonic_health::ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let resources = ResourcesServer::new(Front(app.clone()))
        .max_decoding_message_size(proto::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(proto::MAX_MESSAGE_BYTES);
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(health)
        .add_service(reflection)
        .add_service(resources)
        .add_service(app.tunnels.service())
        .add_service(app.decisions.service());
    Ok(routes.routes().prepare().into_axum_router())
}

struct Front(Arc<App>);

/// What a message names, checked against the table.
struct Named {
    kind: &'static Kind,
    namespace: String,
    subresource: Option<Subresource>,
}

fn named(table: &Table, resource: Option<proto::Resource>, subresource: &str) -> Result<Named, StatusError> {
    let resource = resource.ok_or_else(|| StatusError::bad_request("the message names no resource"))?;
    let kind = table
        .resource(&resource.group, &resource.version, &resource.resource)
        .ok_or_else(StatusError::no_such_path)?;
    if !kind.is_stored() {
        return Err(StatusError::method_not_allowed());
    }
    let subresource = match subresource {
        "" => None,
        path => Some(kind.subresource(path).ok_or_else(StatusError::no_such_path)?),
    };
    if !kind.namespaced && !resource.namespace.is_empty() {
        return Err(StatusError::bad_request(format!("{} are not namespaced", kind.plural)));
    }
    Ok(Named { kind, namespace: resource.namespace, subresource })
}

impl Front {
    fn user<T>(request: &Request<T>) -> Result<User, Status> {
        let peer = request.extensions().get::<Peer>();
        peer.map(|p| p.user.clone()).ok_or_else(|| refuse(StatusError::unauthorized()))
    }

    fn authorize(
        &self,
        user: &User,
        verb: &'static str,
        named: &Named,
        name: &str,
        field_selector: &str,
    ) -> Result<(), StatusError> {
        let resource =
            auth::Resource::of(named.kind, &named.namespace, name, named.subresource, field_selector);
        self.0.authorizer.authorize(user, &auth::Request::Resource(verb, resource))
    }

    /// Runs a call in its time, and counts it.
    async fn call<T>(
        &self,
        verb: &'static str,
        kind: Option<&'static Kind>,
        work: impl Future<Output = Result<T, StatusError>>,
    ) -> Result<Response<T>, Status> {
        let began = Instant::now();
        let slots = if matches!(verb, "get" | "list") { &self.0.reads } else { &self.0.writes };
        let limited = async {
            // Components wait for their turn rather than being sent away.
            let _slot = slots.acquire().await.map_err(|_| StatusError::unavailable("shutting down"))?;
            work.await
        };
        let result = match tokio::time::timeout(TIMEOUT, limited).await {
            Ok(result) => result,
            Err(_) => {
                Err(StatusError::timeout("Timeout: request did not complete within the allotted timeout"))
            }
        };
        let code = result.as_ref().err().map_or(200, StatusError::code);
        self.0.requests.answered(verb, kind, code, began.elapsed());
        result.map(Response::new).map_err(refuse)
    }
}

fn refuse(error: StatusError) -> Status {
    to_grpc(&error.0)
}

/// A name, which may not be empty.
fn required(name: &str) -> Result<&str, StatusError> {
    if name.is_empty() { Err(StatusError::bad_request("name must be provided")) } else { Ok(name) }
}

/// A namespaced object needs its namespace.
fn placed(named: &Named) -> Result<(), StatusError> {
    if named.kind.namespaced && named.namespace.is_empty() {
        return Err(StatusError::bad_request(
            "an empty namespace may not be set when a resource name is provided",
        ));
    }
    Ok(())
}

fn document(json: &Bytes) -> Result<serde_json::Value, StatusError> {
    if json.len() > body::MAX_BODY {
        return Err(StatusError::too_large(body::MAX_BODY));
    }
    body::json(json)
}

/// An object in its envelope.
fn object(json: Bytes) -> Object {
    let head = encoding::head(&json).unwrap_or_default();
    Object {
        namespace: head.namespace.into_owned(),
        name: head.name.into_owned(),
        uid: head.uid.into_owned(),
        resource_version: head.resource_version.into_owned(),
        json: json.clone(),
    }
}

fn stored(kind: &'static Kind, entry: &Entry) -> Object {
    Object {
        namespace: entry.namespace().into(),
        name: entry.name().into(),
        uid: entry.uid().into(),
        resource_version: entry.revision.to_string(),
        json: convert::json_from_stored(kind, &entry.json),
    }
}

#[tonic::async_trait]
impl Resources for Front {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Object>, Status> {
        let user = Self::user(&request)?;
        let GetRequest { resource, name, resource_version, subresource } = request.into_inner();
        let named = named(&self.0.table, resource, &subresource).map_err(refuse)?;
        self.call("get", Some(named.kind), async {
            self.authorize(&user, "get", &named, &name, "")?;
            placed(&named)?;
            let registry = &self.0.registry;
            let target = Target { kind: named.kind, namespace: &named.namespace, name: required(&name)? };
            match named.subresource {
                Some(Subresource::Scale) => registry.get_scale(target, &resource_version).await.map(object),
                None | Some(Subresource::Status | Subresource::Approval) => {
                    let entry = registry.get(named.kind, &named.namespace, &name, &resource_version).await?;
                    Ok(stored(named.kind, &entry))
                }
                Some(_) => Err(StatusError::method_not_allowed()),
            }
        })
        .await
    }

    type ListStream = Messages<ListPage>;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let user = Self::user(&request)?;
        let r = request.into_inner();
        let named = named(&self.0.table, r.resource, "").map_err(refuse)?;
        self.call("list", Some(named.kind), async {
            self.authorize(&user, "list", &named, "", &r.field_selector)?;
            let query = ListQuery {
                label_selector: r.label_selector,
                field_selector: r.field_selector,
                resource_version: r.resource_version,
                resource_version_match: String::new(),
                limit: r.limit,
                continue_token: r.continue_token,
            };
            let list = self.0.registry.list(named.kind, &named.namespace, &query).await?;
            let pages = pages(named.kind, list);
            Ok(Box::pin(futures::stream::iter(pages.map(Ok))) as Self::ListStream)
        })
        .await
    }

    type WatchStream = Messages<WatchEvent>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let user = Self::user(&request)?;
        let r = request.into_inner();
        let named = named(&self.0.table, r.resource, "").map_err(refuse)?;
        let began = Instant::now();
        let result = async {
            self.authorize(&user, "watch", &named, "", &r.field_selector)?;
            let query = WatchQuery {
                label_selector: r.label_selector,
                field_selector: r.field_selector,
                resource_version: r.resource_version,
                allow_bookmarks: r.allow_bookmarks,
                ..WatchQuery::default()
            };
            self.0.registry.watch(named.kind, &named.namespace, &query).await
        }
        .await;
        let code = result.as_ref().err().map_or(200, StatusError::code);
        self.0.requests.answered("watch", Some(named.kind), code, began.elapsed());
        let session = result.map_err(refuse)?;
        Ok(Response::new(events(self.0.clone(), named.kind, session)))
    }

    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<Object>, Status> {
        let user = Self::user(&request)?;
        let agent = agent(&request);
        let r = request.into_inner();
        let named = named(&self.0.table, r.resource, &r.subresource).map_err(refuse)?;
        self.call("create", Some(named.kind), async {
            self.authorize(&user, "create", &named, &r.name, "")?;
            placed(&named)?;
            let registry = &self.0.registry;
            let document = document(&r.json)?;
            match named.subresource {
                None => {
                    let options = write_options(r.dry_run, &r.field_manager, &agent)?;
                    let written =
                        registry.create(&user, named.kind, &named.namespace, document, &options).await?;
                    Ok(object(written.json))
                }
                Some(Subresource::Binding) => {
                    let target =
                        Target { kind: named.kind, namespace: &named.namespace, name: required(&r.name)? };
                    let binding = pods::parse_binding(named.kind, &r.name, document)?;
                    Box::pin(registry.bind(&user, target, &binding, r.dry_run)).await?;
                    Ok(success(named.kind, &r.name))
                }
                Some(Subresource::Token) => {
                    let name = required(&r.name)?;
                    let entry = registry.get(named.kind, &named.namespace, name, "").await?;
                    let account = api::Object::parse(&entry.json).map_err(StatusError::internal)?;
                    let made = self.0.desk().token_request(&user, &account, document)?;
                    let json = serde_json::to_vec(&made).map_err(StatusError::internal)?;
                    Ok(Object { name: name.into(), json: json.into(), ..Object::default() })
                }
                Some(Subresource::Eviction) => {
                    let target =
                        Target { kind: named.kind, namespace: &named.namespace, name: required(&r.name)? };
                    let mut options = pods::parse_eviction(&r.name, document)?;
                    if r.dry_run {
                        options.dry_run = Some(vec!["All".into()]);
                    }
                    Box::pin(registry.evict(&user, target, &options)).await?;
                    Ok(success(named.kind, &r.name))
                }
                Some(_) => Err(StatusError::method_not_allowed()),
            }
        })
        .await
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<Object>, Status> {
        let user = Self::user(&request)?;
        let agent = agent(&request);
        let r = request.into_inner();
        let named = named(&self.0.table, r.resource, &r.subresource).map_err(refuse)?;
        self.call("update", Some(named.kind), async {
            self.authorize(&user, "update", &named, &r.name, "")?;
            placed(&named)?;
            writable(named.subresource, true)?;
            let target = Target { kind: named.kind, namespace: &named.namespace, name: required(&r.name)? };
            let options = write_options(r.dry_run, &r.field_manager, &agent)?;
            let document = document(&r.json)?;
            let may_create = || self.authorize(&user, "create", &named, &r.name, "");
            let registry = &self.0.registry;
            let written =
                registry.update(&user, target, named.subresource, document, &options, &may_create).await?;
            Ok(object(written.json))
        })
        .await
    }

    async fn patch(&self, request: Request<PatchRequest>) -> Result<Response<Object>, Status> {
        let user = Self::user(&request)?;
        let agent = agent(&request);
        let r = request.into_inner();
        let named = named(&self.0.table, r.resource.clone(), &r.subresource).map_err(refuse)?;
        self.call("patch", Some(named.kind), async {
            self.authorize(&user, "patch", &named, &r.name, "")?;
            placed(&named)?;
            writable(named.subresource, false)?;
            let target = Target { kind: named.kind, namespace: &named.namespace, name: required(&r.name)? };
            let mut options = write_options(r.dry_run, &r.field_manager, &agent)?;
            let (registry, sub) = (&self.0.registry, named.subresource);
            let document = document(&r.patch)?;
            let type_ = match r.r#type() {
                patch_request::Type::Json => PatchType::Json,
                patch_request::Type::Merge => PatchType::Merge,
                patch_request::Type::StrategicMerge => PatchType::Strategic,
                patch_request::Type::Apply => {
                    if r.field_manager.is_empty() {
                        return Err(StatusError::bad_request("field_manager is required for apply"));
                    }
                    options.force = r.force;
                    let may_create = || self.authorize(&user, "create", &named, &r.name, "");
                    let written = registry.apply(&user, target, sub, document, &options, &may_create).await?;
                    return Ok(object(written.json));
                }
                patch_request::Type::Unspecified => {
                    return Err(StatusError::bad_request("the message names no type of patch"));
                }
            };
            let patch = Patch { type_, document };
            let written = registry.patch(&user, target, sub, &patch, &options).await?;
            Ok(object(written.json))
        })
        .await
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let user = Self::user(&request)?;
        let r = request.into_inner();
        let named = named(&self.0.table, r.resource, "").map_err(refuse)?;
        self.call("delete", Some(named.kind), async {
            self.authorize(&user, "delete", &named, &r.name, "")?;
            placed(&named)?;
            let target = Target { kind: named.kind, namespace: &named.namespace, name: required(&r.name)? };
            let options = delete_options(&r.options)?;
            let written = self.0.registry.delete(&user, target, None, &options).await?;
            Ok(DeleteResponse { json: written.json, deleted: written.deleted })
        })
        .await
    }

    async fn delete_collection(
        &self,
        request: Request<DeleteCollectionRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let user = Self::user(&request)?;
        let r = request.into_inner();
        let named = named(&self.0.table, r.resource, "").map_err(refuse)?;
        self.call("deletecollection", Some(named.kind), async {
            self.authorize(&user, "deletecollection", &named, "", &r.field_selector)?;
            placed(&named)?;
            let query = ListQuery {
                label_selector: r.label_selector,
                field_selector: r.field_selector,
                ..ListQuery::default()
            };
            let options = delete_options(&r.options)?;
            let registry = &self.0.registry;
            let (items, revision) =
                registry.delete_collection(&user, named.kind, &named.namespace, &query, &options).await?;
            Ok(DeleteResponse { json: list_json(named.kind, &items, revision), deleted: true })
        })
        .await
    }
}

/// Who calls, in the words of the client.
fn agent<T>(request: &Request<T>) -> String {
    let agent = request.metadata().get("user-agent").and_then(|v| v.to_str().ok());
    agent.unwrap_or_default().to_owned()
}

fn write_options(dry_run: bool, manager: &str, agent: &str) -> Result<WriteOptions, StatusError> {
    if let Some(problem) = check_manager(manager) {
        return Err(StatusError::bad_request(format!(
            "field_manager: Invalid value: {manager:?}: {problem}"
        )));
    }
    let manager = if manager.is_empty() { manager_of_agent(agent) } else { manager.to_owned() };
    Ok(WriteOptions { dry_run, validation: FieldValidation::Ignore, manager, ..WriteOptions::default() })
}

fn writable(subresource: Option<Subresource>, update: bool) -> Result<(), StatusError> {
    match subresource {
        None | Some(Subresource::Status | Subresource::Scale | Subresource::Approval) => Ok(()),
        Some(Subresource::Finalize) if update => Ok(()),
        Some(_) => Err(StatusError::method_not_allowed()),
    }
}

fn delete_options(
    json: &Bytes,
) -> Result<api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions, StatusError> {
    let document = if json.is_empty() { None } else { Some(document(json)?) };
    delete::parse_options(document)
}

fn success(kind: &Kind, name: &str) -> Object {
    let json = serde_json::to_vec(&crate::rest::respond::success(kind, name, "")).unwrap_or_default();
    Object { name: name.into(), json: json.into(), ..Object::default() }
}

fn list_json(kind: &Kind, items: &[Bytes], revision: i64) -> Bytes {
    let mut out = format!(
        "{{\"kind\":{:?},\"apiVersion\":{:?},\"metadata\":{{\"resourceVersion\":\"{revision}\"}},\"items\":[",
        kind.list_kind, kind.api_version
    )
    .into_bytes();
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// A list in messages of bounded size; the last one says how to go on.
fn pages(kind: &'static Kind, list: crate::registry::read::List) -> impl Iterator<Item = ListPage> + Send {
    let mut entries = list.entries.into_iter().peekable();
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let mut page = ListPage { resource_version: list.revision.to_string(), ..ListPage::default() };
        let mut bytes = 0;
        while bytes < PAGE_BYTES
            && let Some(entry) = entries.next()
        {
            bytes += entry.json.len();
            page.items.push(stored(kind, &entry));
        }
        if entries.peek().is_none() {
            over = true;
            page.continue_token = list.continue_token.clone();
            page.remaining_item_count = list.remaining.unwrap_or(0);
        }
        Some(page)
    })
}

/// The events of a watch. It ends with 410 when its position is gone.
fn events(app: Arc<App>, kind: &'static Kind, session: Session) -> Messages<WatchEvent> {
    let open = app.requests.long_running();
    let shutdown = app.shutdown.clone();
    let batches = futures::stream::unfold((session, open), move |(mut session, open)| {
        let shutdown = shutdown.clone();
        async move {
            let step = tokio::select! {
                step = session.next() => step?,
                () = shutdown.cancelled() => return None,
            };
            Some((futures::stream::iter(messages(kind, step)), (session, open)))
        }
    });
    Box::pin(batches.flatten())
}

fn messages(kind: &'static Kind, step: Step) -> Vec<Result<WatchEvent, Status>> {
    match step {
        Step::Changes(changes) => changes.iter().map(|change| Ok(message(kind, change))).collect(),
        Step::Bookmark { revision, .. } => {
            let object = Object { resource_version: revision.to_string(), ..Object::default() };
            vec![Ok(WatchEvent { r#type: watch_event::Type::Bookmark.into(), object: Some(object) })]
        }
        Step::Expired => vec![Err(refuse(session::expired()))],
    }
}

fn message(kind: &'static Kind, change: &Change) -> WatchEvent {
    let type_ = match change {
        Change::Added(_) => watch_event::Type::Added,
        Change::Modified(_) => watch_event::Type::Modified,
        Change::Deleted(_) => watch_event::Type::Deleted,
    };
    WatchEvent { r#type: type_.into(), object: Some(stored(kind, change.entry())) }
}
