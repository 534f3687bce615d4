//! What commands that change objects share: dry runs, field managers, output, and the loop over objects.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::output::printer::{Format, Refinements};
use crate::session::{Call, Session};

/// Whether a change is really made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum DryRun {
    /// It is.
    #[default]
    None,
    /// Nothing is sent.
    Client,
    /// The server does everything but store it.
    Server,
}

impl DryRun {
    /// What follows a message: ` (dry run)`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }

    /// The parameter for the server.
    pub fn query(self, call: Call) -> Call {
        if self == Self::Server { call.query("dryRun", "All") } else { call }
    }
}

/// Flags of every changing command.
#[derive(Args, Debug, Clone)]
pub struct ChangeArgs {
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client", hide_possible_values = true)]
    pub dry_run: DryRun,
    /// Output format: json, yaml, name, jsonpath=...
    #[arg(long, short = 'o', default_value = "", hide_default_value = true)]
    pub output: String,
    /// Template for -o jsonpath
    #[arg(long, default_value = "", hide_default_value = true)]
    pub template: String,
    /// Keep the managedFields when printing objects in JSON or YAML
    #[arg(long)]
    pub show_managed_fields: bool,
    /// Name of the manager used to track field ownership
    #[arg(long)]
    pub field_manager: Option<String>,
}

impl ChangeArgs {
    /// The output format.
    pub fn format(&self) -> Result<Format> {
        Format::parse(&self.output, Refinements { template: &self.template, ..Refinements::default() })
    }

    /// The request with dry run and field manager.
    pub fn dress(&self, call: Call, default_manager: &str) -> Call {
        let manager = self.field_manager.clone().unwrap_or_else(|| default_manager.into());
        self.dry_run.query(call).query("fieldManager", manager)
    }

    /// Prints what a change did, in words or as the object.
    pub fn print(&self, format: &mut Format, object: &Value, what: &str) -> Result<()> {
        crate::output::printer::print_change(format, object, &format!("{what}{}", self.dry_run.suffix()))
    }
}

/// Sends a patch unless this is a client's dry run, in which case `expected` is answered.
pub async fn send_patch(
    session: &Session,
    change: &ChangeArgs,
    path: String,
    patch: &crate::apply::Patch,
    manager: &str,
    expected: Value,
) -> Result<Value> {
    if change.dry_run == DryRun::Client {
        return Ok(expected);
    }
    let call = Call::patch(path, patch.content_type, patch.body.to_string().into_bytes());
    session.json(&change.dress(call, manager)).await
}

/// `name=value` pairs.
pub fn pair(text: &str) -> Result<(String, String)> {
    text.split_once('=')
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .ok_or_else(|| Error::message(format!("invalid argument {text:?}: expected key=value")))
}
