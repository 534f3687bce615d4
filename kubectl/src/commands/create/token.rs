//! `kubectl create token`: asks for a token of a service account.

use clap::Args;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::output::{print, println};
use crate::session::{Call, Session, encode};

/// Request a service account token
#[derive(Args, Debug)]
pub struct Token {
    /// SERVICE_ACCOUNT_NAME
    name: String,
    /// Audience of the requested token; may be repeated
    #[arg(long)]
    audience: Vec<String>,
    /// Requested lifetime of the issued token; the server may return another one
    #[arg(long, value_parser = component::flags::duration)]
    duration: Option<std::time::Duration>,
    /// Kind of an object to bind the token to: Pod, Secret or Node
    #[arg(long, default_value = "", hide_default_value = true)]
    bound_object_kind: String,
    /// Name of an object to bind the token to
    #[arg(long, default_value = "", hide_default_value = true)]
    bound_object_name: String,
    /// UID of an object to bind the token to
    #[arg(long, default_value = "", hide_default_value = true)]
    bound_object_uid: String,
    /// Output format: json, yaml or another of get's
    #[arg(long, short = 'o', default_value = "", hide_default_value = true)]
    output: String,
}

impl Token {
    fn request(&self, namespace: &str) -> Result<Value> {
        let mut request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"namespace": namespace},
            "spec": {"audiences": self.audience},
        });
        if let Some(duration) = self.duration {
            if duration.is_zero() {
                return Err(Error::message("--duration must be greater than or equal to 0"));
            }
            if duration.subsec_nanos() > 0 {
                return Err(Error::message("--duration cannot be expressed in units less than seconds"));
            }
            request["spec"]["expirationSeconds"] = duration.as_secs().into();
        }
        match self.bound_object_kind.as_str() {
            "" => {
                for (flag, value) in [
                    ("--bound-object-name", &self.bound_object_name),
                    ("--bound-object-uid", &self.bound_object_uid),
                ] {
                    if !value.is_empty() {
                        return Err(Error::message(format!(
                            "{flag} can only be set if --bound-object-kind is provided"
                        )));
                    }
                }
            }
            "Pod" | "Secret" | "Node" => {
                if self.bound_object_name.is_empty() {
                    return Err(Error::message(
                        "--bound-object-name is required if --bound-object-kind is provided",
                    ));
                }
                let mut reference = json!({"apiVersion": "v1", "kind": self.bound_object_kind, "name": self.bound_object_name});
                if !self.bound_object_uid.is_empty() {
                    reference["uid"] = self.bound_object_uid.clone().into();
                }
                request["spec"]["boundObjectRef"] = reference;
            }
            _ => return Err(Error::message("supported --bound-object-kind values are Node, Pod, Secret")),
        }
        Ok(request)
    }

    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let namespace = session.namespace().await?;
        let request = self.request(namespace)?;
        let path =
            format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", encode(namespace), encode(&self.name));
        let answer = session.json(&Call::post(path, &request)).await;
        let answer = answer.map_err(|error| match error {
            Error::Status(status) => {
                Error::message(format!("failed to create token: {}", status.message.unwrap_or_default()))
            }
            other => other,
        })?;
        if !self.output.is_empty() {
            let format = crate::output::printer::Format::parse(&self.output, Default::default());
            return print(&format?.render(&answer)?);
        }
        match answer["status"]["token"].as_str().filter(|token| !token.is_empty()) {
            Some(token) => println(token),
            None => Err(Error::message("failed to create token: no token in server response")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        token: Token,
    }

    fn request(line: &str) -> Result<Value> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words).expect("a command line").token.request("ns")
    }

    #[test]
    fn flags_become_a_request() {
        let made = request(
            "robot --audience a --audience b --duration 20m --bound-object-kind Pod --bound-object-name p",
        );
        let spec = made.expect("fine")["spec"].clone();
        let wanted = json!({
            "audiences": ["a", "b"], "expirationSeconds": 1200,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"},
        });
        assert_eq!(spec, wanted);
        for bad in [
            "r --bound-object-name x",
            "r --bound-object-kind Pod",
            "r --bound-object-kind X --bound-object-name y",
        ] {
            assert!(request(bad).is_err(), "{bad}");
        }
    }
}
