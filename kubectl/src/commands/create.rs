//! `kubectl create`: from files, or simple objects from flags.

use base64::Engine;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::change::{ChangeArgs, DryRun, pair};
use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::output::print;
use crate::resource::targets;
use crate::session::{Call, Session};

mod service;
mod token;

/// Create a resource from a file or from stdin
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Create {
    #[command(subcommand)]
    command: Option<Sub>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    how: How,
    /// Must be one of: strict (or true), warn, ignore (or false)
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    validate: String,
    /// Create only the manifests that match a label selector
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    selector: String,
}

#[derive(Args, Debug, Clone)]
pub struct How {
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Keep the manifest in the annotation that kubectl apply reads
    #[arg(long)]
    pub save_config: bool,
}

#[derive(Subcommand, Debug)]
enum Sub {
    /// Create a deployment with the specified name
    #[command(alias = "deploy")]
    Deployment(Deployment),
    /// Create a namespace with the specified name
    #[command(alias = "ns")]
    Namespace(Named),
    /// Create a config map from a local file, directory or literal value
    #[command(alias = "cm")]
    Configmap(Data),
    /// Create a secret using a specified subcommand
    Secret(Secret),
    /// Create a service account with the specified name
    #[command(alias = "sa")]
    Serviceaccount(Named),
    /// Create a service using a specified subcommand
    #[command(alias = "svc")]
    Service(service::Service),
    /// Create a job with the specified name
    Job(Job),
    /// Request a service account token
    Token(token::Token),
}

#[derive(Args, Debug)]
struct Named {
    name: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct Deployment {
    name: String,
    /// Image names to run; one container each
    #[arg(long, required = true, value_delimiter = ',')]
    image: Vec<String>,
    /// The containerPort that this deployment exposes
    #[arg(long)]
    port: Option<u16>,
    /// Number of replicas to create
    #[arg(long, short = 'r', default_value_t = 1, allow_negative_numbers = true)]
    replicas: i64,
    /// COMMAND [args...] of the only container
    #[arg(last = true)]
    command: Vec<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct Data {
    name: String,
    /// [KEY=]FILE or a folder of files
    #[arg(long)]
    from_file: Vec<String>,
    /// KEY=VALUE
    #[arg(long)]
    from_literal: Vec<String>,
    /// A file of KEY=VALUE lines
    #[arg(long)]
    from_env_file: Vec<String>,
    /// Type of the secret
    #[arg(long = "type", default_value = "", hide_default_value = true)]
    kind: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct Secret {
    #[command(subcommand)]
    command: SecretSub,
}

#[derive(Subcommand, Debug)]
enum SecretSub {
    /// Create a secret from a local file, directory, or literal value
    Generic(Data),
    /// Create a TLS secret
    Tls(Tls),
}

#[derive(Args, Debug)]
struct Tls {
    name: String,
    /// Path to PEM encoded public key certificate
    #[arg(long)]
    cert: String,
    /// Path to private key
    #[arg(long)]
    key: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct Job {
    name: String,
    /// Image name to run
    #[arg(long)]
    image: String,
    /// COMMAND [args...]
    #[arg(last = true)]
    command: Vec<String>,
    #[command(flatten)]
    how: How,
}

impl Create {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            None => self.create_files(session).await,
            Some(Sub::Deployment(d)) => {
                submit(session, &d.how, d.object()?, created("failed to create deployment:")).await
            }
            Some(Sub::Namespace(n)) => {
                let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n.name}, "spec": {}, "status": {}});
                submit(session, &n.how, object, created("")).await
            }
            Some(Sub::Serviceaccount(n)) => {
                let object =
                    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": n.name}});
                submit(session, &n.how, object, created("failed to create serviceaccount:")).await
            }
            Some(Sub::Configmap(d)) => {
                submit(session, &d.how, d.config_map()?, created("failed to create configmap:")).await
            }
            Some(Sub::Secret(Secret { command: SecretSub::Generic(d) })) => {
                submit(session, &d.how, d.secret()?, created("failed to create secret")).await
            }
            Some(Sub::Secret(Secret { command: SecretSub::Tls(t) })) => {
                submit(session, &t.how, t.object()?, created("failed to create secret")).await
            }
            Some(Sub::Service(s)) => {
                let (object, how) = s.object()?;
                submit(session, &how, object, created("failed to create service:")).await
            }
            Some(Sub::Token(t)) => t.run(session).await,
            Some(Sub::Job(j)) => submit(session, &j.how, j.object(), created("failed to create job:")).await,
        }
    }

    async fn create_files(self, session: &Session) -> Result<()> {
        if self.files.is_empty() {
            return Err(Error::usage("create", "must specify one of -f and -k"));
        }
        let validation = super::apply::field_validation(&self.validate)?;
        let mut format = self.how.change.format()?;
        let (targets, mut errors) = targets::resolve(session, &[], &self.files, false).await?;
        let mut any = false;
        for target in targets {
            if !super::apply::selected(&target, &self.selector)? {
                continue;
            }
            any = true;
            let Some(document) = &target.document else { continue };
            let object = match self.how.save_config {
                true => crate::apply::with_last_applied(&document.value),
                false => document.value.clone(),
            };
            let outcome = match self.how.change.dry_run {
                DryRun::Client => Ok(object),
                _ => {
                    let call = Call::post(target.resource.path(&target.namespace), &object)
                        .query("fieldValidation", validation);
                    session.json(&self.how.change.dress(call, "kubectl-create")).await
                }
            };
            match outcome {
                Ok(created) => self.how.change.print(&mut format, &created, "created")?,
                Err(e) => errors.push(e.when("creating", &document.source)),
            }
        }
        if !any && errors.is_empty() {
            return Err(Error::message("no objects passed to create"));
        }
        Error::from_list(errors)
    }
}

/// Creates an object and prints what it became.
pub async fn submit(session: &Session, how: &How, mut object: Value, words: Words) -> Result<()> {
    let mut format = how.change.format()?;
    let offline = how.change.dry_run == DryRun::Client;
    if offline {
        // The namespace is written down where it was asked for; the server is not.
        if let Some(namespace) = session.globals.namespace.as_ref().filter(|_| object["kind"] != "Namespace")
        {
            object["metadata"]["namespace"] = json!(namespace);
        }
        if how.save_config {
            object = crate::apply::with_last_applied(&object);
        }
        if let crate::output::printer::Format::Human(_) = format {
            return how.change.print(&mut format, &object, words.done);
        }
        return print(&format.render(&object)?);
    }
    let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let resource = session
        .resource_of_kind(&api_version, &kind)
        .await?
        .ok_or_else(|| Error::message(format!("no matches for kind {kind:?} in version {api_version:?}")))?;
    let mut namespace = String::new();
    if resource.namespaced {
        session.namespace().await?.clone_into(&mut namespace);
        object["metadata"]["namespace"] = json!(namespace);
    }
    if how.save_config {
        object = crate::apply::with_last_applied(&object);
    }
    let call = Call::post(resource.path(&namespace), &object);
    let created =
        session.json(&how.change.dress(call, "kubectl-create")).await.map_err(|e| refused(words, e))?;
    how.change.print(&mut format, &created, words.done)
}

/// How a creation is told of.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// What precedes the server's refusal; empty for the refusal alone.
    pub failed: &'static str,
    /// `created`.
    pub done: &'static str,
}

const fn created(failed: &'static str) -> Words {
    Words { failed, done: "created" }
}

/// What kubectl says of an object that the server refuses to create.
fn refused(words: Words, error: Error) -> Error {
    match error {
        Error::Status(status) if !words.failed.is_empty() => {
            Error::message(format!("{} {}", words.failed, status.message.as_deref().unwrap_or_default()))
        }
        other => other,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Deployment {
    fn object(&self) -> Result<Value> {
        if self.replicas < 0 {
            return Err(Error::message(format!("--replicas must be zero or more, got {}", self.replicas)));
        }
        if self.image.len() > 1 && !self.command.is_empty() {
            return Err(Error::message("cannot specify multiple --image options and command"));
        }
        let several = self.image.len() > 1;
        let mut containers = Vec::new();
        for image in &self.image {
            let mut container =
                json!({"name": container_name(image, several), "image": image, "resources": {}});
            if let Some(port) = self.port {
                container["ports"] = json!([{"containerPort": port}]);
            }
            if !self.command.is_empty() {
                container["command"] = json!(self.command);
            }
            containers.push(container);
        }
        let labels = json!({"app": self.name});
        Ok(json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": labels},
                "strategy": {},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            },
            "status": {},
        }))
    }
}

/// A container's name out of its image: the last part without tag and digest, fit for a DNS label.
pub fn container_name(image: &str, unique: bool) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    let bare = last.split(['@', ':']).next().unwrap_or_default();
    let name: String =
        bare.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let name = name.trim_matches('-').to_owned();
    if !unique {
        return name;
    }
    let digest = <sha2::Sha256 as sha2::Digest>::digest(image.as_bytes());
    let suffix: String = digest.iter().take(3).map(|b| format!("{b:02x}")).collect();
    format!("{name}-{}", &suffix[..5])
}

/// Bytes by key.
type Entries = Vec<(String, Vec<u8>)>;

impl Data {
    fn entries(&self) -> Result<Entries> {
        if !self.from_env_file.is_empty() && (!self.from_file.is_empty() || !self.from_literal.is_empty()) {
            return Err(Error::message("from-env-file cannot be combined with from-file or from-literal"));
        }
        let mut entries = Entries::new();
        for source in &self.from_file {
            read_files(source, &mut entries)?;
        }
        for literal in &self.from_literal {
            let (key, value) = pair(literal).map_err(|_| {
                Error::message(format!("invalid literal source {literal}, expected key=value"))
            })?;
            let value = value.trim_matches(|c| c == '\'' || c == '"');
            add(&mut entries, key, value.as_bytes().to_vec())?;
        }
        for file in &self.from_env_file {
            read_env(file, &mut entries)?;
        }
        Ok(entries)
    }

    fn config_map(&self) -> Result<Value> {
        let (mut data, mut binary) = (Map::new(), Map::new());
        for (key, bytes) in self.entries()? {
            match String::from_utf8(bytes) {
                Ok(text) => data.insert(key, json!(text)),
                Err(e) => binary.insert(key, json!(encoded(e.as_bytes()))),
            };
        }
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}});
        for (field, map) in [("data", data), ("binaryData", binary)] {
            if !map.is_empty() {
                object[field] = Value::Object(map);
            }
        }
        Ok(object)
    }

    fn secret(&self) -> Result<Value> {
        let data: Map<String, Value> =
            self.entries()?.into_iter().map(|(k, v)| (k, json!(encoded(&v)))).collect();
        let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": self.name}});
        if !self.kind.is_empty() {
            object["type"] = json!(self.kind);
        }
        if !data.is_empty() {
            object["data"] = Value::Object(data);
        }
        Ok(object)
    }
}

fn encoded(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn add(entries: &mut Entries, key: String, value: Vec<u8>) -> Result<()> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if key.is_empty() || key.len() > 253 || !key.chars().all(valid) || key == "." || key.starts_with("..") {
        return Err(Error::message(format!(
            "{key:?} is not a valid key name: a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        )));
    }
    if entries.iter().any(|(have, _)| *have == key) {
        return Err(Error::message(format!(
            "cannot add key {key:?}, another key by that name already exists"
        )));
    }
    entries.push((key, value));
    Ok(())
}

/// `FILE`, `KEY=FILE`, or the files of a folder.
fn read_files(source: &str, entries: &mut Entries) -> Result<()> {
    let (key, path) = match source.split_once('=') {
        Some((key, path)) => (Some(key.to_owned()), path),
        None => (None, source),
    };
    let fail = |e: std::io::Error| Error::message(format!("error reading {path}: {e}"));
    let path_ref = std::path::Path::new(path);
    let name_of = |path: &std::path::Path| {
        path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    };
    if !std::fs::metadata(path_ref).map_err(fail)?.is_dir() {
        return add(
            entries,
            key.unwrap_or_else(|| name_of(path_ref)),
            std::fs::read(path_ref).map_err(fail)?,
        );
    }
    if key.is_some() {
        return Err(Error::message("cannot give a key name for a directory path"));
    }
    let files = std::fs::read_dir(path_ref).map_err(fail)?.map(|e| e.map(|e| e.path()));
    let mut files: Vec<_> = files.collect::<std::io::Result<_>>().map_err(fail)?;
    files.sort();
    for file in files.into_iter().filter(|f| f.is_file()) {
        add(entries, name_of(&file), std::fs::read(&file).map_err(fail)?)?;
    }
    Ok(())
}

fn read_env(file: &str, entries: &mut Entries) -> Result<()> {
    let text =
        std::fs::read_to_string(file).map_err(|e| Error::message(format!("error reading {file}: {e}")))?;
    for line in text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (line.to_owned(), std::env::var(line).unwrap_or_default()),
        };
        add(entries, key, value.into_bytes())?;
    }
    Ok(())
}

impl Tls {
    fn object(&self) -> Result<Value> {
        let read = |path: &str| {
            std::fs::read(path)
                .map(|b| encoded(&b))
                .map_err(|e| Error::message(format!("error reading {path}: {e}")))
        };
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.name},
            "type": "kubernetes.io/tls",
            "data": {"tls.crt": read(&self.cert)?, "tls.key": read(&self.key)?},
        }))
    }
}

impl Job {
    fn object(&self) -> Value {
        let mut container = json!({"name": self.name, "image": self.image, "resources": {}});
        if !self.command.is_empty() {
            container["command"] = json!(self.command);
        }
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.name},
            "spec": {"template": {"metadata": {}, "spec": {"containers": [container], "restartPolicy": "Never"}}},
            "status": {},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_named_after_their_image() {
        assert_eq!(container_name("registry:5000/a/My_App:v1", false), "my-app");
        assert_eq!(container_name("nginx@sha256:abc", false), "nginx");
        assert_eq!(container_name("busybox", true).len(), "busybox-".len() + 5);
    }

    #[test]
    fn keys_are_checked() {
        let mut entries = Entries::new();
        add(&mut entries, "a.b".into(), vec![]).unwrap();
        assert!(add(&mut entries, "a.b".into(), vec![]).is_err());
        assert!(add(&mut entries, "a/b".into(), vec![]).is_err());
        assert!(add(&mut entries, "..x".into(), vec![]).is_err());
    }
}
