//! Gets and lists: at the consistency that the resource version asks for, and in pages.

use std::sync::Arc;
use std::time::Duration;

use api::kinds::Nature;
use api::selector::{FieldSelector, Selector};
use api::status::StatusError;
use api::validation::FieldError;
use api::{Kind, meta};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::core::component_status;
use super::errors::{from_etcd, from_hub};
use super::store::Registry;
use super::{convert, strategies};
use crate::storage::cache::Listing;
use crate::storage::etcd::{EtcdError, Versioned};
use crate::storage::{Cache, Entry, Filter, layout, version};

/// How long a reader waits for the most recent state while etcd is away.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a reader waits for a version that is not there yet.
const VERSION_PATIENCE: Duration = Duration::from_secs(3);
/// Objects read from etcd in one go.
const CHUNK: i64 = 500;

/// The version that a read asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `""`: everything that was acknowledged before.
    MostRecent,
    /// `"0"`: whatever is at hand.
    Any,
    /// At least as new as this.
    NotOlderThan(i64),
    /// Exactly this.
    Exact(i64),
}

impl Version {
    /// Reads the query parameters `resourceVersion` and `resourceVersionMatch`, which fit together.
    ///
    /// # Errors
    /// 400 for what is no version.
    pub fn parse(version: &str, matching: &str) -> Result<Self, StatusError> {
        let number = match version {
            "" => None,
            text => Some(text.parse::<i64>().ok().filter(|n| *n >= 0).ok_or_else(|| {
                StatusError::bad_request(format!(
                    "resourceVersion: Invalid value: {text:?}: must be a non-negative integer"
                ))
            })?),
        };
        Ok(match (number, matching) {
            (None, _) => Self::MostRecent,
            (Some(n), "Exact") => Self::Exact(n),
            (Some(0), _) => Self::Any,
            (Some(n), _) => Self::NotOlderThan(n),
        })
    }
}

/// The refusal of the parameters of a list or watch; nothing when there are no errors.
pub(super) fn refuse(errors: &[FieldError]) -> Result<(), StatusError> {
    if errors.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let list = if let [one] = list.as_slice() { one.clone() } else { format!("[{}]", list.join(", ")) };
    let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {list}");
    let mut error = StatusError::new(422, "Invalid", message);
    let details = error.0.details.get_or_insert_default();
    details.group = Some("meta.k8s.io".into());
    details.kind = Some("ListOptions".into());
    details.causes = Some(errors.iter().map(FieldError::cause).collect());
    Err(error)
}

/// What a list asks for, as it stands in the query.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// `labelSelector`.
    pub label_selector: String,
    /// `fieldSelector`.
    pub field_selector: String,
    /// `resourceVersion`.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub resource_version_match: String,
    /// `limit`; 0 for all.
    pub limit: i64,
    /// `continue`.
    pub continue_token: String,
}

impl ListQuery {
    /// Upstream's rules for the parameters of a list.
    fn validate(&self) -> Result<(), StatusError> {
        const MATCH: &str = "resourceVersionMatch";
        let mut errors = Vec::new();
        let matching = self.resource_version_match.as_str();
        if !matching.is_empty() {
            let mut forbidden = |detail: &str| errors.push(FieldError::forbidden(MATCH, detail));
            if self.resource_version.is_empty() {
                forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !self.continue_token.is_empty() {
                forbidden("resourceVersionMatch is forbidden when continue is provided");
            }
            if matching == "Exact" && self.resource_version == "0" {
                forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
            if !matches!(matching, "Exact" | "NotOlderThan") {
                errors.push(FieldError::not_supported(MATCH, matching, &["Exact", "NotOlderThan", ""]));
            }
        }
        refuse(&errors)
    }
}

/// A list, or one page of it.
#[derive(Debug)]
pub struct List {
    /// The objects, as they are stored.
    pub entries: Vec<Arc<Entry>>,
    /// The version of the list.
    pub revision: i64,
    /// Where the next page begins; empty on the last one.
    pub continue_token: String,
    /// How many objects are behind this page, where that is known.
    pub remaining: Option<i64>,
}

/// The version in a token that goes on with whatever is there by then.
const INCONSISTENT: i64 = -1;

/// The content of a continue token, as upstream has it.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

impl Token {
    fn encode(revision: i64, last: &str) -> String {
        let token = Self { v: "meta.k8s.io/v1".into(), rv: revision, start: format!("{last}\0") };
        URL_SAFE_NO_PAD
            .encode(serde_json::to_vec(&token).expect("a map of strings and numbers always encodes"))
    }

    fn decode(text: &str) -> Result<Self, StatusError> {
        let invalid = |why: String| StatusError::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|e| invalid(e.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
        if token.v != "meta.k8s.io/v1" || token.rv == 0 || token.rv < INCONSISTENT || token.start.is_empty() {
            return Err(invalid("server does not recognize this encoded version".into()));
        }
        Ok(token)
    }
}

/// Turns selectors of a query into a filter.
///
/// # Errors
/// 400 for malformed selectors and for fields that the kind does not have.
pub fn filter(
    kind: &'static Kind,
    namespace: &str,
    labels: &str,
    fields: &str,
) -> Result<Filter, StatusError> {
    let bad = |e: String| StatusError::bad_request(e);
    let labels = Selector::parse(labels).map_err(|e| bad(format!("unable to parse requirement: {e}")))?;
    let mut fields = FieldSelector::parse(fields).map_err(|e| bad(e.to_string()))?;
    if !fields.terms.is_empty() {
        let known = strategies::strategy(layout::storage_kind(kind)).field_names();
        for (field, _, _) in &mut fields.terms {
            let stored = convert::field_name(kind, field);
            let meta = stored == "metadata.name" || (kind.namespaced && stored == "metadata.namespace");
            if !meta && !known.contains(&stored.as_str()) {
                return Err(bad(format!(
                    "Unable to find {:?} that match label selector {:?}, field selector {:?}: field label not supported: {field}",
                    kind.api_version, "", field
                )));
            }
            *field = stored;
        }
    }
    Ok(Filter { namespace: namespace.to_owned(), labels, fields })
}

impl Registry {
    /// Waits until the copies are as new as a read demands.
    pub async fn reach(&self, version: Version) -> Result<(), StatusError> {
        match version {
            Version::MostRecent => self.hub.most_recent(PATIENCE).await.map(drop).map_err(|e| from_hub(&e)),
            Version::Any => self.hub.reach(1, PATIENCE).await.map_err(|e| from_hub(&e)),
            Version::NotOlderThan(n) | Version::Exact(n) => {
                self.hub.reach(n, VERSION_PATIENCE).await.map_err(|e| from_hub(&e))
            }
        }
    }

    /// One object, as it is stored.
    ///
    /// # Errors
    /// 404; 504 when the version is not reached in time.
    pub async fn get(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        version: &str,
    ) -> Result<Arc<Entry>, StatusError> {
        let version = Version::parse(version, "")?;
        let key = meta::key_of(namespace, name);
        if kind.nature == Nature::Computed {
            let found = self.computed(kind).await.into_iter().find(|entry| *entry.key == *key);
            return found.ok_or_else(|| StatusError::not_found(kind, name));
        }
        self.reach(version).await?;
        self.hub.cache(kind).get(&key).ok_or_else(|| StatusError::not_found(kind, name))
    }

    /// A list, or a page of one.
    ///
    /// # Errors
    /// 400 for a wrong query, 410 for a version that is no longer kept.
    pub async fn list(
        &self,
        kind: &'static Kind,
        namespace: &str,
        query: &ListQuery,
    ) -> Result<List, StatusError> {
        query.validate()?;
        let filter = filter(kind, namespace, &query.label_selector, &query.field_selector)?;
        let limit = usize::try_from(query.limit).map_err(|_| {
            StatusError::bad_request(format!(
                "limit: Invalid value: {}: must be greater than or equal to 0",
                query.limit
            ))
        })?;
        if kind.nature == Nature::Computed {
            let mut entries = self.computed(kind).await;
            entries.retain(|entry| filter.matches(entry));
            return Ok(List { entries, revision: 0, continue_token: String::new(), remaining: None });
        }
        let cache = self.hub.cache(kind);
        if !query.continue_token.is_empty() {
            let token = Token::decode(&query.continue_token)?;
            if !matches!(query.resource_version.as_str(), "" | "0") {
                return Err(StatusError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            if token.rv == INCONSISTENT {
                self.reach(Version::MostRecent).await?;
                return Ok(page(cache.list(&filter, limit, &token.start)));
            }
            return self.list_at(&cache, &filter, limit, token.rv, &token.start).await;
        }
        let version = Version::parse(&query.resource_version, &query.resource_version_match)?;
        self.reach(version).await?;
        if let Version::Exact(revision) = version {
            return self.list_at(&cache, &filter, limit, revision, "").await;
        }
        // As upstream's cache does, a list of any version comes whole: its version may be too old to go on from.
        let limit = if version == Version::Any { 0 } else { limit };
        Ok(page(cache.list(&filter, limit, "")))
    }

    /// Some of the keys of a range as they stood at a version, how many there are in all, and where the next begin.
    async fn chunk(
        &self,
        start: &str,
        end: Vec<u8>,
        version: i64,
    ) -> Result<(Vec<Versioned>, i64, Option<String>), EtcdError> {
        let mut page = self.etcd.range(start, Some(end.clone()), version, CHUNK, false).await?;
        let next = page.items.last().filter(|_| page.more).map(|last| format!("{}\0", last.key));
        if !version::is_whole(version) {
            // The version of an object that was written together with others: those behind it in the order of
            // versions were still as the revision before left them.
            let end = next.clone().map_or(end, String::into_bytes);
            let before = self.etcd.range(start, Some(end), version::back(version, 1), 0, false).await?;
            let behind = |item: &Versioned| version::is_behind(&item.key, version);
            page.items.retain(|item| !behind(item));
            page.items.extend(before.items.into_iter().filter(behind));
            page.items.sort_by(|a, b| a.key.cmp(&b.key));
        }
        Ok((page.items, page.count, next))
    }

    /// The objects of a kind that is made up when it is read; the one kind of this nature is ComponentStatus.
    async fn computed(&self, kind: &'static Kind) -> Vec<Arc<Entry>> {
        let health = self.etcd.current_version().await.map(drop);
        let status = component_status::of_store(health.map_err(|e| e.to_string()));
        let object = api::Object::from_typed(&status);
        let entry = Entry::new(
            &crate::storage::entry::Layout::of(kind),
            object.name(),
            &crate::storage::encoding::encode(&object),
            0,
        );
        entry.map(Arc::new).into_iter().collect()
    }

    /// A page as it stood at a revision, from etcd.
    async fn list_at(
        &self,
        cache: &Cache,
        filter: &Filter,
        limit: usize,
        revision: i64,
        after: &str,
    ) -> Result<List, StatusError> {
        let prefix = match filter.namespace.as_str() {
            "" => cache.prefix().to_owned(),
            namespace => format!("{}{namespace}/", cache.prefix()),
        };
        let mut start = prefix.clone().max(format!("{}{after}", cache.prefix()));
        let limit = if limit == 0 { usize::MAX } else { limit };
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let (more, mut remaining) = 'pages: loop {
            if start.as_bytes() >= layout::prefix_end(&prefix).as_slice() {
                break (false, None);
            }
            let (items, count, next) = self
                .chunk(&start, layout::prefix_end(&prefix), revision)
                .await
                .map_err(|e| expired_or(&e, after))?;
            for (i, item) in items.iter().enumerate() {
                let Some(key) = item.key.strip_prefix(cache.prefix()) else { continue };
                let Some(entry) = Entry::new(&cache.layout, key, &item.value, item.version) else { continue };
                if !filter.matches(&entry) {
                    continue;
                }
                if entries.len() == limit {
                    break 'pages (true, Some(count - i as i64));
                }
                entries.push(Arc::new(entry));
            }
            match next {
                Some(next) => start = next,
                None => break (false, None),
            }
        };
        if !filter.is_everything() {
            remaining = None;
        }
        let last = entries.last().filter(|_| more);
        let continue_token = last.map(|e| Token::encode(revision, &e.key)).unwrap_or_default();
        Ok(List { revision, continue_token, remaining, entries })
    }
}

/// A list of the copy.
fn page(listing: Listing) -> List {
    let last = listing.entries.last().filter(|_| listing.more);
    List {
        revision: listing.revision,
        continue_token: last.map(|e| Token::encode(listing.revision, &e.key)).unwrap_or_default(),
        remaining: listing.remaining,
        entries: listing.entries,
    }
}

/// 410 for a version that the store has forgotten. Who was going on behind a key gets a token for the rest as it is
/// now, as upstream's clients know to use.
fn expired_or(error: &EtcdError, after: &str) -> StatusError {
    match error {
        EtcdError::Compacted if after.is_empty() => {
            StatusError::expired("The resourceVersion for the provided list is too old.")
        }
        EtcdError::Compacted => {
            let mut error = StatusError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter, or use the continue token in this response to retrieve the \
                 remainder of the results. Continuing with the provided token results in an inconsistent list - \
                 objects that were created, modified, or deleted between the time the first chunk was returned and \
                 now may show up in the list.",
            );
            let token = Token::encode(INCONSISTENT, after.trim_end_matches('\0'));
            error.0.metadata.continue_ = Some(token);
            error
        }
        error => from_etcd(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        let table = [
            ("", "", Some(Version::MostRecent)),
            ("0", "", Some(Version::Any)),
            ("0", "NotOlderThan", Some(Version::Any)),
            ("7", "", Some(Version::NotOlderThan(7))),
            ("7", "Exact", Some(Version::Exact(7))),
            ("-1", "", None),
            ("x", "", None),
            ("99999999999999999999", "", None),
        ];
        for (version, matching, wanted) in table {
            assert_eq!(Version::parse(version, matching).ok(), wanted, "{version} {matching}");
        }
    }

    #[test]
    fn tokens_survive_and_nonsense_is_refused() {
        let token = Token::decode(&Token::encode(7, "n/a")).expect("a token");
        assert_eq!((token.rv, token.start.as_str()), (7, "n/a\0"));
        for bad in ["x", "e30", "bnVsbA", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0"] {
            assert_eq!(Token::decode(bad).expect_err("refused").code(), 400, "{bad}");
        }
    }

    #[test]
    fn unknown_fields_of_selectors_are_refused() {
        let kind = Kind::find("", "ConfigMap").expect("a kind");
        assert!(filter(kind, "", "", "metadata.name=a,metadata.namespace=b").is_ok());
        for (labels, fields) in [("", "data.x=1"), ("a=b=c", ""), ("", "nonsense")] {
            assert_eq!(filter(kind, "", labels, fields).expect_err("refused").code(), 400);
        }
    }
}
