//! `kubectl logs`.

use std::time::Duration;

use clap::Args;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::output::{print, warn};
use crate::pods;
use crate::session::{Call, Session, encode};

/// Print the logs for a container in a pod or specified resource
#[derive(Args, Debug)]
pub struct Logs {
    /// POD or TYPE/NAME, and a container
    pub args: Vec<String>,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Print the logs of this container
    #[arg(long, short = 'c')]
    pub container: Option<String>,
    /// Get all containers' logs in the pod(s)
    #[arg(long)]
    pub all_containers: bool,
    /// Get logs from all pods
    #[arg(long)]
    pub all_pods: bool,
    /// Specify if the logs should be streamed
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Print the logs for the previous instance of the container
    #[arg(long, short = 'p')]
    pub previous: bool,
    /// Lines of recent log file to display; -1 for all
    #[arg(long, allow_negative_numbers = true)]
    pub tail: Option<i64>,
    /// Only return logs newer than a relative duration like 5s, 2m, or 3h
    #[arg(long, value_parser = crate::cli::timeout)]
    pub since: Option<Duration>,
    /// Only return logs after a specific date (RFC3339)
    #[arg(long)]
    pub since_time: Option<String>,
    /// Include timestamps on each line
    #[arg(long)]
    pub timestamps: bool,
    /// Maximum bytes of logs to return
    #[arg(long)]
    pub limit_bytes: Option<u64>,
    /// Prefix each log line with the log source
    #[arg(long)]
    pub prefix: bool,
    /// If watching/following logs, allow for errors
    #[arg(long)]
    pub ignore_errors: bool,
    /// Maximum number of concurrent logs to follow when using a selector
    #[arg(long, default_value_t = 5)]
    pub max_log_requests: usize,
    /// Skip verifying the identity of the kubelet
    #[arg(long)]
    pub insecure_skip_tls_verify_backend: bool,
}

/// One log to read.
struct Source {
    call: Call,
    prefix: String,
}

impl Logs {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        self.check()?;
        let pods = self.pods(session).await?;
        let mut sources = Vec::new();
        for pod in &pods {
            sources.extend(self.sources(pod)?);
        }
        if !self.follow || sources.len() == 1 {
            for source in sources {
                match self.stream(session, source).await {
                    Err(e) if self.ignore_errors => warn(format!("error: {}", e.report())),
                    other => other?,
                }
            }
            return Ok(());
        }
        if sources.len() > self.max_log_requests {
            return Err(Error::message(format!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
                sources.len(),
                self.max_log_requests
            )));
        }
        let all = futures::stream::iter(sources.into_iter().map(|s| self.stream(session, s)));
        all.buffer_unordered(self.max_log_requests.max(1)).try_collect().await
    }

    fn check(&self) -> Result<()> {
        let selecting = !self.selector.is_empty();
        if self.args.is_empty() && !selecting {
            return Err(Error::Plain("error: expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command\nSee 'kubectl logs -h' for help and examples".into()));
        }
        if !self.args.is_empty() && selecting {
            return Err(Error::message("only a selector (-l) or a POD name is allowed"));
        }
        if self.args.len() > 2 {
            return Err(Error::message("expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'."));
        }
        if self.since.is_some() && self.since_time.is_some() {
            return Err(Error::message("at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
        if self.all_containers && self.container.is_some() {
            return Err(Error::message("--all-containers=true should not be specified with container name"));
        }
        if self.tail.is_some_and(|t| t < -1) {
            return Err(Error::message("--tail must be greater than or equal to -1"));
        }
        if let Some(time) = &self.since_time {
            time.parse::<jiff::Timestamp>()
                .map_err(|e| Error::message(format!("parsing time {time:?}: {e}")))?;
        }
        Ok(())
    }

    async fn pods(&self, session: &Session) -> Result<Vec<Value>> {
        if !self.selector.is_empty() {
            let namespace = session.namespace().await?;
            let pods = pods::pods_by_label(session, namespace, &self.selector).await?;
            if pods.is_empty() {
                warn(format!("No resources found in {namespace} namespace."));
            }
            return Ok(pods);
        }
        let target = pods::target(session, &self.args[..1]).await?;
        let mut pods = pods::pods_of(session, &target).await.map_err(|e| missing(e, &target.namespace))?;
        if pods.len() > 1 && !self.all_pods {
            let name = pods[0]["metadata"]["name"].as_str().unwrap_or_default();
            warn(format!("Found {} pods, using pod/{name}", pods.len()));
            pods.truncate(1);
        }
        Ok(pods)
    }

    fn sources(&self, pod: &Value) -> Result<Vec<Source>> {
        let named = self.container.as_deref().or(self.args.get(1).map(String::as_str));
        let containers = match self.all_containers {
            true => pods::all_containers(pod),
            false => vec![pods::container(pod, named, false)?],
        };
        Ok(containers.into_iter().map(|c| self.source(pod, &c)).collect())
    }

    fn source(&self, pod: &Value, container: &str) -> Source {
        let meta = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let path =
            format!("/api/v1/namespaces/{}/pods/{}/log", encode(meta("namespace")), encode(meta("name")));
        let flag = |set: bool| if set { "true" } else { "" };
        // Upstream shows ten lines of each pod that a selector finds.
        let tail = self.tail.unwrap_or(if self.selector.is_empty() { -1 } else { 10 });
        let call = Call::get(path)
            .accept("application/json, */*")
            .query("container", container)
            .query("follow", flag(self.follow))
            .query("previous", flag(self.previous))
            .query("timestamps", flag(self.timestamps))
            .query("tailLines", if tail >= 0 { tail.to_string() } else { String::new() })
            .query("sinceSeconds", self.since.map(|s| s.as_secs_f64().ceil().to_string()).unwrap_or_default())
            .query("sinceTime", self.since_time.clone().unwrap_or_default())
            .query("limitBytes", self.limit_bytes.map(|b| b.to_string()).unwrap_or_default())
            .query("insecureSkipTLSVerifyBackend", flag(self.insecure_skip_tls_verify_backend));
        let prefix = match self.prefix {
            true => format!("[pod/{}/{container}] ", meta("name")),
            false => String::new(),
        };
        Source { call, prefix }
    }

    async fn stream(&self, session: &Session, source: Source) -> Result<()> {
        let mut chunks = session.stream(&source.call).await?;
        if source.prefix.is_empty() && (!self.follow || self.selector.is_empty()) {
            while let Some(chunk) = chunks.try_next().await? {
                write(&chunk)?;
            }
            return Ok(());
        }
        // Lines of several logs must not run into each other.
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = chunks.try_next().await? {
            rest.extend_from_slice(&chunk);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                print(&source.prefix)?;
                write(&line)?;
            }
        }
        if !rest.is_empty() {
            print(&source.prefix)?;
            rest.push(b'\n');
            write(&rest)?;
        }
        Ok(())
    }
}

/// Upstream names the namespace of a pod that is not there.
fn missing(error: Error, namespace: &str) -> Error {
    match error {
        Error::Status(status) if status.reason.as_deref() == Some("NotFound") => Error::message(format!(
            "error from server (NotFound): {} in namespace {namespace:?}",
            status.message.as_deref().unwrap_or_default()
        )),
        other => other,
    }
}

/// Logs are bytes and need not be text.
fn write(bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| match e.kind() {
        std::io::ErrorKind::BrokenPipe => Error::Exit(141),
        _ => Error::message(format!("write to standard output: {e}")),
    })
}
