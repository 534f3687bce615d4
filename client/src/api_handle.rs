//! Requests for the objects of one resource.

use std::marker::PhantomData;
use std::time::Duration;

use api::Kind;
use api::object::Document;
use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::Value;
use tokio::time::Instant;
use tonic::Code;

use crate::channel::Client;
use crate::error::Error;

/// How long a unary request may wait for a connection before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The objects of one resource, in one namespace or all. Cheap to clone.
pub struct Api<K> {
    client: Client,
    kind: &'static Kind,
    namespace: String,
    of: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            kind: self.kind,
            namespace: self.namespace.clone(),
            of: PhantomData,
        }
    }
}

/// Which objects are listed or watched, and how fresh they must be.
#[derive(Clone, Debug, Default)]
pub struct ListParams {
    /// As `?labelSelector=`; empty for all.
    pub label_selector: String,
    /// As `?fieldSelector=`; empty for all.
    pub field_selector: String,
    /// Empty: the most recent. `0`: whatever the server has at hand. Else: not older than this.
    pub resource_version: String,
}

impl ListParams {
    /// Objects that a field selector selects.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { field_selector: selector.into(), ..Self::default() }
    }

    /// Objects that a label selector selects.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { label_selector: selector.into(), ..Self::default() }
    }
}

/// Objects as they stood together at one version.
#[derive(Clone, Debug)]
pub struct List<K> {
    /// The objects, ordered by namespace and name.
    pub items: Vec<K>,
    /// From where a watch continues.
    pub resource_version: String,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<K> {
    /// The object is new, or new to the selection.
    Added(K),
    /// The object changed.
    Modified(K),
    /// The object is gone, or gone from the selection; this is its last state.
    Deleted(K),
    /// Everything up to this version has been sent.
    Bookmark(String),
}

/// A change to an object, in one of the documented forms.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Strategic merge patch.
    Strategic(Value),
    /// Server-side apply: all that a manager wants of an object, which is made if there is none.
    Apply {
        /// The configuration.
        document: Value,
        /// The name of the manager.
        manager: String,
        /// Takes fields from those who own them.
        force: bool,
    },
}

impl<K: Document> Api<K> {
    pub(crate) fn new(client: &Client, kind: &'static Kind, namespace: &str) -> Self {
        Self { client: client.clone(), kind, namespace: namespace.to_owned(), of: PhantomData }
    }

    /// The row of the table of kinds.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// The same resource in another namespace.
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// One object.
    pub async fn get(&self, name: &str) -> Result<K, Error> {
        let request =
            proto::GetRequest { resource: self.resource(), name: name.into(), ..Default::default() };
        let object = patiently(|| {
            let (mut client, request) = (self.client.resources(), request.clone());
            async move { client.get(request).await }
        });
        decode(object.await?)
    }

    /// A subresource that is an object of its own, such as `scale`.
    pub async fn get_subresource(&self, name: &str, subresource: &str) -> Result<api::Object, Error> {
        let (name, subresource) = (name.to_owned(), subresource.to_owned());
        let request =
            proto::GetRequest { resource: self.resource(), name, subresource, ..Default::default() };
        let object = patiently(|| {
            let (mut client, request) = (self.client.resources(), request.clone());
            async move { client.get(request).await }
        });
        decode(object.await?)
    }

    /// One object, or `None` when there is none of that name.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>, Error> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects that are selected, received in pages.
    pub async fn list(&self, params: &ListParams) -> Result<List<K>, Error> {
        let request = proto::ListRequest {
            resource: self.resource(),
            label_selector: params.label_selector.clone(),
            field_selector: params.field_selector.clone(),
            resource_version: params.resource_version.clone(),
            ..Default::default()
        };
        let mut pages = patiently(|| {
            let (mut client, request) = (self.client.resources(), request.clone());
            async move { client.list(request).await }
        })
        .await?;
        let mut list = List { items: Vec::new(), resource_version: String::new() };
        while let Some(page) = pages.message().await? {
            for item in page.items {
                list.items.push(decode(item)?);
            }
            list.resource_version = page.resource_version;
        }
        Ok(list)
    }

    /// Changes after a version, with bookmarks. Ends with an error that `is_expired` when the version
    /// is older than what the server keeps; the stream also ends when the connection breaks.
    pub async fn watch(
        &self,
        params: &ListParams,
        resource_version: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<K>, Error>> + Send + use<K>, Error> {
        let request = proto::WatchRequest {
            resource: self.resource(),
            label_selector: params.label_selector.clone(),
            field_selector: params.field_selector.clone(),
            resource_version: resource_version.to_owned(),
            allow_bookmarks: true,
        };
        let events = self.client.resources().watch(request).await?.into_inner();
        Ok(events.map(|event| watch_event(event?)))
    }

    /// Creates an object and returns it as stored.
    pub async fn create(&self, object: &K) -> Result<K, Error> {
        let request = proto::CreateRequest {
            resource: self.resource_of(object),
            json: object.encode().into(),
            ..Default::default()
        };
        decode(self.client.resources().create(request).await?.into_inner())
    }

    /// Replaces an object, at the version that it bears, and returns it as stored.
    pub async fn update(&self, object: &K) -> Result<K, Error> {
        self.put(object.document_name(), "", object).await
    }

    /// Replaces an object's status alone.
    pub async fn update_status(&self, object: &K) -> Result<K, Error> {
        self.put(object.document_name(), "status", object).await
    }

    /// Replaces a subresource whose body is of the object's own kind, such as `finalize`.
    pub async fn update_subresource(&self, name: &str, subresource: &str, object: &K) -> Result<K, Error> {
        self.put(name, subresource, object).await
    }

    async fn put(&self, name: &str, subresource: &str, object: &K) -> Result<K, Error> {
        let request = proto::UpdateRequest {
            resource: self.resource_of(object),
            name: name.to_owned(),
            json: object.encode().into(),
            subresource: subresource.to_owned(),
            ..Default::default()
        };
        decode(self.client.resources().update(request).await?.into_inner())
    }

    /// Changes an object.
    pub async fn patch(&self, name: &str, patch: &Patch) -> Result<K, Error> {
        self.send_patch(name, "", patch).await
    }

    /// Changes an object's status.
    pub async fn patch_status(&self, name: &str, patch: &Patch) -> Result<K, Error> {
        self.send_patch(name, "status", patch).await
    }

    async fn send_patch(&self, name: &str, subresource: &str, patch: &Patch) -> Result<K, Error> {
        use proto::patch_request::Type;
        let (type_, body, field_manager, force) = match patch {
            Patch::Json(body) => (Type::Json, body, "", false),
            Patch::Merge(body) => (Type::Merge, body, "", false),
            Patch::Strategic(body) => (Type::StrategicMerge, body, "", false),
            Patch::Apply { document, manager, force } => (Type::Apply, document, manager.as_str(), *force),
        };
        let request = proto::PatchRequest {
            resource: self.resource(),
            name: name.to_owned(),
            r#type: type_.into(),
            patch: body.to_string().into(),
            subresource: subresource.to_owned(),
            field_manager: field_manager.to_owned(),
            force,
            ..Default::default()
        };
        decode(self.client.resources().patch(request).await?.into_inner())
    }

    /// Posts to a subresource whose body is of another kind, such as `binding`.
    pub async fn create_subresource(
        &self,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> Result<Value, Error> {
        let request = proto::CreateRequest {
            resource: self.resource(),
            json: body.to_string().into(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            ..Default::default()
        };
        let answer = self.client.resources().create(request).await?.into_inner();
        serde_json::from_slice(&answer.json).map_err(|source| Error::Decode { name: name.to_owned(), source })
    }

    /// Deletes an object. Returns true when it is gone, false when its deletion waits for a grace
    /// period or finalizers.
    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<bool, Error> {
        let request = proto::DeleteRequest {
            resource: self.resource(),
            name: name.to_owned(),
            options: encode_options(options),
        };
        Ok(self.client.resources().delete(request).await?.into_inner().deleted)
    }

    /// Deletes all objects that are selected, each as [`Self::delete`] would.
    pub async fn delete_collection(&self, params: &ListParams, options: &DeleteOptions) -> Result<(), Error> {
        let request = proto::DeleteCollectionRequest {
            resource: self.resource(),
            label_selector: params.label_selector.clone(),
            field_selector: params.field_selector.clone(),
            options: encode_options(options),
        };
        self.client.resources().delete_collection(request).await?;
        Ok(())
    }

    fn resource(&self) -> Option<proto::Resource> {
        Some(proto::Resource {
            group: self.kind.group.to_owned(),
            version: self.kind.version.to_owned(),
            resource: self.kind.plural.to_owned(),
            namespace: self.namespace.clone(),
        })
    }

    /// The resource, in the object's namespace when the handle is for all of them.
    fn resource_of(&self, object: &K) -> Option<proto::Resource> {
        let mut resource = self.resource()?;
        if resource.namespace.is_empty() {
            resource.namespace = object.document_namespace().to_owned();
        }
        Some(resource)
    }
}

fn encode_options(options: &DeleteOptions) -> tonic::codegen::Bytes {
    serde_json::to_vec(options).expect("delete options have string keys and always encode").into()
}

fn decode<K: Document>(object: proto::Object) -> Result<K, Error> {
    K::decode(&object.json)
        .map_err(|source| Error::Decode { name: api::meta::key_of(&object.namespace, &object.name), source })
}

fn watch_event<K: Document>(event: proto::WatchEvent) -> Result<WatchEvent<K>, Error> {
    use proto::watch_event::Type;
    let type_ = event.r#type();
    let object = event.object.unwrap_or_default();
    Ok(match type_ {
        Type::Added => WatchEvent::Added(decode(object)?),
        Type::Modified => WatchEvent::Modified(decode(object)?),
        Type::Deleted => WatchEvent::Deleted(decode(object)?),
        Type::Bookmark | Type::Unspecified => WatchEvent::Bookmark(object.resource_version),
    })
}

/// Repeats a read while no API server can be reached, with growing pauses, until [`PATIENCE`] ends.
/// Writes are not repeated here: the caller alone knows whether that is safe.
async fn patiently<T, F, Fut>(mut request: F) -> Result<T, Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(50);
    loop {
        match request().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => {
                let unreachable =
                    status.code() == Code::Unavailable && proto::errors::from_grpc(&status).is_none();
                if !unreachable || Instant::now() + pause > deadline {
                    return Err(status.into());
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}
