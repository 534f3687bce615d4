//! `kubectl api-resources` and `kubectl api-versions`.

use clap::Args;

use crate::error::{Error, Result};
use crate::output::{print, println, tabwriter};
use crate::resource::Resource;
use crate::session::Session;

/// Print the supported API resources on the server
#[derive(Args, Debug)]
pub struct ApiResources {
    /// Limit to resources in the specified API group
    #[arg(long)]
    pub api_group: Option<String>,
    /// Limit to resources that belong to the specified categories
    #[arg(long, value_delimiter = ',')]
    pub categories: Vec<String>,
    /// Use the cached list of resources if available
    #[arg(long)]
    pub cached: bool,
    /// If false, only cluster-scoped resources are shown
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub namespaced: Option<bool>,
    /// Do not print headers
    #[arg(long)]
    pub no_headers: bool,
    /// Output format: wide or name
    #[arg(long, short = 'o', default_value = "", hide_default_value = true)]
    pub output: String,
    /// Sort by 'name' or 'kind'
    #[arg(long, default_value = "", hide_default_value = true)]
    pub sort_by: String,
    /// Limit to resources that support the specified verbs
    #[arg(long, value_delimiter = ',')]
    pub verbs: Vec<String>,
}

impl ApiResources {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        if !matches!(self.output.as_str(), "" | "wide" | "name") {
            return Err(Error::message(format!("--output {:?} is not available", self.output)));
        }
        let catalog = match self.cached {
            true => session.catalog().await?,
            false => session.fresh_catalog().await?,
        };
        let mut shown: Vec<&Resource> = Vec::new();
        for resource in &catalog.resources {
            let known = shown.iter().any(|r| r.group == resource.group && r.plural == resource.plural);
            if !known && self.wants(resource) {
                shown.push(resource);
            }
        }
        match self.sort_by.as_str() {
            "" => shown.sort_by_key(|r| (r.group.clone(), r.plural.clone())),
            "name" => shown.sort_by_key(|r| r.plural.clone()),
            "kind" => shown.sort_by_key(|r| r.kind.clone()),
            _ => return Err(Error::message("--sort-by accepts only name or kind")),
        }
        self.print(&shown)?;
        match catalog.stale.is_empty() {
            true => Ok(()),
            false => Err(Error::message(format!(
                "unable to retrieve the complete list of server APIs: {}: stale GroupVersion discovery",
                catalog.stale.join(", ")
            ))),
        }
    }

    fn wants(&self, resource: &Resource) -> bool {
        !resource.verbs.is_empty()
            && self.api_group.as_ref().is_none_or(|g| *g == resource.group)
            && self.namespaced.is_none_or(|n| n == resource.namespaced)
            && self.verbs.iter().all(|v| resource.can(v))
            && self.categories.iter().all(|c| resource.categories.contains(c))
    }

    fn print(&self, shown: &[&Resource]) -> Result<()> {
        let mut lines = Vec::new();
        let wide = self.output == "wide";
        if self.output == "name" {
            lines.extend(shown.iter().map(|r| r.qualified()));
        } else {
            if !self.no_headers {
                let more = if wide { "\tVERBS\tCATEGORIES" } else { "" };
                lines.push(format!("NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND{more}"));
            }
            lines.extend(shown.iter().map(|r| {
                let start = format!(
                    "{}\t{}\t{}\t{}\t{}",
                    r.plural,
                    r.short_names.join(","),
                    r.api_version(),
                    r.namespaced,
                    r.kind
                );
                match wide {
                    true => format!("{start}\t{}\t{}", r.verbs.join(","), r.categories.join(",")),
                    false => start,
                }
            }));
        }
        lines.push(String::new());
        print(&tabwriter::align(&lines.join("\n"), tabwriter::TABLE))
    }
}

/// Print the supported API versions on the server, in the form of "group/version"
#[derive(Args, Debug)]
pub struct ApiVersions {}

impl ApiVersions {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let mut versions = session.fresh_catalog().await?.versions.clone();
        versions.sort();
        versions.iter().try_for_each(println)
    }
}
