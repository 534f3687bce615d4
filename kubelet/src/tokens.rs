//! The tokens of the pods' service accounts: asked of the API server when a volume needs one, kept, and asked for again
//! well before they expire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, Error};
use component::clock::Clock;
use component::tasks::{Spawner, lock};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use serde_json::json;
use tokio::sync::Notify;

/// No token is used for longer than this, however long it is valid.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// What a projection that says nothing asks for.
const DEFAULT_SECONDS: i64 = 3600;
/// The pause after a token could not be had again.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    pod: String,
    audience: String,
    seconds: i64,
}

struct Held {
    token: String,
    expires: Timestamp,
    /// From then on it is asked for again.
    renew: Timestamp,
    /// When its pod is woken for that; later than `renew` after an attempt that failed.
    wake: Timestamp,
}

/// Asks for tokens and keeps them.
pub struct Tokens {
    client: Client,
    clock: Clock,
    held: Arc<Mutex<HashMap<Key, Held>>>,
    /// Who is told when a pod's token should be renewed.
    pods: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
    /// A token was added, or a pod went.
    changed: Arc<Notify>,
}

/// When a token that was had now should be asked for again: when four fifths of its time are over.
fn renewal(now: Timestamp, expires: Timestamp) -> Timestamp {
    let lifetime = now.duration_until(expires);
    let after = (lifetime / 5 * 4).min(MAX_AGE).max(SignedDuration::from_secs(1));
    now.saturating_add(after).unwrap_or(expires)
}

impl Tokens {
    /// No tokens yet, and a task that wakes pods when theirs should be renewed.
    pub fn new(client: Client, clock: Clock, tasks: &Spawner) -> Self {
        let tokens =
            Self { client, clock, held: Arc::default(), pods: Arc::default(), changed: Arc::default() };
        let (held, pods, changed) = (tokens.held.clone(), tokens.pods.clone(), tokens.changed.clone());
        let (clock, token) = (tokens.clock.clone(), tasks.token());
        tasks.spawn("token renewal", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = wake(&clock, &held, &pods, &changed) => {}
            }
        });
        tokens
    }

    /// A pod wants to be woken when a token of its should be renewed.
    pub fn refer(&self, uid: &str, wake: &Arc<Notify>) {
        lock(&self.pods).insert(uid.to_owned(), wake.clone());
    }

    /// Forgets a pod and its tokens.
    pub fn forget(&self, uid: &str) {
        lock(&self.pods).remove(uid);
        lock(&self.held).retain(|key, _| key.pod != uid);
    }

    /// A token for a projection of a pod.
    ///
    /// # Errors
    /// When the API server gives none and there is none that is still valid.
    pub async fn get(&self, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<String, Error> {
        let key = Key {
            pod: pod.metadata.uid.clone().unwrap_or_default(),
            audience: source.audience.clone().unwrap_or_default(),
            seconds: source.expiration_seconds.unwrap_or(DEFAULT_SECONDS),
        };
        let now = self.clock.now();
        if let Some(held) = lock(&self.held).get(&key).filter(|held| held.renew > now) {
            return Ok(held.token.clone());
        }
        match self.request(pod, &key).await {
            Ok(made) => {
                let token = made.token.clone();
                lock(&self.held).insert(key, made);
                self.changed.notify_one();
                Ok(token)
            }
            Err(error) => {
                let mut all = lock(&self.held);
                let held = all.get_mut(&key).filter(|held| held.expires > now).ok_or(error)?;
                held.wake = now.saturating_add(RETRY).unwrap_or(held.expires);
                let token = held.token.clone();
                drop(all);
                self.changed.notify_one();
                Ok(token)
            }
        }
    }

    async fn request(&self, pod: &Pod, key: &Key) -> Result<Held, Error> {
        let meta = &pod.metadata;
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let audiences: Vec<_> = Some(&key.audience).filter(|a| !a.is_empty()).into_iter().collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": key.seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid},
            },
        });
        let accounts =
            self.client.namespaced::<ServiceAccount>(meta.namespace.as_deref().unwrap_or_default());
        let answer = accounts.create_subresource(account, "token", &body).await?;
        let decode = |source| Error::Decode { name: account.to_owned(), source };
        let request: TokenRequest = serde_json::from_value(answer).map_err(decode)?;
        let status = request.status.ok_or_else(|| Error::Decode {
            name: account.to_owned(),
            source: serde::de::Error::missing_field("status"),
        })?;
        let expires = status.expiration_timestamp.0;
        let renew = renewal(self.clock.now(), expires);
        Ok(Held { token: status.token, expires, renew, wake: renew })
    }
}

/// Wakes each pod when a token of its should be renewed.
async fn wake(
    clock: &Clock,
    held: &Mutex<HashMap<Key, Held>>,
    pods: &Mutex<HashMap<String, Arc<Notify>>>,
    changed: &Notify,
) {
    loop {
        let next = lock(held).values().map(|held| held.wake).min();
        let pause = next.map(|at| Duration::try_from(clock.now().duration_until(at)).unwrap_or_default());
        let timer = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause + Duration::from_millis(1)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified() => continue,
            () = timer => {}
        }
        let now = clock.now();
        let mut due = Vec::new();
        for (key, held) in lock(held).iter_mut().filter(|(_, held)| held.wake <= now) {
            due.push(key.pod.clone());
            // Until the pod has asked, it is not woken again and again.
            held.wake = now.saturating_add(RETRY).unwrap_or(held.expires);
        }
        let pods = lock(pods);
        for pod in due {
            if let Some(wake) = pods.get(&pod) {
                wake.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_well_before_it_expires() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let after = |seconds: i64| {
            let expires = now + SignedDuration::from_secs(seconds);
            now.duration_until(renewal(now, expires)).as_secs()
        };
        assert_eq!(after(600), 480);
        assert_eq!(after(3607), 2885);
        assert_eq!(after(30 * 86400), 86400);
        assert_eq!(after(-5), 1);
    }
}
