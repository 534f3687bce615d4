//! The generic store: create, update, patch and delete of any kind, written once.

use std::sync::Arc;
use std::time::Duration;

use api::openapi::api::core::v1::{Binding, Service};
use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use api::status::StatusError;
use api::{Kind, Object, Subresource, meta as object_meta};
use bytes::Bytes;
use component::clock::Clock;
use futures::FutureExt;
use serde_json::Value;

use super::allocate::{Allocator, Claims};
use super::errors::from_etcd;
use super::strategy::{ErasedStrategy, UpdatePath};
use super::{convert, delete, meta, pods, read, scale, strategies};
use crate::admission::intent::{Change, Intent, Options};
use crate::admission::{self, Admission, Attributes, Operation};
use crate::auth::User;
use crate::registry::read::Version;
use crate::storage::etcd::{Op, Outcome, Write};
use crate::storage::{Entry, Etcd, Hub, encoding, layout};

mod apply;
mod events;
mod fields;
mod managed;
mod parts;
mod patch;
mod quota;
mod turn;

pub use fields::FieldValidation;
pub use patch::{Patch, PatchType};

use managed::Tracking;
use turn::Decision;

/// How often a write that lost a race is tried again before the client is told.
const MAX_RACES: usize = 50;
/// Deletions of a collection that are under way at once.
const DELETIONS: usize = 16;
/// How often a generated name may be taken already.
const MAX_NAMES: usize = 8;

/// What every write is told.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Checks everything and writes nothing.
    pub dry_run: bool,
    /// What to do about fields that the kind does not have.
    pub validation: FieldValidation,
    /// What is to be said of fields that stand twice in the document.
    pub duplicates: Vec<String>,
    /// Who owns the fields that are changed.
    pub manager: String,
    /// An apply takes fields from those who own them.
    pub force: bool,
}

/// What a write left behind.
#[derive(Debug)]
pub struct Written {
    /// The object's JSON, in the kind that was asked for.
    pub json: Bytes,
    /// Whether the object is gone.
    pub deleted: bool,
    /// Whether the object is new.
    pub created: bool,
    /// What the client should be warned of.
    pub warnings: Vec<String>,
}

/// Names an object.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its namespace, empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// The generic registry of all kinds.
pub struct Registry {
    pub(super) etcd: Etcd,
    pub(super) hub: Arc<Hub>,
    allocator: Allocator,
    admission: Admission,
    clock: Clock,
    event_lease: events::EventLease,
    ledger: quota::Ledger,
}

impl Registry {
    /// A registry over a store and its copies.
    pub fn new(
        etcd: Etcd,
        hub: Arc<Hub>,
        allocator: Allocator,
        admission: Admission,
        clock: Clock,
        event_ttl: Duration,
    ) -> Self {
        let (event_lease, ledger) = (events::EventLease::new(event_ttl), quota::Ledger::default());
        Self { event_lease, ledger, etcd, hub, allocator, admission, clock }
    }

    /// The copies that reads are served from.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The allocator, which is told of the keys that exist when the server starts.
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// The store, for the server's own bookkeeping.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    fn key(&self, kind: &'static Kind, namespace: &str, name: &str) -> String {
        format!("{}{}", self.hub.cache(kind).prefix(), object_meta::key_of(namespace, name))
    }

    /// Creates an object.
    ///
    /// # Errors
    /// 400 and 422 for a wrong document, 403 by admission, 409 when it exists.
    pub async fn create(
        &self,
        user: &User,
        kind: &'static Kind,
        namespace: &str,
        document: Value,
        options: &WriteOptions,
    ) -> Result<Written, StatusError> {
        let mut warnings = options.check(kind, &document)?;
        let object = meta::intake(kind, document)?;
        let written =
            Box::pin(self.create_tracked(user, kind, namespace, object, options, Tracking::Changes)).await?;
        warnings.extend(written.warnings);
        Ok(Written { warnings, ..written })
    }

    /// Creates an object whose managers are found, or stated in it.
    async fn create_tracked(
        &self,
        user: &User,
        kind: &'static Kind,
        namespace: &str,
        mut object: Object,
        options: &WriteOptions,
        tracking: Tracking,
    ) -> Result<Written, StatusError> {
        meta::place(kind, &mut object, namespace)?;
        if !object.resource_version().is_empty() {
            return Err(StatusError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let mut object = convert::to_stored(kind, object);
        let stored = layout::storage_kind(kind);
        let strategy = strategies::strategy(stored);
        self.admit_namespace(stored, namespace, object.name()).await?;
        self.admission.mutate(stored, &mut object).await?;
        let intent = Intent {
            user,
            kind,
            subresource: None,
            operation: Operation::Create,
            namespace,
            name: "",
            options: Options::Write(options),
        };
        let stated = managed::take(&mut object);
        let name = object.name().to_owned();
        self.admission.mutate_by_others(&intent.named(&name), stored, &mut object, None).await?;
        let now = self.clock.now();
        let context = managed::Context { kind: stored, subresource: None, options, now };
        meta::prepare_for_create(stored, &mut object, now, &uuid::Uuid::new_v4().to_string());
        let prefix = object.str_at("/metadata/generateName").to_owned();
        let generate = object.name().is_empty() && !prefix.is_empty();
        for last in (0..MAX_NAMES).map(|i| i + 1 == MAX_NAMES || !generate) {
            let mut attempt = object.clone();
            if generate {
                let name = meta::generate_name(&prefix, |n| rand::random_range(0..n));
                attempt.set_meta_str("name", &name);
            }
            let mut attempt = prepare_new(stored, strategy, attempt)?;
            self.admission.validate(&Attributes {
                user,
                kind: stored,
                subresource: None,
                operation: Operation::Create,
                new: Some(&attempt),
                old: None,
            })?;
            let warnings = self.admission.warnings(stored, &attempt);
            let managers = match tracking {
                Tracking::Changes => context.created(&attempt, stated.as_ref()),
                Tracking::Stated => stated.clone(),
            };
            managed::put(&mut attempt, managers);
            let change = Change { new: Some(&attempt), old: None };
            self.admission.validate_by_others(&intent.named(attempt.name()), change).await?;
            match Box::pin(self.insert(stored, attempt, options.dry_run)).await? {
                Some(json) => {
                    let json = convert::json_from_stored(kind, &json);
                    return Ok(Written { json, deleted: false, created: true, warnings });
                }
                None if last => {
                    let name = if generate { &prefix } else { object.name() };
                    return Err(StatusError::already_exists(kind, name));
                }
                None => {}
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Writes a new object; nothing when its name is taken.
    async fn insert(
        &self,
        kind: &'static Kind,
        mut object: Object,
        dry_run: bool,
    ) -> Result<Option<Bytes>, StatusError> {
        let key = self.key(kind, object.namespace(), object.name());
        let mut account = self.account(kind, object.namespace()).await;
        if dry_run {
            let found = self.etcd.get(&key).await.map_err(|e| from_etcd(&e))?;
            if found.is_some() {
                return Ok(None);
            }
            if let Some(account) = &account {
                account.charges(self, kind, &object, None)?;
            }
            self.claims(kind, &mut object, None)?;
            return Ok(Some(object.to_vec().into()));
        }
        let original = object.clone();
        for _ in 0..MAX_RACES {
            let beside = match &account {
                Some(account) => account.charges(self, kind, &object, None)?,
                None => Vec::new(),
            };
            let claims = self.claims(kind, &mut object, None)?;
            let value = encoding::encode(&object);
            let write = Write {
                key: key.clone(),
                expect: 0,
                op: Op::Put(value.clone()),
                take: self.claim_keys(&claims),
                give: Vec::new(),
                beside,
                lease: self.event_lease.lease(&self.etcd, kind).await?,
            };
            match self.commit(&write, kind).await? {
                Outcome::Committed(revision) => {
                    self.settle(&write);
                    if let Some(account) = &mut account {
                        account.settle(write.beside, revision)?;
                    }
                    return Ok(encoding::stamp(&value, revision));
                }
                Outcome::Changed(_) => return Ok(None),
                Outcome::Taken(keys) => {
                    self.contested(kind, &original, &claims, &keys)?;
                    object = original.clone();
                }
                Outcome::Overtaken => {
                    if let Some(account) = &mut account {
                        account.reread(self, &write.beside).await?;
                    }
                    object = original.clone();
                }
            }
        }
        Err(StatusError::unavailable("could not find a free address or port in time"))
    }

    /// Replaces an object, or one of its subresources. Some kinds are created when they do not exist, if `may_create`
    /// lets that be.
    ///
    /// # Errors
    /// 404, 409 for a stale version, 400 and 422 for a wrong document, 403 by admission.
    pub async fn update(
        &self,
        user: &User,
        target: Target<'_>,
        subresource: Option<Subresource>,
        document: Value,
        options: &WriteOptions,
        may_create: &(dyn Fn() -> Result<(), StatusError> + Sync),
    ) -> Result<Written, StatusError> {
        if subresource == Some(Subresource::Scale) {
            let scale = Object::new(document)
                .map_err(|_| StatusError::bad_request("the request body is not a JSON object"))?;
            return self
                .modify(user, target, subresource, options, Tracking::Changes, |current| {
                    scale::apply(target.kind, &scale, current)
                })
                .await;
        }
        let warnings = options.check(target.kind, &document)?;
        let mut object = meta::intake(target.kind, document)?;
        meta::place(target.kind, &mut object, target.namespace)?;
        match object.name() {
            "" => {
                return Err(StatusError::bad_request("name must be provided"));
            }
            name if name != target.name => {
                return Err(StatusError::bad_request(format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    target.name
                )));
            }
            _ => {}
        }
        let written =
            self.modify(user, target, subresource, options, Tracking::Changes, |_| Ok(object.clone())).await;
        let creates = subresource.is_none() && layout::created_by_update(layout::storage_kind(target.kind));
        let written = match written {
            Err(error) if error.is_not_found() && creates => {
                may_create()?;
                if !object.resource_version().is_empty() {
                    return Err(StatusError::stale(target.kind, target.name));
                }
                self.create_tracked(user, target.kind, target.namespace, object, options, Tracking::Changes)
                    .await?
            }
            written => written?,
        };
        Ok(Written { warnings, ..written })
    }

    /// Changes an object by a function of its present state, which may run several times.
    async fn modify(
        &self,
        user: &User,
        target: Target<'_>,
        subresource: Option<Subresource>,
        options: &WriteOptions,
        tracking: Tracking,
        mut change: impl FnMut(&Object) -> Result<Object, StatusError> + Send,
    ) -> Result<Written, StatusError> {
        let stored = layout::storage_kind(target.kind);
        let strategy = strategies::strategy(stored);
        let context = managed::Context { kind: stored, subresource, options, now: self.clock.now() };
        let intent = Intent {
            user,
            kind: target.kind,
            subresource,
            operation: Operation::Update,
            namespace: target.namespace,
            name: target.name,
            options: Options::Write(options),
        };
        let mut turn = self.begin(target, options.dry_run).await?;
        let written = loop {
            let decision = async {
                let mut current = turn.object().clone();
                let mut new = change(&convert::from_stored(target.kind, current.clone()))?;
                let (stated, present) = (managed::take(&mut new), managed::take(&mut current));
                let version = new.resource_version();
                if !version.is_empty() && version != current.resource_version() {
                    return Err(StatusError::stale(target.kind, target.name));
                }
                let mut new = convert::to_stored(target.kind, new);
                self.mutate_change(&intent, &mut new, &current).await?;
                let mut new = prepare_changed(stored, strategy, new, &current, subresource)?;
                self.admission.validate(&Attributes {
                    user,
                    kind: stored,
                    subresource,
                    operation: Operation::Update,
                    new: Some(&new),
                    old: Some(&current),
                })?;
                let managers = match tracking {
                    Tracking::Changes => context.updated(&current, &new, stated.as_ref(), present),
                    Tracking::Stated => managed::settled(&current, &new, stated, present),
                };
                self.validate_change(&intent, &new, &current).await?;
                managed::put(&mut new, managers);
                Ok(if delete::is_finished(stored, &new) { Decision::Remove } else { Decision::Put(new) })
            };
            let decision = decision.await;
            if let Some(written) = self.conclude(&mut turn, decision).await? {
                break written;
            }
        };
        Ok(match subresource {
            Some(Subresource::Scale) => {
                let object = Object::parse(&written.json).map_err(StatusError::internal)?;
                Written { json: scale::view(target.kind, &object).to_vec().into(), ..written }
            }
            _ => written,
        })
    }

    /// Lets webhooks change what an update makes of an object; of a Scale, what it says of the object.
    async fn mutate_change(
        &self,
        intent: &Intent<'_>,
        new: &mut Object,
        old: &Object,
    ) -> Result<(), StatusError> {
        let stored = layout::storage_kind(intent.kind);
        if self.admission.asks_nobody() {
            return Ok(());
        }
        if intent.subresource != Some(Subresource::Scale) {
            return self.admission.mutate_by_others(intent, stored, new, Some(old)).await;
        }
        let views = [&*new, old].map(|object| scale::view(intent.kind, object));
        let [mut seen, before] = views;
        self.admission.mutate_by_others(intent, stored, &mut seen, Some(&before)).await?;
        *new = scale::apply(intent.kind, &seen, new)?;
        Ok(())
    }

    /// Asks whoever is configured whether an update may be carried out.
    async fn validate_change(
        &self,
        intent: &Intent<'_>,
        new: &Object,
        old: &Object,
    ) -> Result<(), StatusError> {
        if self.admission.asks_nobody() {
            return Ok(());
        }
        if intent.subresource != Some(Subresource::Scale) {
            let change = Change { new: Some(new), old: Some(old) };
            return self.admission.validate_by_others(intent, change).await;
        }
        let [new, old] = [new, old].map(|object| scale::view(intent.kind, object));
        self.admission.validate_by_others(intent, Change { new: Some(&new), old: Some(&old) }).await
    }

    /// The Scale of an object.
    ///
    /// # Errors
    /// As [`Registry::get`].
    pub async fn get_scale(&self, target: Target<'_>, version: &str) -> Result<Bytes, StatusError> {
        let entry = self.get(target.kind, target.namespace, target.name, version).await?;
        let object = Object::parse(&entry.json).map_err(StatusError::internal)?;
        Ok(scale::view(target.kind, &object).to_vec().into())
    }

    /// Gives a pod its node.
    ///
    /// # Errors
    /// 409 when it has one already.
    pub async fn bind(
        &self,
        user: &User,
        target: Target<'_>,
        binding: &Binding,
        dry_run: bool,
    ) -> Result<(), StatusError> {
        let now = self.clock.now();
        let sub = Some(Subresource::Binding);
        let document = || serde_json::to_value(binding).unwrap_or_default();
        let part = self.admit_part(user, target, Subresource::Binding, dry_run, document).await?;
        let changed = part.map(|part| pods::parse_binding(target.kind, target.name, part)).transpose()?;
        let binding = changed.as_ref().unwrap_or(binding);
        let bound = self.guaranteed_update(target, dry_run, |current| {
            let mut bound = pods::bind(target.kind, binding, current, now)?;
            self.admission.validate(&Attributes {
                user,
                kind: target.kind,
                subresource: sub,
                operation: Operation::Create,
                new: Some(&bound),
                old: Some(current),
            })?;
            meta::count_generation(target.kind, &mut bound, current);
            Ok(Decision::Put(bound))
        });
        bound.await.map(drop)
    }

    /// Deletes an object, or marks it for deletion.
    ///
    /// # Errors
    /// 404, 409 when a precondition does not hold, 403 for what may not be deleted.
    pub async fn delete(
        &self,
        user: &User,
        target: Target<'_>,
        subresource: Option<Subresource>,
        options: &DeleteOptions,
    ) -> Result<Written, StatusError> {
        delete::validate_options(options)?;
        admission::namespace_lifecycle::decide_delete(target.kind, target.name)?;
        let stored = layout::storage_kind(target.kind);
        let strategy = strategies::strategy(stored);
        let now = self.clock.now();
        let dry_run = options.dry_run.iter().flatten().any(|v| v == "All");
        let intent = Intent {
            user,
            kind: target.kind,
            subresource: None,
            operation: Operation::Delete,
            namespace: target.namespace,
            name: target.name,
            options: Options::Delete(options),
        };
        let mut turn = self.begin(target, dry_run).await?;
        loop {
            let current = turn.object();
            let decision = async {
                self.admission.validate(&Attributes {
                    user,
                    kind: stored,
                    subresource,
                    operation: Operation::Delete,
                    new: None,
                    old: Some(current),
                })?;
                let plan = delete::plan(stored, strategy, current, options, now)?;
                // Whoever asked for an eviction was judged as that, as upstream has it.
                if subresource.is_none() {
                    let change = Change { new: None, old: Some(current) };
                    self.admission.validate_by_others(&intent, change).await?;
                }
                Ok(match plan {
                    delete::Plan::Remove => Decision::Remove,
                    delete::Plan::Mark(marked) => Decision::Put(*marked),
                    delete::Plan::Wait => Decision::Keep,
                })
            };
            let decision = decision.await;
            if let Some(written) = self.conclude(&mut turn, decision).await? {
                return Ok(written);
            }
        }
    }

    /// Deletes everything that a query selects; what was deleted or marked.
    ///
    /// # Errors
    /// The first error but 404.
    pub async fn delete_collection(
        &self,
        user: &User,
        kind: &'static Kind,
        namespace: &str,
        query: &read::ListQuery,
        options: &DeleteOptions,
    ) -> Result<(Vec<Bytes>, i64), StatusError> {
        delete::validate_options(options)?;
        let list = self.list(kind, namespace, query).await?;
        let mut deleted = Vec::with_capacity(list.entries.len());
        for chunk in list.entries.chunks(DELETIONS) {
            let mut deletions = Vec::with_capacity(chunk.len());
            for entry in chunk {
                deletions.push(self.delete_one(user, kind, entry.clone(), options).boxed());
            }
            for json in futures::future::join_all(deletions).await {
                deleted.extend(json?);
            }
        }
        Ok((deleted, list.revision))
    }

    /// Deletes one object of a collection; nothing when somebody else was faster.
    async fn delete_one(
        &self,
        user: &User,
        kind: &'static Kind,
        entry: Arc<Entry>,
        options: &DeleteOptions,
    ) -> Result<Option<Bytes>, StatusError> {
        let target = Target { kind, namespace: entry.namespace(), name: entry.name() };
        match self.delete(user, target, None, options).await {
            Ok(written) => Ok(Some(written.json)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn commit(&self, write: &Write, kind: &'static Kind) -> Result<Outcome, StatusError> {
        match self.etcd.commit(write).await {
            Err(error) if write.lease != 0 && error.to_string().contains("lease not found") => {
                self.event_lease.forget(write.lease);
                let lease = self.event_lease.lease(&self.etcd, kind).await?;
                self.etcd.commit(&Write { lease, ..write.clone() }).await.map_err(|e| from_etcd(&e))
            }
            other => other.map_err(|e| from_etcd(&e)),
        }
    }

    /// Refuses new objects in namespaces that do not exist or are going.
    async fn admit_namespace(&self, kind: &Kind, namespace: &str, name: &str) -> Result<(), StatusError> {
        if !kind.namespaced {
            return Ok(());
        }
        let namespaces = Kind::find("", "Namespace").expect("Namespace is in the table");
        let cache = self.hub.cache(namespaces);
        let mut found = cache.get(namespace);
        if found.is_none() {
            // It may have been created through another server a moment ago.
            self.reach(Version::MostRecent).await?;
            found = cache.get(namespace);
        }
        let found = match found {
            Some(entry) => Some(Object::parse(&entry.json).map_err(StatusError::internal)?),
            None => None,
        };
        admission::namespace_lifecycle::decide_create(kind, namespace, name, found.as_ref())
    }

    fn claims(&self, kind: &Kind, new: &mut Object, old: Option<&Object>) -> Result<Claims, StatusError> {
        if !is_service(kind) {
            return Ok(Claims::default());
        }
        let typed = |o: &Object| o.to_typed::<Service>().map_err(StatusError::internal);
        let mut service = typed(new)?;
        let old = old.map(typed).transpose()?;
        let claims = self.allocator.allocate(&mut service, old.as_ref())?;
        *new = Object::from_typed(&service);
        Ok(claims)
    }

    fn released(&self, kind: &Kind, old: &Object) -> Result<Claims, StatusError> {
        if !is_service(kind) {
            return Ok(Claims::default());
        }
        Ok(self.allocator.release(&old.to_typed().map_err(StatusError::internal)?))
    }

    fn claim_key(&self, key: &str) -> String {
        format!("{}/{key}", self.etcd.prefix())
    }

    fn claim_keys(&self, claims: &Claims) -> Vec<String> {
        claims.take.iter().map(|claim| self.claim_key(&claim.key)).collect()
    }

    fn claim_names<'a>(&'a self, keys: &'a [String]) -> impl Iterator<Item = String> + 'a {
        let strip =
            |key: &'a String| key.strip_prefix(self.etcd.prefix())?.strip_prefix('/').map(str::to_owned);
        keys.iter().filter_map(strip)
    }

    fn settle(&self, write: &Write) {
        self.allocator.taken(&mut self.claim_names(&write.take));
        self.allocator.freed(&mut self.claim_names(&write.give));
    }

    /// Remembers what is taken; fails when the client had asked for it by name.
    fn contested(
        &self,
        kind: &Kind,
        object: &Object,
        claims: &Claims,
        keys: &[String],
    ) -> Result<(), StatusError> {
        self.allocator.taken(&mut self.claim_names(keys));
        let taken: Vec<_> = self.claim_names(keys).collect();
        let errors: Vec<_> = claims
            .take
            .iter()
            .filter(|claim| taken.contains(&claim.key))
            .filter_map(|claim| claim.explicit.clone())
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(StatusError::invalid(kind, object.name(), &errors)) }
    }
}

fn is_service(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.kind == "Service"
}

/// Runs a new object through the rules of metadata and of its kind.
fn prepare_new(
    kind: &Kind,
    strategy: &dyn ErasedStrategy,
    mut object: Object,
) -> Result<Object, StatusError> {
    // A kubelet registers its node with the status; any other status begins empty.
    if kind.has(Subresource::Status) && kind.kind != "Node" {
        object.as_map_mut().remove("status");
    }
    let errors = meta::validate_create(kind, strategy, &object);
    strategy.for_create(object, errors)
}

/// Runs a changed object through the rules of metadata and of its kind. What the path may not change stays as it
/// is: the status on the main path, everything but the status on the status path.
fn prepare_changed(
    kind: &Kind,
    strategy: &dyn ErasedStrategy,
    mut new: Object,
    old: &Object,
    subresource: Option<Subresource>,
) -> Result<Object, StatusError> {
    meta::prepare_for_update(kind, &mut new, old)?;
    let errors = meta::validate_update(kind, &new, old);
    let keep = |object: &mut Object, field: &str, from: &Object| match from.as_map().get(field) {
        Some(value) => {
            object.as_map_mut().insert(field.into(), value.clone());
        }
        None => {
            object.as_map_mut().remove(field);
        }
    };
    let mut new = match subresource {
        Some(Subresource::Status) => {
            let mut merged = old.clone();
            keep(&mut merged, "status", &new);
            strategy.for_update(merged, old, UpdatePath::Status, errors)?
        }
        Some(Subresource::Approval) => {
            let mut merged = old.clone();
            let status = merged.as_map_mut().entry("status").or_insert_with(|| serde_json::json!({}));
            if let Some(status) = status.as_object_mut() {
                let conditions = new.pointer("/status/conditions").cloned().unwrap_or_default();
                status.insert("conditions".into(), conditions);
            }
            strategy.for_update(merged, old, UpdatePath::Status, errors)?
        }
        Some(Subresource::Finalize) => {
            let mut merged = old.clone();
            let finalizers =
                new.pointer("/spec/finalizers").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
            let spec = merged.as_map_mut().entry("spec").or_insert_with(|| serde_json::json!({}));
            if let Some(spec) = spec.as_object_mut() {
                spec.insert("finalizers".into(), finalizers);
            }
            // The path of the status leaves the spec to us, whatever the strategy of the kind keeps of it.
            let checked = strategy.for_update(merged.clone(), old, UpdatePath::Status, errors)?;
            keep(&mut merged, "status", &checked);
            merged
        }
        _ => {
            if kind.has(Subresource::Status) {
                keep(&mut new, "status", old);
            }
            strategy.for_update(new, old, UpdatePath::Main, errors)?
        }
    };
    new.set_resource_version(old.resource_version());
    meta::count_generation(kind, &mut new, old);
    Ok(new)
}
