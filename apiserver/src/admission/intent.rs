//! A request as webhooks and policies see it: who wants to do what to which object, and under which names the object
//! goes.

use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use api::status::StatusError;
use api::{Kind, Object, Subresource};
use serde_json::{Value, json};

use super::Operation;
use crate::auth::User;
use crate::registry::store::{FieldValidation, WriteOptions};

/// Who wants to do what.
#[derive(Clone, Copy)]
pub struct Intent<'a> {
    /// Who.
    pub user: &'a User,
    /// The kind that the request names.
    pub kind: &'static Kind,
    /// The part of the object.
    pub subresource: Option<Subresource>,
    /// What is done.
    pub operation: Operation,
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// The name; empty while it is not known.
    pub name: &'a str,
    /// With which options.
    pub options: Options<'a>,
}

/// The options of a request.
#[derive(Clone, Copy)]
pub enum Options<'a> {
    /// Of a create, update, patch or apply.
    Write(&'a WriteOptions),
    /// Of a deletion.
    Delete(&'a DeleteOptions),
    /// Of a create whose only option is whether it is rehearsed.
    DryRun(bool),
}

impl Options<'_> {
    /// Whether nothing is to be changed.
    pub fn dry_run(&self) -> bool {
        match self {
            Self::Write(options) => options.dry_run,
            Self::Delete(options) => options.dry_run.iter().flatten().any(|v| v == "All"),
            Self::DryRun(dry_run) => *dry_run,
        }
    }

    /// The document that upstream's webhooks get: `CreateOptions`, `UpdateOptions` or `DeleteOptions`.
    fn document(&self, operation: Operation) -> Value {
        let mut document = match self {
            Self::Delete(options) => {
                let mut document = serde_json::to_value(options).unwrap_or_else(|_| json!({}));
                if let Some(map) = document.as_object_mut() {
                    map.retain(|_, v| !v.is_null());
                }
                document["kind"] = "DeleteOptions".into();
                document
            }
            Self::Write(options) => {
                let mut document = json!({});
                if options.dry_run {
                    document["dryRun"] = json!(["All"]);
                }
                if !options.manager.is_empty() {
                    document["fieldManager"] = options.manager.as_str().into();
                }
                let validation = match options.validation {
                    FieldValidation::Strict => "Strict",
                    FieldValidation::Warn => "Warn",
                    FieldValidation::Ignore => "Ignore",
                };
                document["fieldValidation"] = validation.into();
                document
            }
            Self::DryRun(true) => json!({"dryRun": ["All"]}),
            Self::DryRun(false) => json!({}),
        };
        document["apiVersion"] = "meta.k8s.io/v1".into();
        if !matches!(self, Self::Delete(_)) {
            let kind = if operation == Operation::Update { "UpdateOptions" } else { "CreateOptions" };
            document["kind"] = kind.into();
        }
        document
    }
}

impl Operation {
    /// The name in rules and reviews.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

impl<'a> Intent<'a> {
    /// The same of an object whose name is known by now.
    pub fn named<'b>(&self, name: &'b str) -> Intent<'b>
    where
        'a: 'b,
    {
        Intent { name, ..*self }
    }

    /// The subresource in paths and rules; empty for the object itself.
    pub fn subresource(&self) -> &'static str {
        self.subresource.map_or("", Subresource::path)
    }

    /// Whether the request is about a Namespace.
    pub fn is_namespace(&self) -> bool {
        self.kind.group.is_empty() && self.kind.kind == "Namespace"
    }

    /// The namespace in reviews: that of a Namespace is itself.
    pub fn scope(&self) -> &str {
        if self.is_namespace() { self.name } else { self.namespace }
    }

    /// Whether the request is about what is asked here. Those who could lock themselves out that way are never asked.
    pub fn is_exempt(&self) -> bool {
        self.kind.group == "admissionregistration.k8s.io"
    }

    /// Group, version and kind of the document that the request carries, as `kind` names the resource.
    pub fn document_kind(&self, kind: &'static Kind) -> [&'static str; 3] {
        match self.subresource {
            Some(Subresource::Scale) => ["autoscaling", "v1", "Scale"],
            Some(Subresource::Binding) => ["", "v1", "Binding"],
            Some(Subresource::Eviction) => ["policy", "v1", "Eviction"],
            Some(Subresource::Token) => ["authentication.k8s.io", "v1", "TokenRequest"],
            Some(Subresource::Exec) => ["", "v1", "PodExecOptions"],
            Some(Subresource::Attach) => ["", "v1", "PodAttachOptions"],
            Some(Subresource::PortForward) => ["", "v1", "PodPortForwardOptions"],
            _ => [kind.group, kind.version, kind.kind],
        }
    }

    /// The `request` of an AdmissionReview without its `uid` and objects, which is also what CEL calls `request`. The
    /// resource goes by the name `as_kind`, which differs from the requested one when a rule knows another version.
    pub fn request(&self, as_kind: &'static Kind) -> Value {
        let gvk =
            |[group, version, kind]: [&str; 3]| json!({"group": group, "version": version, "kind": kind});
        let gvr = |k: &Kind| json!({"group": k.group, "version": k.version, "resource": k.plural});
        let mut user = json!({"username": self.user.name});
        if !self.user.uid.is_empty() {
            user["uid"] = self.user.uid.as_str().into();
        }
        if !self.user.groups.is_empty() {
            user["groups"] = json!(self.user.groups);
        }
        if !self.user.extra.is_empty() {
            user["extra"] = json!(self.user.extra);
        }
        let mut request = json!({
            "kind": gvk(self.document_kind(as_kind)),
            "resource": gvr(as_kind),
            "requestKind": gvk(self.document_kind(self.kind)),
            "requestResource": gvr(self.kind),
            "operation": self.operation.name(),
            "userInfo": user,
            "dryRun": self.options.dry_run(),
            "options": self.options.document(self.operation),
        });
        if !self.subresource().is_empty() {
            request["subResource"] = self.subresource().into();
            request["requestSubResource"] = self.subresource().into();
        }
        for (field, value) in [("name", self.name), ("namespace", self.scope())] {
            if !value.is_empty() {
                request[field] = value.into();
            }
        }
        request
    }

    /// 403 for the object of this request.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> StatusError {
        StatusError::forbidden(self.kind, self.name, why)
    }
}

/// The object of a request before and after, as the stored kind has it.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// As it will be; absent for deletions.
    pub new: Option<&'a Object>,
    /// As it is; absent for creations.
    pub old: Option<&'a Object>,
}
