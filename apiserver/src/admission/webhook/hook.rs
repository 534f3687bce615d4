//! One webhook of a configuration: when it is asked, where, and what its silence means.

use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use serde_json::Value;

use super::call::{Caller, Endpoint};
use super::review::V1;
use crate::admission::cel::Conditions;
use crate::admission::matching::Matcher;
use crate::storage::Hub;

/// One webhook.
pub struct Hook {
    /// The name of its configuration.
    pub configuration: String,
    /// Its own name, such as `policy.example.com`.
    pub name: String,
    /// Which requests it wants.
    pub matcher: Matcher,
    /// Which of these.
    pub conditions: Conditions,
    /// Whether a request goes on without it.
    pub ignores_failure: bool,
    /// How long it is waited for.
    pub timeout: Duration,
    /// Whether it may be asked about what will not be done.
    pub dry_runs: bool,
    /// Whether it is asked again when others changed the object after it.
    pub reinvoked: bool,
    /// The version of AdmissionReview that it is sent.
    pub version: &'static str,
    /// How it is asked.
    pub caller: Caller,
}

impl Hook {
    fn read(configuration: &str, value: &Value) -> Self {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let seconds = value.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(10).clamp(1, 30);
        Self {
            configuration: configuration.to_owned(),
            name: text("name").to_owned(),
            matcher: Matcher::read(value, "rules"),
            conditions: Conditions::read(value.get("matchConditions")),
            ignores_failure: text("failurePolicy") == "Ignore",
            timeout: Duration::from_secs(seconds),
            dry_runs: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            reinvoked: text("reinvocationPolicy") == "IfNeeded",
            version: version(value),
            caller: Caller::new(Endpoint::read(value.get("clientConfig").unwrap_or(&Value::Null))),
        }
    }

    /// The webhooks of a configuration, in its order.
    pub fn of_configuration(name: &str, json: &[u8]) -> Arc<[Self]> {
        let value: Value = serde_json::from_slice(json).unwrap_or_default();
        let list = value.get("webhooks").and_then(Value::as_array);
        list.into_iter().flatten().map(|hook| Self::read(name, hook)).collect()
    }
}

/// The first version of its list that is known here.
fn version(hook: &Value) -> &'static str {
    let list = hook.get("admissionReviewVersions").and_then(Value::as_array);
    let known = |v: &Value| match v.as_str() {
        Some("v1") => Some(V1),
        Some("v1beta1") => Some("admission.k8s.io/v1beta1"),
        _ => None,
    };
    list.into_iter().flatten().find_map(known).unwrap_or(V1)
}

/// What was made of the objects of a kind, by name, for as long as they stay as they are.
pub struct Compiled<T: ?Sized> {
    kind: &'static Kind,
    known: std::sync::Mutex<std::collections::BTreeMap<Box<str>, (i64, Arc<T>)>>,
}

impl<T: ?Sized> Compiled<T> {
    /// Nothing is known yet.
    pub fn new(kind: &'static Kind) -> Self {
        Self { kind, known: std::sync::Mutex::default() }
    }

    /// Whether there is no object of the kind, which costs a look at a map.
    pub fn is_empty(&self, hub: &Hub) -> bool {
        hub.cache(self.kind).is_empty()
    }

    /// What was made of all objects, in the order of their names.
    pub fn all(&self, hub: &Hub, compile: impl Fn(&str, &[u8]) -> Arc<T>) -> Vec<Arc<T>> {
        let entries = hub.cache(self.kind).list(&crate::storage::Filter::default(), 0, "").entries;
        let mut known = component::tasks::lock(&self.known);
        let mut all = Vec::with_capacity(entries.len());
        for entry in &entries {
            let found = known.get(&*entry.key).filter(|(revision, _)| *revision == entry.revision);
            let compiled = match found {
                Some((_, compiled)) => compiled.clone(),
                None => {
                    let compiled = compile(entry.name(), &entry.json);
                    known.insert((&*entry.key).into(), (entry.revision, compiled.clone()));
                    compiled
                }
            };
            all.push(compiled);
        }
        if known.len() > entries.len() {
            known.retain(|key, _| entries.iter().any(|entry| *entry.key == **key));
        }
        all
    }
}
