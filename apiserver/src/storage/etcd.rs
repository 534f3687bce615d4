//! The etcd v3 API as this server uses it: linearizable reads, transactions on a key's revision, leases.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, GetOptions, Identity, KeyValue, KvClient,
    PutOptions, TlsOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use tokio::time::Instant;

use component::tasks::Spawner;

use super::batch::Batcher;
use super::version;

/// How long one attempt may take before etcd counts as unreachable.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How long an operation is tried again before it fails.
const PATIENCE: Duration = Duration::from_secs(15);
/// A range or watch response may be this large.
const MAX_MESSAGE: usize = 512 << 20;

/// Where etcd is and how it is reached.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// URLs of the members.
    pub servers: Vec<String>,
    /// CA, certificate and key; none for plain HTTP.
    pub tls: Option<EtcdTls>,
    /// What every key begins with, such as `/registry`.
    pub prefix: String,
}

/// The files of the TLS client.
#[derive(Clone, Debug)]
pub struct EtcdTls {
    /// CA of the members.
    pub ca: PathBuf,
    /// The client certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What can go wrong with etcd.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EtcdError {
    /// A certificate file cannot be read. Not retryable.
    #[error("could not read {0}: {1}")]
    File(String, String),
    /// The settings make no client. Not retryable.
    #[error("the etcd client cannot be made: {0}")]
    Config(String),
    /// No answer in time; a write may or may not have happened. Retryable.
    #[error("etcd is not available: {0}")]
    Unavailable(String),
    /// The revision is no longer kept. The reader must begin again.
    #[error("the revision has been compacted")]
    Compacted,
    /// The value is larger than etcd accepts.
    #[error("the object is too large for etcd: {0}")]
    TooLarge(String),
    /// etcd refused.
    #[error("etcd refused the request: {0}")]
    Refused(String),
}

impl EtcdError {
    /// Whether trying again may help.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<etcd_client::Error> for EtcdError {
    fn from(error: etcd_client::Error) -> Self {
        use tonic::Code;
        match error {
            etcd_client::Error::GRpcStatus(status) => match (status.code(), status.message()) {
                (_, text) if text.contains("has been compacted") => Self::Compacted,
                (_, text) if text.contains("request is too large") || text.contains("larger than max") => {
                    Self::TooLarge(text.into())
                }
                (_, text) if text.contains("database space exceeded") => Self::Refused(text.into()),
                (Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied, text)
                | (Code::Unauthenticated | Code::OutOfRange | Code::Unimplemented, text) => {
                    Self::Refused(text.into())
                }
                (code, text) => Self::Unavailable(format!("{code:?}: {text}")),
            },
            error @ (etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_)) => {
                Self::Config(error.to_string())
            }
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// A value with its revision.
#[derive(Clone, Debug)]
pub struct Versioned {
    /// The whole key.
    pub key: String,
    /// As it is stored.
    pub value: Bytes,
    /// Its resource version.
    pub version: i64,
    /// The lease that it is attached to, or 0.
    pub lease: i64,
}

impl From<KeyValue> for Versioned {
    fn from(kv: KeyValue) -> Self {
        let (revision, lease) = (kv.mod_revision(), kv.lease());
        let (key, value) = kv.into_key_value();
        let key = String::from_utf8_lossy(&key).into_owned();
        Self { version: version::of(&key, revision), key, value: value.into(), lease }
    }
}

/// A part of a range.
#[derive(Debug)]
pub struct Page {
    /// In the order of their keys.
    pub items: Vec<Versioned>,
    /// Whether there are more behind the last one.
    pub more: bool,
    /// Keys in the whole range.
    pub count: i64,
    /// The version of everything that the store held when it answered.
    pub version: i64,
}

/// What a transaction does to its key.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes a value.
    Put(Bytes),
    /// Removes the key.
    Delete,
}

/// One transaction: a change of one key that happens only if nobody changed it in between, together with
/// keys that it must be the first to create (claims) and keys that it removes.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: String,
    /// Its resource version before; 0 when it must not exist.
    pub expect: i64,
    /// The change.
    pub op: Op,
    /// Keys that must not exist and are created.
    pub take: Vec<String>,
    /// Keys that are removed.
    pub give: Vec<String>,
    /// Other objects that are written with it.
    pub beside: Vec<Beside>,
    /// The lease that ends the key's life, or 0.
    pub lease: i64,
}

/// An object that is written with another, if nobody changed either in between.
#[derive(Clone, Debug)]
pub struct Beside {
    /// The key.
    pub key: String,
    /// Its resource version before.
    pub expect: i64,
    /// What is written.
    pub value: Bytes,
}

impl Write {
    /// Bytes that the transaction has, about.
    pub(super) fn size(&self) -> usize {
        let value = match &self.op {
            Op::Put(value) => value.len(),
            Op::Delete => 0,
        };
        let beside: usize = self.beside.iter().map(|b| b.value.len() + 2 * b.key.len() + 64).sum();
        value + 2 * self.key.len() + 64 + beside
    }
}

/// How a transaction ended.
#[derive(Debug)]
pub enum Outcome {
    /// Done, with this resource version.
    Committed(i64),
    /// The key is not at the expected version; this is what stands there.
    Changed(Option<Versioned>),
    /// These keys exist already.
    Taken(Vec<String>),
    /// One of the other objects was changed.
    Overtaken,
}

/// A client of etcd. Cheap to clone.
#[derive(Clone)]
pub struct Etcd {
    client: Client,
    kv: KvClient,
    writes: Batcher,
    prefix: String,
}

impl Etcd {
    /// Makes a client, whose writes are carried out by tasks of their own; does not wait for a connection.
    ///
    /// # Errors
    /// Unreadable certificate files and malformed URLs.
    pub async fn connect(config: &EtcdConfig, tasks: Spawner) -> Result<Self, EtcdError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(3))
            .with_keep_alive(Duration::from_secs(30), Duration::from_secs(10))
            .with_keep_alive_while_idle(true);
        if let Some(tls) = &config.tls {
            let read = |path: &PathBuf| {
                std::fs::read(path).map_err(|e| EtcdError::File(path.display().to_string(), e.to_string()))
            };
            options = options.with_tls(
                TlsOptions::new()
                    .ca_certificate(Certificate::from_pem(read(&tls.ca)?))
                    .identity(Identity::from_pem(read(&tls.cert)?, read(&tls.key)?)),
            );
        }
        let client = Client::connect(&config.servers, Some(options)).await?;
        let kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
        let writes = Batcher::new(kv.clone(), tasks);
        Ok(Self { client, kv, writes, prefix: config.prefix.trim_end_matches('/').to_owned() })
    }

    /// What every key begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The version of everything that the store holds, as its leader knows it.
    pub async fn current_version(&self) -> Result<i64, EtcdError> {
        Ok(self.range(&format!("{}/", self.prefix), None, 0, 1, true).await?.version)
    }

    /// One key, linearizable.
    pub async fn get(&self, key: &str) -> Result<Option<Versioned>, EtcdError> {
        Ok(self.range(key, None, 0, 0, false).await?.items.pop())
    }

    /// Keys from `start` up to, but not including, `end` (without it: `start` alone), `limit` of them (0: all), as
    /// they stood at the revision of a version (0: now).
    pub async fn range(
        &self,
        start: &str,
        end: Option<Vec<u8>>,
        version: i64,
        limit: i64,
        keys_only: bool,
    ) -> Result<Page, EtcdError> {
        // No version but 0 means the present, however small it is.
        let revision = if version == 0 { 0 } else { version::revision(version).max(1) };
        let mut options = GetOptions::new().with_limit(limit).with_revision(revision);
        if let Some(end) = end {
            options = options.with_range(end);
        }
        if keys_only {
            options = options.with_keys_only();
        }
        retry(|| async {
            let mut response = self.kv.clone().get(start, Some(options.clone())).await?;
            Ok(Page {
                version: version::end(response.header().map_or(0, |h| h.revision())),
                more: response.more(),
                count: response.count(),
                items: response.take_kvs().into_iter().map(Versioned::from).collect(),
            })
        })
        .await
    }

    /// Carries out a transaction. A connection that breaks in between is survived: the transaction is
    /// tried again, and its own earlier success is recognised.
    pub async fn commit(&self, write: &Write) -> Result<Outcome, EtcdError> {
        let deadline = Instant::now() + PATIENCE;
        let mut uncertain = false;
        loop {
            match self.writes.commit(write.clone()).await {
                Ok(Outcome::Changed(now)) if uncertain && was_ours(write, now.as_ref()) => {
                    let version = match now {
                        Some(now) => now.version,
                        None => self.current_version().await?,
                    };
                    return Ok(Outcome::Committed(version));
                }
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    tracing::debug!(key = write.key, %error, "trying the transaction again");
                    uncertain = true;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return other,
            }
        }
    }

    /// Every change of every key behind a version that stands for its whole revision, in order.
    ///
    /// One stream for the whole store: the revision of its last event is then the revision up to which
    /// every resource is known, without asking etcd for progress (which etcd before 3.4.25 and 3.5.8 answers
    /// ahead of the events).
    pub async fn watch_all(&self, after: i64) -> Result<WatchStream, EtcdError> {
        let from = version::revision(after) + 1;
        let options = WatchOptions::new().with_all_keys().with_start_revision(from).with_progress_notify();
        let mut client = self.client.watch_client().max_decoding_message_size(MAX_MESSAGE);
        attempt(async { Ok(client.watch(vec![0], Some(options)).await?) }).await
    }

    /// A lease that ends after `ttl`, for keys that are to vanish by themselves.
    pub async fn grant(&self, ttl: Duration) -> Result<i64, EtcdError> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        retry(|| async { Ok(self.client.lease_client().grant(seconds, None).await?.id()) }).await
    }

    /// Forgets what stood before the revision of a version.
    pub async fn compact(&self, version: i64) -> Result<(), EtcdError> {
        let revision = version::revision(version);
        match attempt(async { Ok(self.kv.clone().compact(revision, None).await.map(drop)?) }).await {
            // Another server was faster.
            Err(EtcdError::Compacted) => Ok(()),
            other => other,
        }
    }
}

pub(super) fn transaction(write: &Write) -> Txn {
    let expect = version::revision(write.expect);
    let mut when = vec![Compare::mod_revision(write.key.as_str(), CompareOp::Equal, expect)];
    when.extend(write.take.iter().map(|key| Compare::version(key.as_str(), CompareOp::Equal, 0)));
    let same =
        |b: &Beside| Compare::mod_revision(b.key.as_str(), CompareOp::Equal, version::revision(b.expect));
    when.extend(write.beside.iter().map(same));
    let mut then = vec![match &write.op {
        Op::Put(value) => {
            let options = (write.lease != 0).then(|| PutOptions::new().with_lease(write.lease));
            TxnOp::put(write.key.as_str(), value.to_vec(), options)
        }
        Op::Delete => TxnOp::delete(write.key.as_str(), None),
    }];
    then.extend(write.take.iter().map(|key| TxnOp::put(key.as_str(), write.key.as_str(), None)));
    then.extend(write.beside.iter().map(|b| TxnOp::put(b.key.as_str(), b.value.to_vec(), None)));
    then.extend(write.give.iter().map(|key| TxnOp::delete(key.as_str(), None)));
    let mut otherwise = vec![TxnOp::get(write.key.as_str(), None)];
    let keys_only = || Some(GetOptions::new().with_keys_only());
    otherwise.extend(write.take.iter().map(|key| TxnOp::get(key.as_str(), keys_only())));
    Txn::new().when(when).and_then(then).or_else(otherwise)
}

/// Whether the value that stands there is the one that an attempt without an answer has written.
fn was_ours(write: &Write, now: Option<&Versioned>) -> bool {
    match (&write.op, now) {
        (Op::Put(value), Some(now)) => now.value == *value && now.version > write.expect,
        (Op::Delete, None) => true,
        (Op::Put(_), None) | (Op::Delete, Some(_)) => false,
    }
}

pub(super) async fn attempt<T>(future: impl Future<Output = Result<T, EtcdError>>) -> Result<T, EtcdError> {
    // The client's futures are large; every caller's would be as large as the largest of them.
    match tokio::time::timeout(ATTEMPT, Box::pin(future)).await {
        Ok(result) => result,
        Err(_) => Err(EtcdError::Unavailable(format!("no answer within {ATTEMPT:?}"))),
    }
}

async fn retry<T, F>(mut operation: impl FnMut() -> F) -> Result<T, EtcdError>
where
    F: Future<Output = Result<T, EtcdError>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt(operation()).await {
            Err(error) if error.is_transient() && Instant::now() < deadline => {
                tracing::debug!(%error, "trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
}
