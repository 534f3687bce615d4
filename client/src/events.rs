//! The event recorder: tells users what a component did, without ever holding the component up.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::Typed;
use api::meta::MetaExt;
use component::clock::Clock;
use component::tasks::{Spawner, lock};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api_handle::Patch;
use crate::channel::Client;
use crate::error::Error;

/// How many events may wait to be sent; more are dropped, and the drop is logged.
const QUEUE: usize = 1000;
/// How many different events are remembered to be counted up rather than repeated.
const REMEMBERED: usize = 4096;
/// For how long events are still written after the recorder's owner was asked to finish.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// For how long a repeated event counts up the earlier one.
const AGGREGATE_FOR: Duration = Duration::from_secs(600);

/// The two types of events that users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something happened as it should.
    Normal,
    /// Something needs attention.
    Warning,
}

impl EventType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Occurrence {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    field_path: String,
    type_: EventType,
    reason: String,
    message: String,
}

struct Notice {
    regarding: ObjectReference,
    occurrence: Occurrence,
    /// What it says instead, when it stands for several that differ in their message.
    combined: Option<String>,
}

/// How many events about one object are written at once; then one for each [`REFILL`], as upstream's spam
/// filter has it.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// How many objects the spam filter remembers.
const WATCHED: usize = 4096;
/// Events about one object that differ in their message alone are told apart up to this number, and counted
/// as one from then on.
const SIMILAR: usize = 10;

/// What is left of one object's allowance.
struct Allowance {
    left: f64,
    at: Instant,
}

/// Kind, namespace, name and uid of what an event is about.
type ObjectKey = (String, String, String, String);

/// Records events on behalf of one component. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Notice>,
    allowances: Arc<Mutex<HashMap<ObjectKey, Allowance>>>,
}

/// Whether one more event about an object is written.
fn allowed(allowances: &mut HashMap<ObjectKey, Allowance>, object: ObjectKey, now: Instant) -> bool {
    let refilled = |a: &Allowance| {
        let gained = now.duration_since(a.at).as_secs_f64() / REFILL.as_secs_f64();
        (a.left + gained).min(BURST)
    };
    if allowances.len() >= WATCHED && !allowances.contains_key(&object) {
        allowances.retain(|_, a| refilled(a) < BURST);
        if allowances.len() >= WATCHED {
            allowances.clear();
        }
    }
    let allowance = allowances.entry(object).or_insert(Allowance { left: BURST, at: now });
    let left = refilled(allowance);
    allowance.at = now;
    allowance.left = if left >= 1.0 { left - 1.0 } else { left };
    left >= 1.0
}

impl Recorder {
    /// A recorder that writes for as long as the owner of `tasks` lives. `host` may be empty.
    pub fn new(client: &Client, component: &str, host: &str, clock: Clock, tasks: &Spawner) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = Writer {
            client: client.clone(),
            source: EventSource {
                component: Some(component.to_owned()),
                host: (!host.is_empty()).then(|| host.to_owned()),
            },
            clock,
            known: HashMap::new(),
            similar: HashMap::new(),
        };
        let token = tasks.token();
        tasks.spawn("event recorder", async move {
            let deadline = async {
                token.cancelled().await;
                tokio::time::sleep(LAST_WORDS).await;
            };
            tokio::select! {
                () = writer.run(receiver, token.clone()) => {}
                () = deadline => tracing::debug!("events were left unwritten"),
            }
        });
        Self { sender, allowances: Arc::default() }
    }

    /// Records an event about an object. Returns at once.
    pub fn event<K: Typed>(&self, regarding: &K, type_: EventType, reason: &str, message: impl Into<String>) {
        self.event_ref(reference(regarding), type_, reason, message);
    }

    /// Records an event about what a reference names, such as one container of a pod.
    pub fn event_ref(
        &self,
        regarding: ObjectReference,
        type_: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let mut message = message.into();
        if let Some((at, _)) = message.char_indices().find(|(i, _)| *i >= 1020) {
            message.truncate(at);
        }
        let occurrence = Occurrence {
            kind: text(&regarding.kind),
            namespace: text(&regarding.namespace),
            name: text(&regarding.name),
            uid: text(&regarding.uid),
            field_path: text(&regarding.field_path),
            type_,
            reason: reason.to_owned(),
            message,
        };
        let text = |text: &String| text.clone();
        let Occurrence { kind, namespace, name, uid, .. } = &occurrence;
        let object = (text(kind), text(namespace), text(name), text(uid));
        if !allowed(&mut lock(&self.allowances), object, Instant::now()) {
            tracing::debug!(%kind, %name, reason, "event left out: too many about this object");
            return;
        }
        tracing::debug!(kind = %occurrence.kind, name = %occurrence.name, reason, message = %occurrence.message, "event");
        if self.sender.try_send(Notice { regarding, occurrence, combined: None }).is_err() {
            tracing::warn!(reason, "event dropped: too many wait to be sent");
        }
    }
}

/// A reference to an object, as events and bindings hold it.
pub fn reference<K: Typed>(object: &K) -> ObjectReference {
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: text(object.namespace()),
        name: text(object.name()),
        uid: text(object.uid()),
        resource_version: text(object.resource_version()),
        field_path: None,
    }
}

struct Known {
    event: String,
    count: i32,
    at: Instant,
}

struct Writer {
    client: Client,
    source: EventSource,
    clock: Clock,
    known: HashMap<Occurrence, Known>,
    /// By all but the message: the messages that were told apart, and when there was one last.
    similar: HashMap<Occurrence, (HashSet<String>, Instant)>,
}

impl Writer {
    /// An event that is one of many of its like becomes one with them.
    fn aggregated(&mut self, mut notice: Notice, now: Instant) -> Notice {
        if self.similar.len() >= REMEMBERED {
            self.similar.retain(|_, (_, last)| now.duration_since(*last) < AGGREGATE_FOR);
            if self.similar.len() >= REMEMBERED {
                self.similar.clear();
            }
        }
        let like = Occurrence { message: String::new(), ..notice.occurrence.clone() };
        let (messages, last) = self.similar.entry(like).or_insert_with(|| (HashSet::new(), now));
        if now.duration_since(*last) >= AGGREGATE_FOR {
            messages.clear();
        }
        *last = now;
        if messages.len() < SIMILAR || messages.contains(&notice.occurrence.message) {
            messages.insert(notice.occurrence.message.clone());
        } else {
            let message = std::mem::take(&mut notice.occurrence.message);
            notice.combined = Some(format!("(combined from similar events): {message}"));
        }
        notice
    }

    /// Writes until nobody records any more; once `token` is cancelled, only what is waiting.
    async fn run(mut self, mut notices: mpsc::Receiver<Notice>, token: CancellationToken) {
        loop {
            let received = tokio::select! {
                biased;
                notice = notices.recv() => notice,
                () = token.cancelled() => notices.try_recv().ok(),
            };
            let Some(notice) = received else { return };
            let notice = self.aggregated(notice, Instant::now());
            for attempt in 0..5u32 {
                match self.write(&notice).await {
                    Ok(()) => break,
                    Err(error) if error.is_retryable() => {
                        tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
                    }
                    Err(error) => {
                        // A namespace that is going away takes no events; that is nobody's fault.
                        tracing::debug!(reason = %notice.occurrence.reason, %error, "event not written");
                        break;
                    }
                }
            }
        }
    }

    async fn write(&mut self, notice: &Notice) -> Result<(), Error> {
        let namespace = match notice.occurrence.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let events = self.client.namespaced::<Event>(namespace);
        if let Some(known) = self.known.get_mut(&notice.occurrence)
            && known.at.elapsed() < AGGREGATE_FOR
        {
            let mut patch = json!({"count": known.count + 1, "lastTimestamp": self.clock.time()});
            if let Some(message) = &notice.combined {
                patch["message"] = message.as_str().into();
            }
            match events.patch(&known.event, &Patch::Merge(patch)).await {
                Ok(_) => {
                    known.count += 1;
                    known.at = Instant::now();
                    return Ok(());
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let event = events.create(&self.event(notice, namespace)).await?;
        if self.known.len() >= REMEMBERED {
            self.known.retain(|_, k| k.at.elapsed() < AGGREGATE_FOR);
            if self.known.len() >= REMEMBERED {
                self.known.clear();
            }
        }
        let known = Known { event: event.name().to_owned(), count: 1, at: Instant::now() };
        self.known.insert(notice.occurrence.clone(), known);
        Ok(())
    }

    fn event(&self, notice: &Notice, namespace: &str) -> Event {
        let now = self.clock.time();
        let o = &notice.occurrence;
        // Unique by time, as upstream names its events.
        let name = format!("{}.{:x}", o.name, self.clock.now().as_nanosecond());
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: notice.regarding.clone(),
            type_: Some(o.type_.as_str().into()),
            reason: Some(o.reason.clone()),
            message: Some(notice.combined.clone().unwrap_or_else(|| o.message.clone())),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            source: Some(self.source.clone()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> ObjectKey {
        ("Pod".into(), "default".into(), name.into(), "uid".into())
    }

    #[tokio::test(start_paused = true)]
    async fn one_object_is_written_about_in_a_burst_and_then_rarely() {
        let mut allowances = HashMap::new();
        let mut now = Instant::now();
        let written = (0..100).filter(|_| allowed(&mut allowances, object("a"), now)).count();
        assert_eq!(written, 25);
        assert!(allowed(&mut allowances, object("b"), now));
        now += REFILL;
        assert!(allowed(&mut allowances, object("a"), now));
        assert!(!allowed(&mut allowances, object("a"), now));
    }

    #[tokio::test(start_paused = true)]
    async fn the_filter_remembers_no_more_than_it_may() {
        let mut allowances = HashMap::new();
        let now = Instant::now();
        for i in 0..3 * WATCHED {
            assert!(allowed(&mut allowances, object(&i.to_string()), now));
        }
        assert!(allowances.len() <= WATCHED);
    }
}
