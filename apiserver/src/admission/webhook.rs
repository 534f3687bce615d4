//! Mutating and validating admission webhooks: who is asked about a request, in which order, and what comes of it.
//!
//! Configurations are read from the copy of the store, so that one written through this server counts from the next
//! request on. A server without any pays a look at two empty maps for each write.

mod call;
mod hook;
mod review;
mod trust;

use std::collections::BTreeSet;
use std::sync::Arc;

use api::status::StatusError;
use api::{Kind, Object};
use serde_json::{Value, json};

use super::cel::Scope;
use super::intent::{Change, Intent};
use super::matching::Surroundings;
use super::notes;
use crate::reach::Reach;
use crate::registry::{convert, strategies};
use crate::storage::Hub;
use crate::storage::layout::storage_kind;
use hook::{Compiled, Hook};
use review::Answer;

pub use hook::Compiled as CompiledObjects;

const GROUP: &str = "admissionregistration.k8s.io";

/// All webhooks. One for the server.
pub struct Webhooks {
    surroundings: Arc<Surroundings>,
    reach: Arc<Reach>,
    mutating: Compiled<[Hook]>,
    validating: Compiled<[Hook]>,
}

/// An object as one webhook knows it.
struct Shown {
    kind: &'static Kind,
    new: Option<Value>,
    old: Option<Value>,
}

impl Webhooks {
    /// The webhooks that the copies name.
    pub fn new(surroundings: Arc<Surroundings>, reach: Arc<Reach>) -> Self {
        let compiled =
            |kind| Compiled::new(Kind::find(GROUP, kind).expect("the configurations are in the table"));
        Self {
            surroundings,
            reach,
            mutating: compiled("MutatingWebhookConfiguration"),
            validating: compiled("ValidatingWebhookConfiguration"),
        }
    }

    fn hub(&self) -> &Hub {
        &self.surroundings.hub
    }

    /// Whether anybody wants to change objects.
    pub fn mutate_nothing(&self) -> bool {
        self.mutating.is_empty(self.hub())
    }

    /// Whether anybody wants to refuse objects.
    pub fn validate_nothing(&self) -> bool {
        self.validating.is_empty(self.hub())
    }

    /// Lets every mutating webhook that is to be asked change an object, one after the other. `again` runs the
    /// server's own plugins on what came of it, after which the webhooks that want to be asked again are.
    ///
    /// # Errors
    /// The refusal of a webhook; 500 for one that fails and may not be left out.
    pub async fn mutate(
        &self,
        intent: &Intent<'_>,
        object: &mut Object,
        old: Option<&Object>,
        again: impl AsyncFnOnce(&mut Object) -> Result<(), StatusError>,
    ) -> Result<(), StatusError> {
        let all = self.mutating.all(self.hub(), Hook::of_configuration);
        let hooks: Vec<&Hook> = all.iter().flat_map(|hooks| hooks.iter()).collect();
        let (mut earlier, mut reinvoked) = (Vec::new(), BTreeSet::new());
        for (index, hook) in hooks.iter().enumerate() {
            let changed = match self.ask_to_mutate(hook, (0, index), intent, object, old).await? {
                None => continue,
                Some(changed) => changed,
            };
            if changed {
                reinvoked.extend(earlier.iter().copied());
            }
            if hook.reinvoked {
                earlier.push(index);
            }
        }
        if hooks.is_empty() {
            return Ok(());
        }
        let before = object.clone();
        again(object).await?;
        if *object != before {
            reinvoked.extend(earlier);
        }
        for index in reinvoked {
            self.ask_to_mutate(hooks[index], (1, index), intent, object, old).await?;
        }
        Ok(())
    }

    /// Nothing when the webhook is not to be asked, else whether it changed the object.
    async fn ask_to_mutate(
        &self,
        hook: &Hook,
        (round, index): (usize, usize),
        intent: &Intent<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<Option<bool>, StatusError> {
        let change = Change { new: Some(object), old };
        let Some(shown) = self.shown(hook, intent, change)? else { return Ok(None) };
        let answer = match self.ask(hook, intent, &shown, true).await? {
            None => return Ok(Some(false)),
            Some(answer) => answer,
        };
        let key = |what: &str| format!("{what}.webhook.admission.k8s.io/round_{round}_index_{index}");
        let changed = match (&answer.patch, shown.new) {
            (Some(patch), Some(new)) => {
                let patched = review::patched(&new, patch)
                    .and_then(|v| Object::new(v).map_err(|e| e.to_string()))
                    .map_err(StatusError::internal)?;
                let patched = convert_back(intent, shown.kind, patched, object)?;
                let changed = patched != *object;
                *object = patched;
                changed
            }
            _ => false,
        };
        let who = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
        notes::annotate(key("mutation"), who.to_string());
        if let Some(patch) = answer.patch.filter(|_| changed) {
            let what = json!({"configuration": hook.configuration, "webhook": hook.name,
                "patch": patch, "patchType": "JSONPatch"});
            notes::annotate(key("patch"), what.to_string());
        }
        Ok(Some(changed))
    }

    /// Asks every mutating webhook that is to be asked about a deletion, of which there is nothing to change.
    ///
    /// # Errors
    /// As [`Webhooks::mutate`].
    pub async fn consult(&self, intent: &Intent<'_>, change: Change<'_>) -> Result<(), StatusError> {
        for hook in self.mutating.all(self.hub(), Hook::of_configuration).iter().flat_map(|h| h.iter()) {
            if let Some(shown) = self.shown(hook, intent, change)? {
                self.ask(hook, intent, &shown, true).await?;
            }
        }
        Ok(())
    }

    /// Asks every validating webhook that is to be asked, all at once.
    ///
    /// # Errors
    /// The refusal of the first by order; 500 for one that fails and may not be left out.
    pub async fn validate(&self, intent: &Intent<'_>, change: Change<'_>) -> Result<(), StatusError> {
        let all = self.validating.all(self.hub(), Hook::of_configuration);
        let mut questions = Vec::new();
        for hook in all.iter().flat_map(|hooks| hooks.iter()) {
            if let Some(shown) = self.shown(hook, intent, change)? {
                questions.push(async move { self.ask(hook, intent, &shown, false).await });
            }
        }
        for answer in futures::future::join_all(questions).await {
            answer?;
        }
        Ok(())
    }

    /// What a webhook is shown; nothing when it does not want to be asked.
    fn shown(
        &self,
        hook: &Hook,
        intent: &Intent<'_>,
        change: Change<'_>,
    ) -> Result<Option<Shown>, StatusError> {
        let Some(kind) = self.surroundings.matches(&hook.matcher, intent, change)? else { return Ok(None) };
        let show = |object: Option<&Object>| object.map(|o| show(intent, kind, o)).transpose();
        let shown = Shown { kind, new: show(change.new)?, old: show(change.old)? };
        if !hook.conditions.is_empty() {
            let mut scope = Scope::default();
            scope.set_json("object", shown.new.as_ref().unwrap_or(&Value::Null));
            scope.set_json("oldObject", shown.old.as_ref().unwrap_or(&Value::Null));
            scope.set_json("request", &intent.request(kind));
            match hook.conditions.hold(&scope) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(why) if hook.ignores_failure => {
                    tracing::warn!(webhook = hook.name, why, "a webhook is left out, its conditions fail");
                    return Ok(None);
                }
                Err(why) => return Err(intent.forbidden(why)),
            }
        }
        if intent.options.dry_run() && !hook.dry_runs {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(StatusError::bad_request(why));
        }
        Ok(Some(shown))
    }

    /// Asks one webhook; nothing when it fails and may be left out.
    async fn ask(
        &self,
        hook: &Hook,
        intent: &Intent<'_>,
        shown: &Shown,
        mutating: bool,
    ) -> Result<Option<Answer>, StatusError> {
        let uid = uuid::Uuid::new_v4().to_string();
        let (new, old) = (shown.new.as_ref(), shown.old.as_ref());
        let question = review::question(hook.version, &uid, intent.request(shown.kind), new, old);
        let body = hook.caller.ask(&self.reach, question.to_string().into_bytes(), hook.timeout).await;
        let answer = match body.and_then(|body| review::answer(hook.version, &uid, mutating, &body)) {
            Ok(answer) => answer,
            Err(why) => {
                let why = format!("failed calling webhook {:?}: {why}", hook.name);
                if !hook.ignores_failure {
                    return Err(StatusError::internal(why));
                }
                tracing::warn!(webhook = hook.name, configuration = hook.configuration, why, "left out");
                return Ok(None);
            }
        };
        answer.warnings.iter().for_each(notes::warn);
        for (key, value) in &answer.annotations {
            notes::annotate(format!("{}/{key}", hook.name), value.as_str());
        }
        if answer.allowed { Ok(Some(answer)) } else { Err(review::refusal(&hook.name, &answer.result)) }
    }
}

/// Whether the document of a request is the object itself, and not a small one that stands for a change of it.
fn is_whole(intent: &Intent<'_>, kind: &'static Kind) -> bool {
    intent.document_kind(kind) == [kind.group, kind.version, kind.kind]
}

/// An object as a kind has it, complete with defaults.
pub(super) fn show(intent: &Intent<'_>, kind: &'static Kind, object: &Object) -> Result<Value, StatusError> {
    if !is_whole(intent, kind) {
        return Ok(object.to_value());
    }
    let object = strategies::strategy(storage_kind(kind)).defaulted(object.clone())?;
    Ok(convert::from_stored(kind, object).into_value())
}

/// What a webhook made of an object, as the store has it.
fn convert_back(
    intent: &Intent<'_>,
    kind: &'static Kind,
    patched: Object,
    before: &Object,
) -> Result<Object, StatusError> {
    if !is_whole(intent, kind) {
        return Ok(patched);
    }
    let wrong = |e: api::kinds::DecodeError| StatusError::internal(format!("the patched object: {e}"));
    let value = (kind.normalize)(patched.into_value()).map_err(wrong)?;
    let mut patched = convert::to_stored(kind, Object::new(value).map_err(StatusError::internal)?);
    // Whom the object is about is not theirs to say.
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        let own = before.meta().and_then(|m| m.get(field)).cloned();
        match own {
            Some(value) => _ = patched.meta_mut().insert(field.into(), value),
            None if field == "name" => {}
            None => _ = patched.meta_mut().remove(field),
        }
    }
    Ok(patched)
}
