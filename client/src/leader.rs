//! Leader election by Lease: one instance works, the others wait; losing it stops the work and not
//! the process.

use std::time::Duration;

use component::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use rand::RngExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::channel::Client;
use crate::error::Error;

/// Who contends for which Lease, and how patiently.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// This instance; two instances must differ.
    pub identity: String,
    /// How long others wait after the last renewal before they take over.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it steps down; shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// The time between attempts.
    pub retry_period: Duration,
}

/// What an instance knows of the Lease: its holder is taken to live for as long as the record
/// changes by this instance's own clock, so that clocks of different machines need not agree.
#[derive(Clone, Debug, Default)]
struct Observed {
    spec: Option<LeaseSpec>,
    at: Option<Instant>,
}

#[derive(Debug, PartialEq)]
enum Decision {
    Create,
    Renew,
    TakeOver,
    Wait,
}

fn decide(lease: Option<&Lease>, observed: &Observed, me: &str, now: Instant) -> Decision {
    let Some(spec) = lease.map(|l| l.spec.clone().unwrap_or_default()) else { return Decision::Create };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if holder == me {
        return Decision::Renew;
    }
    let duration = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
    let expired = observed.at.is_some_and(|at| now >= at + Duration::from_secs(duration));
    if holder.is_empty() || expired { Decision::TakeOver } else { Decision::Wait }
}

/// Contends for the Lease and runs `work` while this instance leads. The token that `work` is handed
/// is cancelled when leadership is lost or `token` is; it must end soon after. Contends again after
/// a loss; returns after `token` is cancelled and the Lease was given back.
pub async fn lead<F, Fut>(
    client: &Client,
    config: LeaderConfig,
    clock: Clock,
    token: CancellationToken,
    work: F,
) where
    F: Fn(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let elector = Elector { client, config, clock };
    let mut observed = Observed::default();
    while !token.is_cancelled() {
        let acquired = tokio::select! {
            () = token.cancelled() => break,
            acquired = elector.acquire(&mut observed) => acquired,
        };
        tracing::info!(lease = %elector.config.name, identity = %elector.config.identity, "became leader");
        let leading = token.child_token();
        let keep = async {
            elector.renew_until_lost(acquired, &leading).await;
            leading.cancel();
        };
        tokio::join!(keep, async {
            work(leading.clone()).await;
            leading.cancel();
        });
        if token.is_cancelled() {
            elector.release().await;
        } else {
            tracing::warn!(lease = %elector.config.name, "lost leadership, contending again");
            tokio::time::sleep(elector.config.retry_period).await;
        }
    }
}

struct Elector<'a> {
    client: &'a Client,
    config: LeaderConfig,
    clock: Clock,
}

impl Elector<'_> {
    async fn acquire(&self, observed: &mut Observed) -> Lease {
        loop {
            match self.attempt(observed).await {
                Ok(Some(lease)) => return lease,
                Ok(None) => {}
                Err(error) => tracing::debug!(lease = %self.config.name, %error, "could not acquire"),
            }
            // Contenders that began together must not go on together.
            let pause = self.config.retry_period.mul_f64(rand::rng().random_range(1.0..1.2));
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, observed: &mut Observed) -> Result<Option<Lease>, Error> {
        let leases = self.client.namespaced::<Lease>(&self.config.namespace);
        let present = leases.get_opt(&self.config.name).await?;
        let spec = present.as_ref().and_then(|l| l.spec.clone());
        if spec != observed.spec || observed.at.is_none() {
            *observed = Observed { spec, at: Some(Instant::now()) };
        }
        let next = match decide(present.as_ref(), observed, &self.config.identity, Instant::now()) {
            Decision::Wait => return Ok(None),
            Decision::Create => leases.create(&self.lease(None)).await,
            Decision::Renew | Decision::TakeOver => leases.update(&self.lease(present.as_ref())).await,
        };
        match next {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns when the Lease could not be renewed for `renew_deadline`, another holds it, or
    /// `leading` is cancelled.
    async fn renew_until_lost(&self, mut held: Lease, leading: &CancellationToken) {
        let leases = self.client.namespaced::<Lease>(&self.config.namespace);
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = leading.cancelled() => return,
                () = tokio::time::sleep(self.config.retry_period) => {}
            }
            let deadline = renewed + self.config.renew_deadline;
            let began = Instant::now();
            let next = self.lease(Some(&held));
            let attempt = tokio::select! {
                () = leading.cancelled() => return,
                attempt = tokio::time::timeout_at(deadline, leases.update(&next)) => attempt,
            };
            match attempt {
                Ok(Ok(lease)) => {
                    held = lease;
                    renewed = began;
                }
                Ok(Err(error)) if error.is_conflict() || error.is_not_found() => {
                    match leases.get_opt(&self.config.name).await {
                        Ok(Some(lease)) if holder(&lease) == self.config.identity => held = lease,
                        Ok(_) => return,
                        Err(error) => tracing::debug!(%error, "could not read the lease"),
                    }
                }
                Ok(Err(error)) => tracing::debug!(lease = %self.config.name, %error, "could not renew"),
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    async fn release(&self) {
        let leases = self.client.namespaced::<Lease>(&self.config.namespace);
        let give_back = async {
            let mut lease = leases.get(&self.config.name).await?;
            if holder(&lease) == self.config.identity {
                let spec = lease.spec.get_or_insert_default();
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                leases.update(&lease).await?;
            }
            Ok::<_, Error>(())
        };
        match tokio::time::timeout(Duration::from_secs(2), give_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "could not release the lease"),
            Err(_) => tracing::debug!("could not release the lease in time"),
        }
    }

    /// The Lease as this instance would hold it, on top of the present one.
    fn lease(&self, present: Option<&Lease>) -> Lease {
        let now = self.clock.micro_time();
        let before = present.and_then(|l| l.spec.clone()).unwrap_or_default();
        let mine = before.holder_identity.as_deref() == Some(&self.config.identity);
        let transitions = before.lease_transitions.unwrap_or(0) + i32::from(present.is_some() && !mine);
        let spec = LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: i32::try_from(self.config.lease_duration.as_secs()).ok(),
            acquire_time: if mine { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(later(now, before.renew_time)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let metadata = present.map(|l| l.metadata.clone()).unwrap_or_else(|| ObjectMeta {
            name: Some(self.config.name.clone()),
            namespace: Some(self.config.namespace.clone()),
            ..ObjectMeta::default()
        });
        Lease { metadata, spec: Some(spec) }
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default()
}

/// A renewal must change the record even when a clock stands still or goes back.
fn later(now: MicroTime, before: Option<MicroTime>) -> MicroTime {
    let tick = SignedDuration::from_micros(1);
    let least = before.and_then(|b| b.0.checked_add(tick).ok()).unwrap_or(Timestamp::MIN);
    let now_or_least = if now.0 < least && least.duration_since(now.0) < SignedDuration::from_hours(1) {
        least
    } else {
        now.0
    };
    MicroTime(now_or_least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_taken_only_from_nobody_or_the_dead() {
        let seen = Instant::now();
        let observed = Observed { spec: None, at: Some(seen) };
        let after = |s| seen + Duration::from_secs(s);
        assert_eq!(decide(None, &observed, "me", seen), Decision::Create);
        assert_eq!(decide(Some(&lease("me")), &observed, "me", after(99)), Decision::Renew);
        assert_eq!(decide(Some(&lease("")), &observed, "me", seen), Decision::TakeOver);
        assert_eq!(decide(Some(&lease("you")), &observed, "me", after(14)), Decision::Wait);
        assert_eq!(decide(Some(&lease("you")), &observed, "me", after(15)), Decision::TakeOver);
        assert_eq!(decide(Some(&lease("you")), &Observed::default(), "me", after(99)), Decision::Wait);
    }
}
