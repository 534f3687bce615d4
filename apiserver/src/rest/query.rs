//! The query parameters of the API.

use std::time::Duration;

use api::apply::{check_manager, manager_of_agent};
use api::status::StatusError;
use axum::extract::Query;
use http::Uri;

use crate::registry::read::ListQuery;
use crate::registry::session::WatchQuery;
use crate::registry::store::{FieldValidation, WriteOptions};

/// The writes that take options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteVerb {
    /// `CreateOptions`.
    Create,
    /// `UpdateOptions`.
    Update,
    /// `PatchOptions`, of any patch but an apply.
    Patch,
    /// `PatchOptions` of an apply.
    Apply,
}

impl WriteVerb {
    const fn options(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Patch | Self::Apply => "PatchOptions",
        }
    }
}

/// A query, decoded.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Decodes the query of a URI.
    ///
    /// # Errors
    /// 400 for a malformed one.
    pub fn parse(uri: &Uri) -> Result<Self, StatusError> {
        Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|Query(pairs)| Self(pairs))
            .map_err(|e| StatusError::bad_request(e.to_string()))
    }

    /// The first value of a parameter, or the empty string.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).unwrap_or_default()
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// A truth value as upstream reads it: present and neither `false` nor `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.has(name) && !matches!(self.get(name).to_lowercase().as_str(), "false" | "0")
    }

    fn number(&self, name: &str) -> Result<Option<i64>, StatusError> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                StatusError::bad_request(format!("{name}: Invalid value: {text:?}: must be an integer"))
            }),
        }
    }

    /// The parameters of a list.
    ///
    /// # Errors
    /// 400 for malformed numbers.
    pub fn list(&self) -> Result<ListQuery, StatusError> {
        Ok(ListQuery {
            label_selector: self.get("labelSelector").into(),
            field_selector: self.get("fieldSelector").into(),
            resource_version: self.get("resourceVersion").into(),
            resource_version_match: self.get("resourceVersionMatch").into(),
            limit: self.number("limit")?.unwrap_or(0),
            continue_token: self.get("continue").into(),
        })
    }

    /// The parameters of a watch.
    ///
    /// # Errors
    /// 400 for malformed numbers.
    pub fn watch(&self) -> Result<WatchQuery, StatusError> {
        let timeout = self.number("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        Ok(WatchQuery {
            label_selector: self.get("labelSelector").into(),
            field_selector: self.get("fieldSelector").into(),
            resource_version: self.get("resourceVersion").into(),
            resource_version_match: self.get("resourceVersionMatch").into(),
            allow_bookmarks: self.flag("allowWatchBookmarks"),
            send_initial_events: self.has("sendInitialEvents").then(|| self.flag("sendInitialEvents")),
            // A watch of more than a year is as good as an endless one, and no deadline overflows.
            timeout: timeout.map(|s| Duration::from_secs(s.min(365 * 86400))),
        })
    }

    /// The parameters of a write of a client with a user agent.
    ///
    /// # Errors
    /// 400 for unknown values, 422 for a manager's name that cannot be one.
    pub fn write(&self, verb: WriteVerb, agent: &str) -> Result<WriteOptions, StatusError> {
        let manager = self.get("fieldManager");
        let refuse = |field: &str, problem: String| {
            let message = format!("{}.meta.k8s.io \"\" is invalid: {field}: {problem}", verb.options());
            Err(StatusError::new(422, "Invalid", message))
        };
        if let Some(problem) = check_manager(manager) {
            return refuse("fieldManager", format!("Invalid value: {manager:?}: {problem}"));
        }
        let applies = verb == WriteVerb::Apply;
        if applies && manager.is_empty() {
            return refuse("fieldManager", "Required value: is required for apply patch".into());
        }
        if verb == WriteVerb::Patch && self.has("force") {
            return refuse("force", "Forbidden: may not be specified for non-apply patch".into());
        }
        Ok(WriteOptions {
            dry_run: self.dry_run()?,
            validation: FieldValidation::parse(self.get("fieldValidation"))?,
            manager: if manager.is_empty() { manager_of_agent(agent) } else { manager.to_owned() },
            force: applies && self.flag("force"),
            duplicates: Vec::new(),
        })
    }

    /// `dryRun=All`.
    ///
    /// # Errors
    /// 400 for any other value.
    pub fn dry_run(&self) -> Result<bool, StatusError> {
        for value in self.all("dryRun").filter(|v| !v.is_empty()) {
            if value != "All" {
                return Err(StatusError::bad_request(format!(
                    "dryRun: Unsupported value: {value:?}: supported values: \"All\""
                )));
            }
        }
        Ok(self.all("dryRun").any(|v| v == "All"))
    }

    /// What the query says about a deletion, where the body says nothing.
    ///
    /// # Errors
    /// 400 for malformed numbers.
    pub fn fill_delete_options(
        &self,
        options: &mut api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions,
    ) -> Result<(), StatusError> {
        if options.grace_period_seconds.is_none() {
            options.grace_period_seconds = self.number("gracePeriodSeconds")?;
        }
        if options.propagation_policy.is_none() && !self.get("propagationPolicy").is_empty() {
            options.propagation_policy = Some(self.get("propagationPolicy").into());
        }
        if options.orphan_dependents.is_none() && self.has("orphanDependents") {
            options.orphan_dependents = Some(self.flag("orphanDependents"));
        }
        if options.dry_run.is_none() && self.dry_run()? {
            options.dry_run = Some(vec!["All".into()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Parameters {
        Parameters::parse(&format!("/x?{query}").parse().expect("a URI")).expect("a query")
    }

    #[test]
    fn parameters_are_read_as_upstream_does() {
        let p =
            parse("watch&labelSelector=a%3Db&limit=5&timeoutSeconds=7&sendInitialEvents=false&dryRun=All");
        assert!(p.flag("watch") && !p.flag("sendInitialEvents") && !p.flag("absent"));
        assert_eq!(p.list().expect("fine").limit, 5);
        let watch = p.watch().expect("fine");
        assert_eq!((watch.label_selector.as_str(), watch.timeout), ("a=b", Some(Duration::from_secs(7))));
        assert_eq!(watch.send_initial_events, Some(false));
        let write = |p: &Parameters, verb| p.write(verb, "kubectl/v1.32 (linux)");
        assert!(write(&p, WriteVerb::Create).expect("fine").dry_run);
        assert_eq!(write(&p, WriteVerb::Update).expect("fine").manager, "kubectl");
        let named = parse("fieldManager=me&force=true");
        let options = write(&named, WriteVerb::Apply).expect("fine");
        assert!(options.force && options.manager == "me");
        assert_eq!(write(&named, WriteVerb::Patch).expect_err("force").code(), 422);
        assert_eq!(write(&p, WriteVerb::Apply).expect_err("no manager").code(), 422);
        assert!(write(&parse("fieldManager=a%0Ab"), WriteVerb::Create).is_err());
        assert!(parse("limit=x").list().is_err());
        assert!(write(&parse("dryRun=Some"), WriteVerb::Patch).is_err());
        assert!(write(&parse("fieldValidation=Maybe"), WriteVerb::Patch).is_err());
    }
}
