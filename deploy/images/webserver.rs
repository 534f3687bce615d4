//! A small web server for samples and tests that is also a client, for containers that hold nothing else.
//!
//!     webserver [serve] [--port 8080] [--root /www] [--drain 2]   serves files, /healthz and /hostname
//!     webserver fetch URL [--timeout 5]                           prints a page; names go through /etc/resolv.conf
//!     webserver resolve NAME [--type A|SRV] [--timeout 5]         prints what DNS says about a name
//!     webserver sleep                                             waits for SIGTERM

use std::process::ExitCode;
use std::time::Duration;

#[path = "webserver/client.rs"]
mod client;
#[path = "webserver/dns.rs"]
mod dns;
#[path = "webserver/server.rs"]
mod server;
#[path = "webserver/signals.rs"]
mod signals;

/// The value of `--name VALUE` or `--name=VALUE`; both are taken out of the arguments.
fn option(args: &mut Vec<String>, name: &str) -> Result<Option<String>, String> {
    let flag = format!("--{name}");
    let prefix = format!("{flag}=");
    let Some(at) = args.iter().position(|arg| *arg == flag || arg.starts_with(&prefix)) else {
        return Ok(None);
    };
    let arg = args.remove(at);
    if let Some(value) = arg.strip_prefix(&prefix) {
        return Ok(Some(value.to_owned()));
    }
    if at < args.len() { Ok(Some(args.remove(at))) } else { Err(format!("{flag} needs a value")) }
}

fn number<T: std::str::FromStr>(args: &mut Vec<String>, name: &str, default: T) -> Result<T, String> {
    match option(args, name)? {
        Some(text) => text.parse().map_err(|_| format!("--{name}: {text:?} is no number")),
        None => Ok(default),
    }
}

fn timeout(args: &mut Vec<String>) -> Result<Duration, String> {
    number(args, "timeout", 5).map(Duration::from_secs)
}

/// The only argument that is left.
fn only(args: Vec<String>, what: &str) -> Result<String, String> {
    let mut args = args.into_iter();
    match (args.next(), args.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(format!("exactly one {what} is wanted")),
    }
}

fn run(mut args: Vec<String>) -> Result<(), String> {
    let verb =
        if args.first().is_some_and(|arg| !arg.starts_with('-')) { args.remove(0) } else { "serve".into() };
    match verb.as_str() {
        "serve" => {
            let port = number(&mut args, "port", 8080)?;
            let root = option(&mut args, "root")?.unwrap_or_else(|| "/www".into());
            let drain = Duration::from_secs(number(&mut args, "drain", 2)?);
            match args.first() {
                Some(arg) => Err(format!("unknown argument {arg:?}")),
                None => server::serve(port, root.into(), drain).map_err(|e| format!("port {port}: {e}")),
            }
        }
        "fetch" => {
            let timeout = timeout(&mut args)?;
            client::fetch(&only(args, "URL")?, timeout)
        }
        "resolve" => {
            let timeout = timeout(&mut args)?;
            let kind = option(&mut args, "type")?.unwrap_or_else(|| "A".into());
            client::resolve(&only(args, "name")?, &kind, timeout)
        }
        "sleep" => {
            signals::wait_for_termination(&signals::block());
            Ok(())
        }
        other => Err(format!("unknown command {other:?}: use serve, fetch, resolve or sleep")),
    }
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("webserver: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_stand_anywhere_in_both_forms() {
        let mut list = args("a --port 80 b --root=/x");
        assert_eq!(option(&mut list, "root").unwrap().unwrap(), "/x");
        assert_eq!(number(&mut list, "port", 1).unwrap(), 80);
        assert_eq!(list, ["a", "b"]);
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (line, expected) in [
            ("serve --port", "--port needs a value"),
            ("serve --port=x", "--port: \"x\" is no number"),
            ("serve --nonsense", "unknown argument \"--nonsense\""),
            ("fetch", "exactly one URL is wanted"),
            ("fetch a b", "exactly one URL is wanted"),
            ("dance", "unknown command \"dance\": use serve, fetch, resolve or sleep"),
        ] {
            assert_eq!(run(args(line)).unwrap_err(), expected);
        }
    }
}
