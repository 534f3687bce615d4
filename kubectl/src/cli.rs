//! The command line: flags that every command has, and the table of commands.

use std::time::Duration;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands;
use crate::error::{Error, Result};

/// kubectl controls the Kubernetes cluster manager
#[derive(Parser, Debug)]
#[command(name = "kubectl", disable_version_flag = true, infer_long_args = false, term_width = 100)]
pub struct Cli {
    /// Flags that every command has.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command has.
#[derive(Args, Debug, Default, Clone)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Path to the kubeconfig file to use for CLI requests
    #[arg(long, global = true)]
    pub kubeconfig: Option<String>,
    /// The name of the kubeconfig context to use
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The name of the kubeconfig cluster to use
    #[arg(long, global = true)]
    pub cluster: Option<String>,
    /// The name of the kubeconfig user to use
    #[arg(long, global = true)]
    pub user: Option<String>,
    /// If present, the namespace scope for this CLI request
    #[arg(long, short = 'n', global = true)]
    pub namespace: Option<String>,
    /// The address and port of the Kubernetes API server
    #[arg(long, short = 's', global = true)]
    pub server: Option<String>,
    /// Bearer token for authentication to the API server
    #[arg(long, global = true)]
    pub token: Option<String>,
    /// Path to a cert file for the certificate authority
    #[arg(long, global = true)]
    pub certificate_authority: Option<String>,
    /// Path to a client certificate file for TLS
    #[arg(long, global = true)]
    pub client_certificate: Option<String>,
    /// Path to a client key file for TLS
    #[arg(long, global = true)]
    pub client_key: Option<String>,
    /// Server name to use for server certificate validation
    #[arg(long, global = true)]
    pub tls_server_name: Option<String>,
    /// If true, the server's certificate will not be checked for validity
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// Username to impersonate for the operation
    #[arg(long = "as", global = true)]
    pub impersonate: Option<String>,
    /// Group to impersonate for the operation, can be repeated
    #[arg(long = "as-group", global = true)]
    pub impersonate_group: Vec<String>,
    /// The length of time to wait before giving up on a single server request; zero means no limit
    #[arg(long, global = true, default_value = "0", value_parser = timeout)]
    pub request_timeout: Duration,
    /// Default cache directory
    #[arg(long, global = true)]
    pub cache_dir: Option<String>,
    /// Number for the log level verbosity
    #[arg(short = 'v', long = "v", global = true, default_value_t = 0)]
    pub v: u8,
}

impl Globals {
    /// How long one request may take, if that is limited.
    pub fn request_timeout(&self) -> Option<Duration> {
        (!self.request_timeout.is_zero()).then_some(self.request_timeout)
    }
}

/// A duration as in `1m30s`, or a number of seconds.
pub fn timeout(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => component::flags::duration(text),
    }
}

/// Like [`timeout`], where a negative time means as long as can be.
pub fn patience(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') { Ok(Duration::from_secs(7 * 24 * 60 * 60)) } else { timeout(text) }
}

/// Every command, in the order of upstream's help.
#[derive(Subcommand, Debug)]
pub enum Command {
    Create(commands::create::Create),
    Expose(commands::expose::Expose),
    Run(commands::run::Run),
    Set(commands::set::Set),
    Explain(commands::explain::Explain),
    Get(commands::get::Get),
    Edit(commands::edit::Edit),
    Delete(commands::delete::Delete),
    Rollout(commands::rollout::Rollout),
    Scale(commands::scale::Scale),
    ClusterInfo(commands::cluster_info::ClusterInfo),
    Top(commands::top::Top),
    Cordon(commands::cordon::Cordon),
    Uncordon(commands::cordon::Uncordon),
    Drain(commands::drain::Drain),
    Taint(commands::taint::Taint),
    Describe(commands::describe::Describe),
    Logs(commands::logs::Logs),
    Attach(commands::attach::Attach),
    Exec(commands::exec::Exec),
    PortForward(commands::port_forward::PortForward),
    Proxy(commands::proxy::Proxy),
    Auth(commands::auth::Auth),
    Diff(commands::diff::Diff),
    Apply(commands::apply::Apply),
    Patch(commands::patch::Patch),
    Replace(commands::replace::Replace),
    Wait(commands::wait::Wait),
    Why(commands::why::Why),
    Label(commands::label::Label),
    Annotate(commands::label::Annotate),
    ApiResources(commands::api_resources::ApiResources),
    ApiVersions(commands::api_resources::ApiVersions),
    Config(commands::config::Config),
    Version(commands::version::Version),
}

/// Switches take a value too, as in `--watch=false`.
fn with_values(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_parser(clap::value_parser!(bool))
    });
    command.mut_subcommands(with_values)
}

impl Cli {
    /// Parses the arguments; help that was asked for comes back as text with exit code 0.
    pub fn from_args(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Self> {
        let command = with_values(Self::command());
        let parsed = command.try_get_matches_from(args).and_then(|mut m| Self::from_arg_matches_mut(&mut m));
        parsed.map_err(|e| usage(&e))
    }
}

/// Upstream's words for the mistakes that scripts and people meet most.
fn usage(error: &clap::Error) -> Error {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let invalid = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let text = error.render().to_string();
            match crate::output::print(&text) {
                Ok(()) => Error::Exit(0),
                Err(e) => e,
            }
        }
        ErrorKind::InvalidSubcommand => Error::Plain(format!(
            "error: unknown command \"{}\" for \"kubectl\"",
            invalid(ContextKind::InvalidSubcommand)
        )),
        ErrorKind::UnknownArgument => {
            let flag = invalid(ContextKind::InvalidArg);
            match flag.strip_prefix("--") {
                Some(_) => {
                    Error::Plain(format!("error: unknown flag: {flag}\nSee 'kubectl --help' for usage."))
                }
                None => Error::Plain(format!(
                    "error: unexpected argument {flag:?}\nSee 'kubectl --help' for usage."
                )),
            }
        }
        _ => Error::Plain(error.render().to_string().trim_end().to_owned()),
    }
}
