//! Logs: events with fields on standard error, as text or JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// The flags that upstream's components have for their logs.
#[derive(clap::Args, Clone, Debug)]
pub struct LoggingArgs {
    /// Number for the log level verbosity: 0 to 3 show decisions, 4 and 5 details, 6 and more everything.
    #[arg(short = 'v', long = "v", default_value_t = 2, value_name = "LEVEL")]
    pub verbosity: u8,
    /// Sets the log format.
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub logging_format: String,
}

impl LoggingArgs {
    fn filter(&self) -> &'static str {
        // The libraries' own chatter is of use only when everything is asked for.
        match self.verbosity {
            0..=3 => "info,h2=warn,hyper=warn,rustls=error,tonic=warn,tower=warn,netlink_proto=warn",
            4..=5 => "debug,h2=info,hyper=info,rustls=info,tonic=info,tower=info,netlink_proto=info",
            _ => "trace,h2=debug,hyper=debug,rustls=debug",
        }
    }
}

/// Starts logging for the whole process. `COXSWAIN_LOG` overrides the filter, in the notation of
/// tracing's `EnvFilter`. A second call has no effect.
pub fn init(args: &LoggingArgs, component: &'static str) {
    let filter = EnvFilter::try_from_env("COXSWAIN_LOG").unwrap_or_else(|_| EnvFilter::new(args.filter()));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    let result = if args.logging_format == "json" {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    if result.is_ok() {
        tracing::info!(component, version = env!("CARGO_PKG_VERSION"), "starting");
    }
}
