//! Who owns which fields of what is written: `metadata.managedFields` of every object.

use api::apply::{self, DocumentType, Managed, Writer};
use api::{Kind, Object, Subresource};
use serde_json::Value;

use super::WriteOptions;
use crate::custom::rules;
use crate::registry::meta;

const FIELD: &str = "managedFields";

/// How a write comes to its managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracking {
    /// By what differs between before and after.
    Changes,
    /// They are in the new object already.
    Stated,
}

/// What is known of a write.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// The kind that is stored.
    pub kind: &'static Kind,
    pub subresource: Option<Subresource>,
    pub options: &'a WriteOptions,
    pub now: jiff::Timestamp,
}

/// The type of a kind's documents: for a custom kind, what its schema says.
pub(super) fn document_type(kind: &'static Kind) -> DocumentType {
    rules::of(kind).map_or_else(|| DocumentType::of(kind), |rules| rules.document_type().clone())
}

/// Takes the managers out of an object.
pub(super) fn take(object: &mut Object) -> Option<Value> {
    object.as_map_mut().get_mut("metadata")?.as_object_mut()?.remove(FIELD)
}

/// Puts managers into an object.
pub(super) fn put(object: &mut Object, managed: Option<Value>) {
    if let Some(managed) = managed {
        object.meta_mut().insert(FIELD.into(), managed);
    }
}

impl Context<'_> {
    /// Hands a writer to a function, which it borrows from.
    pub(super) fn writing<T>(&self, run: impl FnOnce(&Writer<'_>) -> T) -> T {
        let time = meta::whole_seconds(self.now);
        run(&Writer {
            manager: if self.options.manager.is_empty() { "unknown" } else { &self.options.manager },
            api_version: self.kind.api_version,
            subresource: self.subresource.map_or("", Subresource::path),
            time: &time,
        })
    }

    /// The managers of a new object. `stated` is what the client says about them.
    pub(super) fn created(&self, object: &Object, stated: Option<&Value>) -> Option<Value> {
        let of = document_type(self.kind);
        self.changed(&of, &of.root().empty(), object, Managed::of_request(stated, None))
    }

    /// The managers of a changed object. `present` are those of before; neither object holds its own.
    pub(super) fn updated(
        &self,
        before: &Object,
        after: &Object,
        stated: Option<&Value>,
        present: Option<Value>,
    ) -> Option<Value> {
        // A subresource does not change the managers of the whole.
        let stated = if self.subresource.is_some() { None } else { stated };
        if before == after && (stated.is_none() || stated == present.as_ref()) {
            return present;
        }
        let managed = Managed::of_request(stated, present.as_ref());
        if managed.is_empty() {
            // Nobody manages the object, as its managers were reset: that begins with the next apply.
            return None;
        }
        let of = document_type(self.kind);
        self.changed(&of, &before.to_value(), after, managed)
    }

    fn changed(&self, of: &DocumentType, before: &Value, after: &Object, managed: Managed) -> Option<Value> {
        // The path of the object leaves its status alone, whatever the rules of the kind make of it.
        let ignored: &[&str] =
            if self.subresource.is_none() && self.kind.has(Subresource::Status) { &["status"] } else { &[] };
        let after = after.to_value();
        self.writing(|writer| apply::track(of.root(), before, &after, managed, writer, ignored)).encode()
    }
}

/// The managers after an apply: those of before, times and all, when nothing else changed.
pub(super) fn settled(
    before: &Object,
    after: &Object,
    stated: Option<Value>,
    present: Option<Value>,
) -> Option<Value> {
    let same = |a: &Option<Value>, b: &Option<Value>| {
        let decode = |v: &Option<Value>| v.as_ref().and_then(Managed::decode);
        matches!((decode(a), decode(b)), (Some(a), Some(b)) if a.same_but_times(&b))
    };
    if before == after && same(&stated, &present) { present } else { stated }
}
