//! Admission: what a request must pass and is changed by, between authorization and registry.
//!
//! The plugins are upstream's, in upstream's order, a file each; what one decides is a plain function of the object and
//! of what the copies hold.

pub mod cel;
pub mod default_class;
pub mod default_toleration_seconds;
pub mod intent;
pub mod limit_ranger;
pub mod matching;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod notes;
pub mod pod_security;
pub mod policy;
pub mod priority;
pub mod runtime_class;
pub mod service_account;
pub mod taint_nodes_by_condition;
pub mod webhook;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::decode::decode_json;
use api::openapi::api::core::v1::{Namespace, ServiceAccount};
use api::openapi::api::networking::v1::IngressClass;
use api::openapi::api::node::v1::RuntimeClass;
use api::openapi::api::scheduling::v1::PriorityClass;
use api::openapi::api::storage::v1::StorageClass;
use api::status::StatusError;
use api::{Kind, Object, Subresource, Typed};

use crate::auth::rbac::follow::Present;
use crate::auth::{User, rbac};
use crate::custom::Table;
use crate::reach::Reach;
use crate::storage::{Filter, Hub};
use intent::{Change, Intent};
use matching::Surroundings;
use policy::Policies;
use webhook::Webhooks;

/// The plugins that are there, by upstream's names, in the order in which they are asked.
pub const PLUGINS: &[&str] = &[
    "NamespaceLifecycle",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "PodSecurity",
    "Priority",
    "DefaultTolerationSeconds",
    "DefaultStorageClass",
    "RuntimeClass",
    "DefaultIngressClass",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
];

/// How often, and with which pause, the account `default` of a new namespace is looked for.
const ACCOUNT_ATTEMPTS: usize = 10;
const ACCOUNT_PAUSE: Duration = Duration::from_millis(100);

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
    /// A stream to it is opened.
    Connect,
}

/// The chain. One for the server.
pub struct Admission {
    hub: Arc<Hub>,
    rbac: Present,
    policies: Policies,
    webhooks: Webhooks,
    disabled: HashSet<String>,
}

/// What somebody wants to do to an object.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a User,
    /// The kind of the object.
    pub kind: &'static Kind,
    /// The part of the object.
    pub subresource: Option<Subresource>,
    /// What is done.
    pub operation: Operation,
    /// The object as it will be; absent for deletions.
    pub new: Option<&'a Object>,
    /// The object as it is; absent for creations.
    pub old: Option<&'a Object>,
}

impl Admission {
    /// The chain over what the copies hold, without the plugins that are turned off.
    pub fn new(
        rbac: Present,
        table: Arc<Table>,
        reach: Arc<Reach>,
        hub: Arc<Hub>,
        disabled: &[String],
    ) -> Self {
        let surroundings = Arc::new(Surroundings { hub: hub.clone(), table });
        let policies = Policies::new(surroundings.clone());
        let webhooks = Webhooks::new(surroundings, reach);
        Self { hub, rbac, policies, webhooks, disabled: disabled.iter().cloned().collect() }
    }

    fn on(&self, plugin: &str) -> bool {
        !self.disabled.contains(plugin)
    }

    /// The objects of a kind in a namespace; the empty one means all.
    fn all<K: Typed>(&self, namespace: &str) -> Vec<K> {
        let filter = Filter { namespace: namespace.to_owned(), ..Filter::default() };
        let entries = self.hub.cache(K::kind()).list(&filter, 0, "").entries;
        entries.iter().filter_map(|entry| decode_json(&entry.json).ok()).collect()
    }

    fn one<K: Typed>(&self, namespace: &str, name: &str) -> Option<K> {
        let entry = self.hub.cache(K::kind()).get(&api::meta::key_of(namespace, name))?;
        decode_json(&entry.json).ok()
    }

    /// Whether quotas are charged.
    pub fn charges_quotas(&self) -> bool {
        self.on("ResourceQuota")
    }

    /// Whether no webhook and no policy is configured at all.
    pub fn asks_nobody(&self) -> bool {
        self.webhooks.mutate_nothing() && self.webhooks.validate_nothing() && self.policies.validate_nothing()
    }

    /// Lets whoever is configured change an object that is to be written. `stored` is the kind in which it is.
    ///
    /// # Errors
    /// The refusal of a webhook; 500 for one that fails and may not be left out.
    pub async fn mutate_by_others(
        &self,
        intent: &Intent<'_>,
        stored: &'static Kind,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), StatusError> {
        if self.webhooks.mutate_nothing() || intent.is_exempt() || !self.on("MutatingAdmissionWebhook") {
            return Ok(());
        }
        let again = async |object: &mut Object| {
            let new = intent.operation == Operation::Create && intent.subresource.is_none();
            if new { Box::pin(self.mutate(stored, object)).await } else { Ok(()) }
        };
        // Boxed, so that requests that ask nobody are not as large as those that do.
        Box::pin(self.webhooks.mutate(intent, object, old, again)).await
    }

    /// Asks whoever is configured whether a request may be carried out.
    ///
    /// # Errors
    /// The refusal of a policy or webhook; 500 for a webhook that fails and may not be left out.
    pub async fn validate_by_others(
        &self,
        intent: &Intent<'_>,
        change: Change<'_>,
    ) -> Result<(), StatusError> {
        if intent.is_exempt() {
            return Ok(());
        }
        let deletes = intent.operation == Operation::Delete;
        if deletes && !self.webhooks.mutate_nothing() && self.on("MutatingAdmissionWebhook") {
            Box::pin(self.webhooks.consult(intent, change)).await?;
        }
        if !self.policies.validate_nothing() && self.on("ValidatingAdmissionPolicy") {
            self.policies.validate(intent, change)?;
        }
        if !self.webhooks.validate_nothing() && self.on("ValidatingAdmissionWebhook") {
            Box::pin(self.webhooks.validate(intent, change)).await?;
        }
        Ok(())
    }

    /// Fills in what cluster policy sets in a new object. Runs on the client's document, before it is decoded.
    ///
    /// # Errors
    /// 403 for what policy does not allow.
    pub async fn mutate(&self, kind: &'static Kind, object: &mut Object) -> Result<(), StatusError> {
        match (kind.group, kind.kind) {
            ("", "Pod") => self.mutate_pod(kind, object).await,
            ("", "Node") if self.on("TaintNodesByCondition") => {
                taint_nodes_by_condition::mutate(object);
                Ok(())
            }
            ("", "PersistentVolumeClaim") if self.on("DefaultStorageClass") => {
                let classes = self.all::<StorageClass>("").into_iter().map(|c| c.metadata);
                default_class::claim(object, &classes.collect::<Vec<_>>());
                Ok(())
            }
            ("networking.k8s.io", "Ingress") if self.on("DefaultIngressClass") => {
                let classes = self.all::<IngressClass>("").into_iter().map(|c| c.metadata);
                default_class::ingress(object, &classes.collect::<Vec<_>>());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn mutate_pod(&self, kind: &'static Kind, pod: &mut Object) -> Result<(), StatusError> {
        let refuse = |pod: &Object, why: String| StatusError::forbidden(kind, shown_name(pod), why);
        if self.on("LimitRanger") {
            limit_ranger::mutate(pod, &self.all(pod.namespace()));
        }
        if self.on("ServiceAccount")
            && let Some(name) = service_account::name(pod).map_err(|why| refuse(pod, why))?
        {
            let account = self.account(pod.namespace(), &name).await;
            let account = account.ok_or_else(|| {
                let why = format!(
                    "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                    pod.namespace()
                );
                refuse(pod, why)
            })?;
            let suffix = crate::registry::meta::generate_name("", |n| rand::random_range(0..n));
            service_account::mount(pod, &account, &suffix);
        }
        if self.on("Priority") {
            priority::resolve(pod, &self.all::<PriorityClass>("")).map_err(|why| refuse(pod, why))?;
        }
        if self.on("DefaultTolerationSeconds") {
            default_toleration_seconds::mutate(pod);
        }
        if self.on("RuntimeClass")
            && let Some(name) = runtime_class::name(pod).map(str::to_owned)
        {
            let class = self.one::<RuntimeClass>("", &name);
            let class =
                class.ok_or_else(|| refuse(pod, format!("pod rejected: RuntimeClass {name:?} not found")))?;
            runtime_class::apply(pod, &class).map_err(|why| refuse(pod, why))?;
        }
        Ok(())
    }

    /// A service account. That of the name `default` comes a moment after its namespace, and is waited for.
    async fn account(&self, namespace: &str, name: &str) -> Option<ServiceAccount> {
        let attempts = if name == "default" { ACCOUNT_ATTEMPTS } else { 1 };
        for _ in 0..attempts {
            if let Some(account) = self.one(namespace, name) {
                return Some(account);
            }
            tokio::time::sleep(ACCOUNT_PAUSE).await;
        }
        self.one(namespace, name)
    }

    /// What the client should be warned of before an object is created.
    pub fn warnings(&self, kind: &Kind, object: &Object) -> Vec<String> {
        let why = self.beyond(pod_security::Mode::Warn, kind, object, None);
        why.map(|why| format!("would violate{why}")).into_iter().collect()
    }

    /// What pods have beyond the level of their namespace. Whatever makes pods is warned of, pods alone are refused.
    fn beyond(
        &self,
        mode: pod_security::Mode,
        kind: &Kind,
        new: &Object,
        old: Option<&Object>,
    ) -> Option<String> {
        let is_pod = kind.group.is_empty() && kind.kind == "Pod";
        if !self.on("PodSecurity") || mode == pod_security::Mode::Enforce && !is_pod {
            return None;
        }
        if old.is_some_and(|old| old.pointer("/spec") == new.pointer("/spec")) {
            return None;
        }
        if !pod_security::makes_pods(kind.kind) {
            return None;
        }
        let namespace = self.one::<Namespace>("", new.namespace())?;
        let (level, version) = pod_security::policy(&namespace.metadata.labels.unwrap_or_default(), mode);
        if level == pod_security::Level::Privileged {
            return None;
        }
        let whole = new.to_value();
        let (metadata, spec) = pod_security::template(kind.kind, &whole)?;
        pod_security::violations(level, &version, metadata, spec)
    }

    /// Refuses what policy does not allow this user.
    ///
    /// # Errors
    /// 403.
    pub fn validate(&self, attributes: &Attributes<'_>) -> Result<(), StatusError> {
        let Attributes { user, kind, subresource, operation, new, old } = *attributes;
        if let Some(node) = user.node()
            && self.on("NodeRestriction")
        {
            node_restriction::decide(node, kind, subresource, operation, new, old)?;
        }
        let Some(new) = new else { return Ok(()) };
        if subresource.is_none()
            && let Some(why) = self.beyond(pod_security::Mode::Enforce, kind, new, old)
        {
            return Err(StatusError::forbidden(kind, shown_name(new), format!("violates{why}")));
        }
        match (kind.group, kind.kind) {
            (rbac::GROUP, _) => rbac::escalation::decide(&self.rbac.now(), user, kind, new, old),
            ("scheduling.k8s.io", "PriorityClass") if self.on("Priority") => {
                priority::validate_class(kind, new, &self.all::<PriorityClass>(""))
            }
            ("", "Pod")
                if operation == Operation::Create && subresource.is_none() && self.on("LimitRanger") =>
            {
                let problems = limit_ranger::pod_problems(new, &self.all(new.namespace()));
                refuse_all(kind, new, &problems)
            }
            ("", "PersistentVolumeClaim") if subresource.is_none() && self.on("LimitRanger") => {
                refuse_all(kind, new, &limit_ranger::claim_problems(new, &self.all(new.namespace())))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses an object for every reason at once.
fn refuse_all(kind: &Kind, object: &Object, problems: &[String]) -> Result<(), StatusError> {
    let why = match problems {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Err(StatusError::forbidden(kind, shown_name(object), why))
}

/// The name of an object in messages; one that is generated later goes by its prefix.
fn shown_name(object: &Object) -> &str {
    if object.name().is_empty() { object.str_at("/metadata/generateName") } else { object.name() }
}
