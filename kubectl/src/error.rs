//! Errors as kubectl reports them, and the exit codes that scripts look at.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// What every command returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed. How it is worded for the terminal is [`Error::report`].
#[derive(Debug, Clone)]
pub enum Error {
    /// The server refused; the message may have been put in context.
    Status(Box<Status>),
    /// Anything else; printed after `error: `.
    Message(String),
    /// Printed as it stands.
    Plain(String),
    /// Reported already, or nothing to say: only the exit code is left.
    Exit(i32),
    /// Several failures of one command.
    Many(Vec<Error>),
}

impl Error {
    /// A failure that is printed after `error: `.
    pub fn message(text: impl std::fmt::Display) -> Self {
        Self::Message(text.to_string())
    }

    /// Wrong use of a command.
    pub fn usage(command: &str, text: impl std::fmt::Display) -> Self {
        Self::Plain(format!("error: {text}\nSee 'kubectl {command} -h' for help and examples"))
    }

    /// Nothing, one error, or several as one.
    pub fn from_list(mut errors: Vec<Self>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Many(errors)),
        }
    }

    /// The same failure, naming what was being done to what.
    pub fn when(self, verb: &str, source: &str) -> Self {
        let context = |text: &str| format!("error when {verb} \"{source}\": {text}");
        match self {
            Self::Status(mut status) => {
                status.message = Some(context(status.message.as_deref().unwrap_or_default()));
                Self::Status(status)
            }
            Self::Message(text) => Self::Message(context(&text)),
            other => other,
        }
    }

    /// The `reason` of a refusal.
    pub fn reason(&self) -> &str {
        match self {
            Self::Status(status) => status.reason.as_deref().unwrap_or_default(),
            _ => "",
        }
    }

    /// The HTTP code of a refusal, or 0.
    pub fn code(&self) -> i32 {
        match self {
            Self::Status(status) => status.code.unwrap_or_default(),
            _ => 0,
        }
    }

    /// Whether the server said that something does not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound" || self.code() == 404
    }

    /// Whether the object has changed since it was read.
    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    /// Whether the object is there already.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// Whether a watch or a continued list began at a version that is kept no more.
    pub fn is_expired(&self) -> bool {
        self.code() == 410 || matches!(self.reason(), "Expired" | "Gone")
    }

    /// What the process exits with.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exit(code) => *code,
            _ => 1,
        }
    }

    /// The lines for standard error; empty for what was reported already.
    pub fn report(&self) -> String {
        match self {
            Self::Status(status) => report_status(status),
            Self::Message(text) if text.starts_with("error: ") => text.clone(),
            Self::Message(text) => format!("error: {text}"),
            Self::Plain(text) => text.clone(),
            Self::Exit(_) => String::new(),
            Self::Many(errors) => {
                let lines: Vec<String> =
                    errors.iter().map(Self::among_others).filter(|l| !l.is_empty()).collect();
                lines.join("\n")
            }
        }
    }

    /// The line for one failure of several, which upstream words a little differently.
    fn among_others(&self) -> String {
        match self {
            Self::Status(status) => report_reason(status),
            Self::Message(text) => text.clone(),
            other => other.report(),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Self::message(e)
    }
}

fn report_status(status: &Status) -> String {
    match status.reason.as_deref() {
        Some("Invalid") => report_invalid(status),
        _ => report_reason(status),
    }
}

fn report_reason(status: &Status) -> String {
    let message = status.message.as_deref().unwrap_or_default();
    match status.reason.as_deref().unwrap_or_default() {
        "Unauthorized" => {
            format!("error: You must be logged in to the server ({})", first_of(message, "Unauthorized"))
        }
        "" => format!("Error from server: {}", first_of(message, "unknown")),
        reason => format!("Error from server ({reason}): {message}"),
    }
}

fn first_of<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// `The Pod "x" is invalid: spec.containers: Required value`, one line per cause when there are several.
fn report_invalid(status: &Status) -> String {
    let Some(details) = &status.details else {
        return format!("The request is invalid: {}", status.message.as_deref().unwrap_or_default());
    };
    let mut text = format!(
        "The {} {:?} is invalid",
        details.kind.as_deref().unwrap_or("request"),
        details.name.as_deref().unwrap_or_default()
    );
    let mut causes: Vec<String> = Vec::new();
    for cause in details.causes.iter().flatten() {
        let line = match cause.field.as_deref() {
            Some(field) => format!("{field}: {}", cause.message.as_deref().unwrap_or_default()),
            None => cause.message.clone().unwrap_or_default(),
        };
        if !causes.contains(&line) {
            causes.push(line);
        }
    }
    match causes.as_slice() {
        [] => {}
        [one] => text.push_str(&format!(": {one}")),
        many => {
            text.push_str(": ");
            for cause in many {
                text.push_str(&format!("\n* {cause}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(status: serde_json::Value, want: &str) {
        let error = Error::Status(Box::new(serde_json::from_value(status).unwrap()));
        assert_eq!(error.report(), want);
    }

    #[test]
    fn a_refusal_names_its_reason() {
        check(
            json!({"reason": "NotFound", "message": "pods \"x\" not found"}),
            "Error from server (NotFound): pods \"x\" not found",
        );
        check(json!({"message": "boom"}), "Error from server: boom");
        check(
            json!({"reason": "Unauthorized", "message": "Unauthorized"}),
            "error: You must be logged in to the server (Unauthorized)",
        );
    }

    #[test]
    fn an_invalid_object_lists_its_fields() {
        let details =
            |causes| json!({"reason": "Invalid", "details": {"kind": "Pod", "name": "x", "causes": causes}});
        check(
            details(json!([{"field": "spec.a", "message": "Required value"}])),
            "The Pod \"x\" is invalid: spec.a: Required value",
        );
        check(
            details(json!([{"field": "spec.a", "message": "bad"}, {"field": "spec.b", "message": "worse"}])),
            "The Pod \"x\" is invalid: \n* spec.a: bad\n* spec.b: worse",
        );
    }

    #[test]
    fn context_goes_into_the_message() {
        let error = Error::Message("boom".into()).when("creating", "a.yaml");
        assert_eq!(error.report(), "error: error when creating \"a.yaml\": boom");
    }
}
