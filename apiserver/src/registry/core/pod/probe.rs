//! What is wrong with probes and lifecycle hooks.

use api::openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use api::validation::FieldError;

use crate::registry::fields::{Errors, not_negative, one_of, port, port_or_name, set};

/// Checks a container's probes and hooks.
pub fn probes_and_hooks(errors: &mut Errors, field: &str, container: &Container) {
    let lifecycle = container.lifecycle.as_ref();
    let hooks = [
        ("postStart", lifecycle.and_then(|l| l.post_start.as_ref())),
        ("preStop", lifecycle.and_then(|l| l.pre_stop.as_ref())),
    ];
    for (name, hook) in hooks {
        if let Some(hook) = hook {
            let handlers = hook_handlers(hook);
            handler(errors, &format!("{field}.lifecycle.{name}"), &handlers);
        }
    }
    let probes = [
        (Purpose::Liveness, "livenessProbe", &container.liveness_probe),
        (Purpose::Readiness, "readinessProbe", &container.readiness_probe),
        (Purpose::Startup, "startupProbe", &container.startup_probe),
    ];
    for (purpose, name, probe) in probes {
        if let Some(probe) = probe {
            validate(errors, &format!("{field}.{name}"), probe, purpose);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    Liveness,
    Readiness,
    Startup,
}

fn validate(errors: &mut Errors, field: &str, probe: &Probe, purpose: Purpose) {
    let at = |name: &str| format!("{field}.{name}");
    let grpc = probe.grpc.as_ref().map(|grpc| Handler::Grpc(grpc.port));
    let mut handlers = common_handlers(&probe.exec, &probe.http_get, &probe.tcp_socket);
    handlers.extend(grpc);
    handler(errors, field, &handlers);
    not_negative(errors, &at("initialDelaySeconds"), probe.initial_delay_seconds);
    not_negative(errors, &at("timeoutSeconds"), probe.timeout_seconds);
    not_negative(errors, &at("periodSeconds"), probe.period_seconds);
    not_negative(errors, &at("successThreshold"), probe.success_threshold);
    not_negative(errors, &at("failureThreshold"), probe.failure_threshold);
    let grace = at("terminationGracePeriodSeconds");
    match probe.termination_grace_period_seconds {
        Some(seconds) if purpose == Purpose::Readiness => {
            errors.push(FieldError::invalid(grace, seconds, "must not be set for readinessProbes"));
        }
        Some(seconds) if seconds <= 0 => {
            errors.push(FieldError::invalid(grace, seconds, "must be greater than 0"));
        }
        _ => {}
    }
    if purpose != Purpose::Readiness
        && let Some(threshold) = probe.success_threshold.filter(|t| *t != 1)
    {
        errors.push(FieldError::invalid(at("successThreshold"), threshold, "must be 1"));
    }
}

/// What a probe or a hook does.
enum Handler<'a> {
    Exec(&'a ExecAction),
    Http(&'a HTTPGetAction),
    Tcp(&'a TCPSocketAction),
    Grpc(i32),
    Sleep(i64),
}

impl Handler<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Http(_) => "httpGet",
            Self::Tcp(_) => "tcpSocket",
            Self::Grpc(_) => "grpc",
            Self::Sleep(_) => "sleep",
        }
    }
}

fn common_handlers<'a>(
    exec: &'a Option<ExecAction>,
    http: &'a Option<HTTPGetAction>,
    tcp: &'a Option<TCPSocketAction>,
) -> Vec<Handler<'a>> {
    let all =
        [exec.as_ref().map(Handler::Exec), http.as_ref().map(Handler::Http), tcp.as_ref().map(Handler::Tcp)];
    all.into_iter().flatten().collect()
}

fn hook_handlers(hook: &LifecycleHandler) -> Vec<Handler<'_>> {
    let mut handlers = common_handlers(&hook.exec, &hook.http_get, &hook.tcp_socket);
    handlers.extend(hook.sleep.as_ref().map(|sleep| Handler::Sleep(sleep.seconds)));
    handlers
}

fn handler(errors: &mut Errors, field: &str, handlers: &[Handler<'_>]) {
    if handlers.is_empty() {
        errors.push(FieldError::required(field, "must specify a handler type"));
    }
    for (i, handler) in handlers.iter().enumerate() {
        let field = format!("{field}.{}", handler.name());
        if i > 0 {
            errors.push(FieldError::forbidden(field, "may not specify more than 1 handler type"));
            continue;
        }
        match handler {
            Handler::Exec(exec) => {
                if exec.command.as_ref().is_none_or(Vec::is_empty) {
                    errors.push(FieldError::required(format!("{field}.command"), ""));
                }
            }
            Handler::Http(http) => http_get(errors, &field, http),
            Handler::Tcp(tcp) => port_or_name(errors, &format!("{field}.port"), &tcp.port),
            Handler::Grpc(number) => port(errors, &format!("{field}.port"), *number),
            Handler::Sleep(seconds) => not_negative(errors, &format!("{field}.seconds"), Some(*seconds)),
        }
    }
}

fn http_get(errors: &mut Errors, field: &str, action: &HTTPGetAction) {
    if set(action.path.as_deref()).is_none() {
        errors.push(FieldError::required(format!("{field}.path"), ""));
    }
    port_or_name(errors, &format!("{field}.port"), &action.port);
    one_of(errors, &format!("{field}.scheme"), action.scheme.as_deref(), &["HTTP", "HTTPS"]);
    for (i, header) in action.http_headers.iter().flatten().enumerate() {
        let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if header.name.is_empty() || !header.name.bytes().all(token) {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
                'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            let field = format!("{field}.httpHeaders[{i}].name");
            errors.push(FieldError::invalid(field, header.name.as_str(), detail));
        }
    }
}
