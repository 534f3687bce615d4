//! Which objects of a resource somebody wants to see, and how to find them without looking at the others.

use api::Kind;
use api::selector::{FieldSelector, Selector};

use super::entry::{Entry, Layout};

/// Fields by which objects are indexed, beside namespace and name.
pub const INDEXED: &[&str] = &["spec.nodeName", "involvedObject.uid"];

/// Which objects of a resource somebody wants to see.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this namespace; empty for all.
    pub namespace: String,
    /// Only objects with these labels.
    pub labels: Selector,
    /// Only objects with these fields.
    pub fields: FieldSelector,
}

/// The part of a resource that a filter can let something through of: the smallest that is indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    All,
    /// One namespace.
    Namespace(Box<str>),
    /// One object, by its key.
    Object(Box<str>),
    /// The objects with a value in the indexed field of this position in the layout.
    Field(usize, Box<str>),
}

impl Filter {
    /// Whether an object is wanted.
    pub fn matches(&self, entry: &Entry) -> bool {
        (self.namespace.is_empty() || entry.namespace() == self.namespace)
            && self.labels.matches_with(|key| entry.label(key))
            && (self.fields.terms.is_empty() || self.fields.matches(|name| entry.field(name)))
    }

    /// Whether every object of the namespace is wanted.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.terms.is_empty()
    }

    /// Where to look.
    pub fn scope(&self, kind: &Kind, layout: &Layout) -> Scope {
        let namespace = match self.namespace.as_str() {
            "" => self.fields.required("metadata.namespace").unwrap_or_default(),
            namespace => namespace,
        };
        if let Some(name) = self.fields.required("metadata.name")
            && kind.namespaced != namespace.is_empty()
        {
            return Scope::Object(api::meta::key_of(namespace, name).into());
        }
        for field in INDEXED {
            if let (Some(value), Some(index)) = (self.fields.required(field), layout.field(field))
                && !value.is_empty()
            {
                return Scope::Field(index, value.into());
            }
        }
        if namespace.is_empty() { Scope::All } else { Scope::Namespace(namespace.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: &str, namespace: &str, fields: &str, wanted: &str) {
        let kind = Kind::find("", kind).expect("a kind");
        let fields = FieldSelector::parse(fields).expect("a selector");
        let filter = Filter { namespace: namespace.into(), fields, ..Filter::default() };
        let seen = match filter.scope(kind, &Layout::of(kind)) {
            Scope::All => "all".to_owned(),
            Scope::Namespace(namespace) => format!("namespace {namespace}"),
            Scope::Object(key) => format!("object {key}"),
            Scope::Field(_, value) => format!("field {value}"),
        };
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_filter_looks_at_the_smallest_part() {
        check("Pod", "", "", "all");
        check("Pod", "n", "", "namespace n");
        check("Pod", "", "metadata.namespace=n", "namespace n");
        check("Pod", "n", "metadata.name=a", "object n/a");
        check("Pod", "", "metadata.name=a", "all");
        check("Node", "", "metadata.name=a", "object a");
        check("Pod", "", "spec.nodeName=n1", "field n1");
        check("Pod", "n", "spec.nodeName=n1,status.phase!=Failed", "field n1");
        check("Pod", "n", "spec.nodeName=", "namespace n");
        check("Pod", "n", "spec.nodeName!=n1", "namespace n");
    }
}
