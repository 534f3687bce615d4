//! Probes of containers: when to ask, how to ask, and what so many answers mean.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub mod exec;
pub mod grpc;
pub mod http;
pub mod tcp;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Failure restarts the container.
    Liveness,
    /// Failure takes the pod out of its Services.
    Readiness,
    /// Until it succeeds the others wait; failure restarts the container.
    Startup,
}

impl Purpose {
    /// As events name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        }
    }

    /// The container's probe of this purpose.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Startup => container.startup_probe.as_ref(),
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// As it should be.
    Success,
    /// The container is not well, with what it said.
    Failure(String),
    /// The question could not be put; it does not count.
    Error(String),
}

fn positive(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
}

fn seconds(value: Option<i32>, default: u32) -> Duration {
    Duration::from_secs(positive(value, default).into())
}

/// When a probe asks, and how many equal answers in a row make a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// From the container's start to the first question.
    pub initial_delay: Duration,
    /// Between questions.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Successes in a row that make a success.
    pub successes: u32,
    /// Failures in a row that make a failure.
    pub failures: u32,
}

impl From<&Probe> for Timing {
    fn from(probe: &Probe) -> Self {
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: positive(probe.success_threshold, 1),
            failures: positive(probe.failure_threshold, 3),
        }
    }
}

/// Counts answers.
#[derive(Clone, Debug)]
pub struct Counter {
    timing: Timing,
    last: Option<bool>,
    run: u32,
    result: Option<bool>,
}

impl Counter {
    /// Nothing was asked yet. `result` is what holds until then, if something does.
    pub fn new(timing: Timing, result: Option<bool>) -> Self {
        Self { timing, last: None, run: 0, result }
    }

    /// Takes an answer into account; a result when it differs from the one before.
    pub fn observe(&mut self, success: bool) -> Option<bool> {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = if success { self.timing.successes } else { self.timing.failures };
        if self.run < threshold || self.result == Some(success) {
            return None;
        }
        self.result = Some(success);
        self.result
    }
}

/// The number behind a port that may be given by the name of a container's port.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => {
                let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(text));
                named.map(|p| p.container_port).ok_or_else(|| format!("couldn't find port: {text:?}"))?
            }
        },
    };
    u16::try_from(number).ok().filter(|p| *p != 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// Puts the question of a probe once. `host` is the pod's address.
pub async fn ask(
    runtime: &crate::runtime::Runtime,
    probe: &Probe,
    container: &Container,
    id: &str,
    host: &str,
) -> Outcome {
    let timeout = Timing::from(probe).timeout;
    if let Some(action) = &probe.exec {
        return exec::ask(runtime, id, action.command.as_deref().unwrap_or_default(), timeout).await;
    }
    if let Some(action) = &probe.http_get {
        return match port(&action.port, container) {
            Ok(port) => http::ask(action, action.host.as_deref().unwrap_or(host), port, timeout).await,
            Err(why) => Outcome::Error(why),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        return match port(&action.port, container) {
            Ok(port) => tcp::ask(action.host.as_deref().unwrap_or(host), port, timeout).await,
            Err(why) => Outcome::Error(why),
        };
    }
    if let Some(action) = &probe.grpc {
        return match u16::try_from(action.port) {
            Ok(port) => grpc::ask(host, port, action.service.as_deref().unwrap_or_default(), timeout).await,
            Err(_) => Outcome::Error(format!("invalid port number: {}", action.port)),
        };
    }
    Outcome::Error(format!("missing probe handler for {}", container.name))
}

/// An address as it stands in a URL.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(initial: Option<bool>, answers: &[bool], results: &[Option<bool>]) {
        let probe: Probe =
            serde_json::from_value(json!({"successThreshold": 2, "failureThreshold": 3})).unwrap();
        let mut counter = Counter::new(Timing::from(&probe), initial);
        let seen: Vec<_> = answers.iter().map(|a| counter.observe(*a)).collect();
        assert_eq!(seen, results);
    }

    #[test]
    fn results_need_so_many_equal_answers() {
        check(None, &[true, true, true], &[None, Some(true), None]);
        check(
            Some(true),
            &[false, false, true, false, false, false, false],
            &[None, None, None, None, None, Some(false), None],
        );
        check(Some(false), &[false, false, false], &[None, None, None]);
    }

    #[test]
    fn unset_times_have_the_documented_defaults() {
        let timing = Timing::from(&Probe::default());
        assert_eq!(
            (timing.period.as_secs(), timing.timeout.as_secs(), timing.failures, timing.successes),
            (10, 1, 3, 1)
        );
    }

    #[test]
    fn ports_are_found_by_name() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}))
                .unwrap();
        let of = |text: &str| port(&IntOrString::String(text.into()), &container);
        assert_eq!(of("http"), Ok(8080));
        assert_eq!(of("81"), Ok(81));
        assert!(of("no").is_err());
        assert!(port(&IntOrString::Int(0), &container).is_err());
    }
}
