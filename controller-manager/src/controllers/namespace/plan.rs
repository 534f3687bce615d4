//! Decides how a namespace is emptied, and what its conditions say meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Kind;
use api::openapi::api::core::v1::{Namespace, NamespaceCondition};
use api::openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;

/// The finalizer of namespaces that have content to delete.
pub const FINALIZER: &str = "kubernetes";

/// A namespace is not given free earlier than this after its deletion began, so that what was
/// admitted just before is seen and deleted too.
const SETTLE: Duration = Duration::from_secs(1);

/// How long finalizers are taken to need, in seconds.
const HELD: i64 = 15;

/// What is left of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remaining {
    /// How many objects.
    pub count: usize,
    /// How often each finalizer stands on them.
    pub finalizers: BTreeMap<String, usize>,
    /// How long the longest grace period still runs, in seconds.
    pub grace: i64,
}

/// What a pass over all kinds found.
#[derive(Debug, Default)]
pub struct Content {
    /// By qualified resource name, such as `deployments.apps`.
    pub remaining: BTreeMap<String, Remaining>,
    /// What the API server said when something could not be deleted or listed.
    pub errors: Vec<String>,
}

/// The kinds whose objects are deleted in turns: pods first, so that what they use, and what keeps
/// others from reaching them, stays until they have ended.
pub fn turns() -> [Vec<&'static Kind>; 2] {
    Kind::distinct().filter(|kind| kind.namespaced).partition(|kind| is_pod(kind)).into()
}

fn is_pod(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "pods"
}

/// Whether the content of this namespace is to be deleted.
pub fn is_due(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default();
    namespace.metadata.deletion_timestamp.is_some() && finalizers.iter().any(|f| f == FINALIZER)
}

/// How long to wait before an empty namespace may be given free.
pub fn settles_in(namespace: &Namespace, now: Timestamp) -> Option<Duration> {
    let began = namespace.metadata.deletion_timestamp.as_ref()?.0;
    // Deletion times are in whole seconds: the second itself must have passed as well.
    let free = crate::pods::later(began, SETTLE);
    (free > now).then(|| crate::pods::until(now, free))
}

impl Content {
    /// Whether nothing is left and nothing went wrong.
    pub fn is_gone(&self) -> bool {
        self.remaining.values().all(|r| r.count == 0) && self.errors.is_empty()
    }

    /// When to look again, if no pod's end gives cause before: half-way through the longest grace
    /// period, or when somebody may have removed a finalizer.
    pub fn estimate(&self) -> Duration {
        let held = self.remaining.values().any(|r| !r.finalizers.is_empty());
        let patience = if held { HELD } else { 0 };
        let grace = self.remaining.values().map(|r| r.grace).max().unwrap_or(0).max(patience);
        Duration::from_secs(u64::try_from(grace / 2 + 1).unwrap_or(1)).min(Duration::from_secs(15))
    }

    /// What the conditions say.
    pub fn conditions(
        &self,
        present: Option<&Vec<NamespaceCondition>>,
        now: Timestamp,
    ) -> Vec<NamespaceCondition> {
        let mut conditions = present.cloned();
        let mut set = |type_: &str, trouble: Option<(&str, String)>, fine: (&str, &str)| {
            let status = if trouble.is_some() { "True" } else { "False" };
            let (reason, message) = trouble.unwrap_or((fine.0, fine.1.to_owned()));
            let known = api::conditions::find(&conditions, type_);
            let since = known.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
            let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
            let condition = NamespaceCondition {
                type_: type_.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_transition_time: Some(since.unwrap_or(Time(now))),
            };
            api::conditions::set(&mut conditions, condition);
        };
        let fine = ("ResourcesDiscovered", "All resources successfully discovered");
        set("NamespaceDeletionDiscoveryFailure", None, fine);
        let fine = ("ParsedGroupVersions", "All legacy kube types successfully parsed");
        set("NamespaceDeletionGroupVersionParsingFailure", None, fine);
        let fine = ("ContentDeleted", "All content successfully deleted, may be waiting on finalization");
        let failed = (!self.errors.is_empty()).then(|| {
            let count = self.errors.len();
            let message =
                format!("Failed to delete all resource types, {count} remaining: {}", self.errors.join(", "));
            ("ContentDeletionFailed", message)
        });
        set("NamespaceDeletionContentFailure", failed, fine);
        let fine = ("ContentRemoved", "All content successfully removed");
        set("NamespaceContentRemaining", self.left().map(|m| ("SomeResourcesRemain", m)), fine);
        let fine = ("ContentHasNoFinalizers", "All content-preserving finalizers finished");
        set("NamespaceFinalizersRemaining", self.held().map(|m| ("SomeFinalizersRemain", m)), fine);
        conditions.unwrap_or_default()
    }

    fn left(&self) -> Option<String> {
        let left = self.remaining.iter().filter(|(_, r)| r.count > 0);
        let words: Vec<_> =
            left.map(|(name, r)| format!("{name} has {} resource instances", r.count)).collect();
        (!words.is_empty()).then(|| format!("Some resources are remaining: {}", words.join(", ")))
    }

    fn held(&self) -> Option<String> {
        let mut all = BTreeMap::<&str, usize>::new();
        for (finalizer, count) in self.remaining.values().flat_map(|r| &r.finalizers) {
            *all.entry(finalizer).or_default() += count;
        }
        let words: Vec<_> =
            all.iter().map(|(f, count)| format!("{f} in {count} resource instances")).collect();
        (!words.is_empty())
            .then(|| format!("Some content in the namespace has finalizers remaining: {}", words.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;

    #[test]
    fn pods_go_first() {
        let [first, then] = turns();
        assert_eq!(first.iter().map(|k| k.plural).collect::<Vec<_>>(), ["pods"]);
        assert!(then.iter().any(|k| k.plural == "secrets") && then.iter().all(|k| k.namespaced));
    }

    #[test]
    fn conditions_name_what_remains_and_what_holds_it() {
        let mut content = Content::default();
        assert!(content.is_gone());
        let pods = Remaining { count: 2, finalizers: [("x/y".into(), 1)].into(), grace: 8 };
        content.remaining.insert("pods".into(), pods);
        content.errors.push("no".into());
        let conditions = content.conditions(None, at(5));
        let find = |type_: &str| conditions.iter().find(|c| c.type_ == type_).unwrap();
        let text = |type_: &str| (find(type_).status.clone(), find(type_).message.clone().unwrap());
        let (status, message) = text("NamespaceContentRemaining");
        assert_eq!(
            (&*status, &*message),
            ("True", "Some resources are remaining: pods has 2 resource instances")
        );
        let (_, message) = text("NamespaceFinalizersRemaining");
        assert_eq!(
            message,
            "Some content in the namespace has finalizers remaining: x/y in 1 resource instances"
        );
        let (_, message) = text("NamespaceDeletionContentFailure");
        assert_eq!(message, "Failed to delete all resource types, 1 remaining: no");
        assert_eq!(text("NamespaceDeletionDiscoveryFailure").0, "False");
        assert_eq!(content.estimate(), Duration::from_secs(8));

        let later = Content::default().conditions(Some(&conditions), at(9));
        let find = |type_: &str| later.iter().find(|c| c.type_ == type_).unwrap();
        let since = |type_: &str| find(type_).last_transition_time.as_ref().unwrap().0;
        assert_eq!(since("NamespaceContentRemaining"), at(9));
        assert_eq!(since("NamespaceDeletionDiscoveryFailure"), at(5), "unchanged since then");
        assert_eq!(Content::default().conditions(Some(&later), at(99)), later, "nothing to write");
    }
}
