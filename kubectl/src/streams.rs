//! A process in a container on this terminal: standard streams, raw mode, window size, exit code.

use std::io::{IsTerminal, Read, Write};

use futures::SinkExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::output::warn;

const CHUNK: usize = 16 * 1024;

/// What to connect.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// A terminal; falls back to plain streams if ours is none.
    pub tty: bool,
    /// Say nothing that the process does not say.
    pub quiet: bool,
}

impl Wanted {
    /// Without a terminal of our own there is none to offer.
    pub fn settled(mut self) -> Self {
        if self.tty && !(self.stdin && std::io::stdin().is_terminal()) {
            if self.stdin && !self.quiet {
                warn("Unable to use a TTY - input is not a terminal or the right kind of file");
            }
            self.tty = self.tty && !self.stdin;
        }
        self
    }

    /// The parameters of the request.
    pub fn params(self, container: String) -> AttachParams {
        AttachParams {
            container: Some(container),
            stdin: self.stdin,
            stdout: true,
            stderr: !self.tty,
            tty: self.tty,
            max_stdin_buf_size: Some(CHUNK),
            max_stdout_buf_size: Some(4 * CHUNK),
            max_stderr_buf_size: Some(4 * CHUNK),
        }
    }
}

/// Puts the terminal into raw mode until dropped.
struct RawMode(Termios);

impl RawMode {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone; there is no other way to give it back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Connects a process to this terminal until it ends.
pub async fn connect(mut process: AttachedProcess, wanted: Wanted) -> Result<()> {
    let status = process.take_status();
    let raw = wanted.tty.then(RawMode::enter).flatten();
    let input = pump_input(process.stdin());
    let resize = follow_size(process.terminal_size());
    let output = async {
        tokio::try_join!(
            pump_output(process.stdout(), std::io::stdout()),
            pump_output(process.stderr(), std::io::stderr())
        )
    };
    tokio::select! {
        done = output => { done?; }
        never = input => match never? {},
        never = resize => match never {},
    }
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    drop(raw);
    match status {
        Some(status) => outcome(status),
        None => match process.join().await {
            Ok(()) => Ok(()),
            Err(e) => Err(Error::message(format!("the stream was broken off: {e}"))),
        },
    }
}

async fn pump_output(from: Option<impl AsyncRead + Unpin>, mut to: impl Write) -> Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n]).and_then(|()| to.flush()).map_err(|e| match e.kind() {
                std::io::ErrorKind::BrokenPipe => Error::Exit(141),
                _ => Error::message(format!("write output: {e}")),
            })?,
            Err(e) => return Err(Error::message(format!("read from the container: {e}"))),
        }
    }
}

/// Carries our standard input over until it ends, then waits for ever: the process decides when to go.
async fn pump_input(to: Option<impl AsyncWrite + Unpin>) -> Result<std::convert::Infallible> {
    if let Some(mut to) = to {
        let mut input = read_stdin();
        while let Some(chunk) = input.recv().await {
            // The process has closed its end: what it still says is worth waiting for.
            if to.write_all(&chunk).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }
    std::future::pending().await
}

/// Standard input, read by a thread that ends with the program: reads cannot be broken off.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut stdin = std::io::stdin().lock();
        while let Ok(n) = stdin.read(&mut buffer) {
            if n == 0 || sender.blocking_send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn follow_size(to: Option<futures::channel::mpsc::Sender<TerminalSize>>) -> std::convert::Infallible {
    if let (Some(mut to), Ok(mut changes)) = (to, signal(SignalKind::window_change())) {
        loop {
            if let Ok(size) = tcgetwinsize(std::io::stdin()) {
                let size = TerminalSize { width: size.ws_col, height: size.ws_row };
                if to.send(size).await.is_err() {
                    break;
                }
            }
            if changes.recv().await.is_none() {
                break;
            }
        }
    }
    std::future::pending().await
}

/// The exit code that a process's final status carries.
fn outcome(status: Status) -> Result<()> {
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    if status.reason.as_deref() == Some("NonZeroExitCode") {
        let causes = status.details.iter().flat_map(|d| d.causes.iter().flatten());
        let code = causes
            .filter(|c| c.reason.as_deref() == Some("ExitCode"))
            .find_map(|c| c.message.as_deref()?.parse::<i32>().ok());
        if let Some(code) = code {
            warn(format!("command terminated with exit code {code}"));
            return Err(Error::Exit(code));
        }
    }
    Err(Error::message(status.message.unwrap_or_else(|| "the command failed".into())))
}

/// A refusal on the way to a stream, in the words of other refusals.
pub fn refused(error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => {
            let status = serde_json::to_value(&*status).ok().and_then(|v| serde_json::from_value(v).ok());
            status.map_or_else(
                || Error::message("the server refused the stream"),
                |s| Error::Status(Box::new(s)),
            )
        }
        other => {
            Error::message(format!("unable to upgrade connection: {}", crate::session::root_cause(&other)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(status: serde_json::Value, want: Result<(), i32>) {
        let status = serde_json::from_value(status).unwrap();
        assert_eq!(outcome(status).map_err(|e| e.exit_code()), want);
    }

    #[test]
    fn the_exit_code_is_the_commands() {
        check(json!({"status": "Success"}), Ok(()));
        check(
            json!({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "42"}]}}),
            Err(42),
        );
        check(json!({"status": "Failure", "message": "boom"}), Err(1));
    }
}
