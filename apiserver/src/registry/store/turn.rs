//! One object, changed until nobody else wrote in between.

use api::status::StatusError;
use api::{Kind, Object, meta as object_meta};
use bytes::Bytes;

use super::{MAX_RACES, Registry, Target, Written};
use crate::registry::convert;
use crate::registry::errors::from_etcd;
use crate::storage::etcd::{Op, Outcome, Write};
use crate::storage::{encoding, layout};

/// An object as an update finds it.
#[derive(Clone)]
struct Present {
    object: Object,
    /// As it is stored, for telling whether anything changed.
    stored: Bytes,
    revision: i64,
    /// Read from etcd just now, rather than from a copy that may be a moment behind.
    live: bool,
}

/// What an update makes of an object.
pub(super) enum Decision {
    Put(Object),
    Remove,
    Keep,
}

/// A change in progress: what is there now is looked at with [`Turn::object`], and what is to become of it is told to
/// [`Registry::conclude`], again and again until that has an answer.
pub(super) struct Turn<'a> {
    target: Target<'a>,
    kind: &'static Kind,
    key: String,
    dry_run: bool,
    present: Present,
    races: usize,
}

impl Turn<'_> {
    /// The object as it is stored, as far as is known.
    pub(super) fn object(&self) -> &Object {
        &self.present.object
    }
}

enum Attempt {
    Done { stored: Bytes, revision: i64 },
    Again(Option<Present>),
}

impl Present {
    fn live(value: &[u8], revision: i64) -> Result<Self, StatusError> {
        let mut object = Object::parse(value).map_err(StatusError::internal)?;
        let stored = encoding::encode(&object);
        object.set_resource_version(&revision.to_string());
        Ok(Self { object, stored, revision, live: true })
    }
}

impl Registry {
    /// Begins to change an object.
    ///
    /// # Errors
    /// 404 when it does not exist.
    pub(super) async fn begin<'a>(&self, target: Target<'a>, dry_run: bool) -> Result<Turn<'a>, StatusError> {
        let kind = layout::storage_kind(target.kind);
        let key = self.key(kind, target.namespace, target.name);
        let present = self.present(target, &key).await?;
        Ok(Turn { target, kind, key, dry_run, present, races: 0 })
    }

    /// Carries a decision out; nothing when somebody else wrote in between and it must be made anew. A decision on a
    /// copy that may be behind is final only when it was a write; a refusal or a no-op is decided again on what etcd
    /// holds.
    ///
    /// # Errors
    /// The decision's own refusal; 404 when the object went away, 409 after too many races.
    pub(super) async fn conclude(
        &self,
        turn: &mut Turn<'_>,
        decision: Result<Decision, StatusError>,
    ) -> Result<Option<Written>, StatusError> {
        let (target, present) = (turn.target, &turn.present);
        let final_already = match &decision {
            Ok(Decision::Put(new)) => encoding::encode(new) == present.stored,
            Ok(Decision::Keep) | Err(_) => true,
            Ok(Decision::Remove) => false,
        };
        if final_already && !present.live {
            let live = self.live(target, &turn.key).await?;
            if live.revision != present.revision {
                return turn.again(live);
            }
        }
        let (op, json, new) = match decision? {
            Decision::Put(new) if !final_already => (Op::Put(encoding::encode(&new)), None, Some(new)),
            Decision::Put(_) | Decision::Keep => {
                return Ok(Some(done(target.kind, &present.stored, present.revision, false)));
            }
            Decision::Remove => (Op::Delete, Some(present.stored.clone()), None),
        };
        match Box::pin(self.write(turn.kind, &turn.key, present, op, new, turn.dry_run)).await? {
            Attempt::Done { stored, revision } => {
                let deleted = json.is_some();
                Ok(Some(done(target.kind, json.as_ref().unwrap_or(&stored), revision, deleted)))
            }
            Attempt::Again(Some(now)) => turn.again(now),
            Attempt::Again(None) => Err(StatusError::not_found(target.kind, target.name)),
        }
    }

    /// Changes an object by a decision that needs nothing but the object.
    pub(super) async fn guaranteed_update(
        &self,
        target: Target<'_>,
        dry_run: bool,
        mut decide: impl FnMut(&Object) -> Result<Decision, StatusError>,
    ) -> Result<Written, StatusError> {
        let mut turn = self.begin(target, dry_run).await?;
        loop {
            let decision = decide(turn.object());
            if let Some(written) = self.conclude(&mut turn, decision).await? {
                return Ok(written);
            }
        }
    }

    async fn write(
        &self,
        kind: &'static Kind,
        key: &str,
        present: &Present,
        op: Op,
        new: Option<Object>,
        dry_run: bool,
    ) -> Result<Attempt, StatusError> {
        let original = new.clone();
        let mut new = new;
        let claims = match &mut new {
            Some(new) => self.claims(kind, new, Some(&present.object))?,
            None => self.released(kind, &present.object)?,
        };
        let mut account = match &new {
            Some(_) if grows(kind) => self.account(kind, present.object.namespace()).await,
            _ => None,
        };
        let beside = match (&account, &new) {
            (Some(account), Some(new)) => account.charges(self, kind, new, Some(&present.object))?,
            _ => Vec::new(),
        };
        let op = match &new {
            Some(new) => Op::Put(encoding::encode(new)),
            None => op,
        };
        let stored = match &op {
            Op::Put(value) => value.clone(),
            Op::Delete => Bytes::new(),
        };
        if dry_run {
            return Ok(Attempt::Done { stored, revision: present.revision });
        }
        let write = Write {
            key: key.to_owned(),
            expect: present.revision,
            lease: if matches!(op, Op::Put(_)) { self.event_lease.lease(&self.etcd, kind).await? } else { 0 },
            op,
            take: self.claim_keys(&claims),
            give: claims.give.iter().map(|key| self.claim_key(key)).collect(),
            beside,
        };
        match self.commit(&write, kind).await? {
            Outcome::Committed(revision) => {
                self.settle(&write);
                if let Some(account) = &mut account {
                    account.settle(write.beside, revision)?;
                }
                Ok(Attempt::Done { stored, revision })
            }
            Outcome::Changed(now) => {
                Ok(Attempt::Again(now.map(|v| Present::live(&v.value, v.version)).transpose()?))
            }
            Outcome::Taken(keys) => {
                if let Some(original) = &original {
                    self.contested(kind, original, &claims, &keys)?;
                }
                Ok(Attempt::Again(Some(present.clone())))
            }
            Outcome::Overtaken => {
                if let Some(account) = &mut account {
                    account.reread(self, &write.beside).await?;
                }
                Ok(Attempt::Again(Some(present.clone())))
            }
        }
    }

    async fn present(&self, target: Target<'_>, key: &str) -> Result<Present, StatusError> {
        let cached = self.hub.cache(target.kind).get(&object_meta::key_of(target.namespace, target.name));
        match cached {
            Some(entry) => {
                let object = Object::parse(&entry.json).map_err(StatusError::internal)?;
                Ok(Present {
                    stored: encoding::encode(&object),
                    revision: entry.revision,
                    object,
                    live: false,
                })
            }
            None => self.live(target, key).await,
        }
    }

    async fn live(&self, target: Target<'_>, key: &str) -> Result<Present, StatusError> {
        match self.etcd.get(key).await.map_err(|e| from_etcd(&e))? {
            Some(found) => Present::live(&found.value, found.version),
            None => Err(StatusError::not_found(target.kind, target.name)),
        }
    }
}

impl Turn<'_> {
    fn again(&mut self, now: Present) -> Result<Option<Written>, StatusError> {
        self.present = now;
        self.races += 1;
        if self.races < MAX_RACES {
            Ok(None)
        } else {
            Err(StatusError::stale(self.target.kind, self.target.name))
        }
    }
}

/// Whether a change may take more of a quota than the object took before.
fn grows(kind: &Kind) -> bool {
    kind.group.is_empty() && matches!(kind.kind, "Service" | "PersistentVolumeClaim")
}

fn done(kind: &'static Kind, stored: &Bytes, revision: i64, deleted: bool) -> Written {
    let json = encoding::stamp(stored, revision).unwrap_or_else(|| stored.clone());
    Written { json: convert::json_from_stored(kind, &json), deleted, created: false, warnings: Vec::new() }
}
