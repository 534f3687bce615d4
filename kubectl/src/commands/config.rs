//! `kubectl config`: views and changes kubeconfig files.

use base64::Engine;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::kubeconfig::{self, entry, set_entry};
use crate::output::{json as json_format, print, println, tabwriter, yaml};
use crate::session::Session;

/// Modify kubeconfig files
#[derive(Args, Debug)]
pub struct Config {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand, Debug)]
enum Sub {
    /// Display merged kubeconfig settings or a specified kubeconfig file
    View(View),
    /// Display the current-context
    CurrentContext,
    /// Set the current-context in a kubeconfig file
    #[command(alias = "use")]
    UseContext { name: String },
    /// Describe one or many contexts
    GetContexts(GetContexts),
    /// Display clusters defined in the kubeconfig
    GetClusters,
    /// Display users defined in the kubeconfig
    GetUsers,
    /// Set a context entry in kubeconfig
    SetContext(SetContext),
    /// Set a cluster entry in kubeconfig
    SetCluster(SetCluster),
    /// Set a user entry in kubeconfig
    SetCredentials(SetCredentials),
    /// Delete the specified context from the kubeconfig
    DeleteContext { name: String },
    /// Delete the specified cluster from the kubeconfig
    DeleteCluster { name: String },
    /// Delete the specified user from the kubeconfig
    DeleteUser { name: String },
    /// Rename a context
    RenameContext { old: String, new: String },
}

#[derive(Args, Debug)]
struct View {
    /// Display raw byte data and sensitive data
    #[arg(long)]
    raw: bool,
    /// Remove all information not used by current-context from the output
    #[arg(long)]
    minify: bool,
    /// Replace file names by the data in the files
    #[arg(long)]
    flatten: bool,
    /// Output format: yaml, json or jsonpath=...
    #[arg(long, short = 'o', default_value = "yaml")]
    output: String,
}

#[derive(Args, Debug)]
struct GetContexts {
    names: Vec<String>,
    /// Output format: name
    #[arg(long, short = 'o', default_value = "", hide_default_value = true)]
    output: String,
    /// Do not print headers
    #[arg(long)]
    no_headers: bool,
}

#[derive(Args, Debug)]
struct SetContext {
    name: Option<String>,
    /// Modify the current context
    #[arg(long)]
    current: bool,
}

#[derive(Args, Debug)]
struct SetCluster {
    name: String,
    /// Embed the certificate authority's data
    #[arg(long)]
    embed_certs: bool,
    /// Proxy for this cluster
    #[arg(long)]
    proxy_url: Option<String>,
}

#[derive(Args, Debug)]
struct SetCredentials {
    name: String,
    /// Embed the client certificate's and key's data
    #[arg(long)]
    embed_certs: bool,
    /// Username for basic authentication
    #[arg(long)]
    username: Option<String>,
    /// Password for basic authentication
    #[arg(long)]
    password: Option<String>,
}

impl Config {
    /// Runs the command.
    pub fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Sub::View(view) => view.run(session),
            Sub::CurrentContext => {
                let config = merged(session)?;
                match config["current-context"].as_str() {
                    None | Some("") => Err(Error::message("current-context is not set")),
                    Some(name) => println(name),
                }
            }
            Sub::UseContext { name } => use_context(session, &name),
            Sub::GetContexts(get) => get.run(session),
            Sub::GetClusters => print_names(session, "clusters"),
            Sub::GetUsers => print_names(session, "users"),
            Sub::SetContext(set) => set.run(session),
            Sub::SetCluster(set) => set.run(session),
            Sub::SetCredentials(set) => set.run(session),
            Sub::DeleteContext { name } => delete(session, "contexts", "context", &name),
            Sub::DeleteCluster { name } => delete(session, "clusters", "cluster", &name),
            Sub::DeleteUser { name } => delete(session, "users", "user", &name),
            Sub::RenameContext { old, new } => rename_context(session, &old, &new),
        }
    }
}

fn merged(session: &Session) -> Result<Value> {
    Ok(kubeconfig::merge(&kubeconfig::read(&session.globals)?))
}

/// Files to change: one that --kubeconfig names need not exist yet.
fn files(session: &Session) -> Result<Vec<kubeconfig::File>> {
    match &session.globals.kubeconfig {
        Some(path) if !std::path::Path::new(path).exists() => {
            Ok(vec![kubeconfig::File { path: path.into(), content: json!({}) }])
        }
        _ => kubeconfig::read(&session.globals),
    }
}

fn change(session: &Session, section: &str, name: &str, content: Option<Value>) -> Result<()> {
    let mut files = files(session)?;
    let file = kubeconfig::file_for(&mut files, section, name)?;
    set_entry(&mut file.content, section, name, content);
    kubeconfig::write(file)
}

impl View {
    fn run(self, session: &Session) -> Result<()> {
        let mut config = merged(session)?;
        if self.minify {
            config = minified(session, &config)?;
        }
        if self.flatten {
            flatten(&mut config)?;
        }
        if !self.raw {
            redact(&mut config);
        }
        match self.output.as_str() {
            "yaml" => print(&yaml::document(&config)),
            "json" => print(&json_format::pretty(&config)),
            other => {
                print(&crate::output::printer::Format::parse(other, Default::default())?.render(&config)?)
            }
        }
    }
}

fn minified(session: &Session, config: &Value) -> Result<Value> {
    let name = kubeconfig::current_context(&session.globals, config);
    let context = entry(config, "contexts", &name)
        .ok_or_else(|| Error::message("current-context must exist in order to minify"))?;
    let keep = |section: &str, name: &str| -> Value {
        let all = config[section].as_array().into_iter().flatten();
        all.filter(|e| e["name"] == name).cloned().collect::<Vec<_>>().into()
    };
    let mut small = config.clone();
    small["current-context"] = json!(name);
    small["contexts"] = keep("contexts", &name);
    small["clusters"] = keep("clusters", context["cluster"].as_str().unwrap_or_default());
    small["users"] = keep("users", context["user"].as_str().unwrap_or_default());
    Ok(small)
}

/// Puts the data of files where their names are.
fn flatten(config: &mut Value) -> Result<()> {
    for (section, field, names) in [
        ("clusters", "cluster", &["certificate-authority"][..]),
        ("users", "user", &["client-certificate", "client-key"][..]),
    ] {
        for item in config[section].as_array_mut().into_iter().flatten() {
            for name in names {
                embed(&mut item[field], name)?;
            }
        }
    }
    Ok(())
}

/// Replaces a file's name by its data.
fn embed(holder: &mut Value, field: &str) -> Result<()> {
    let Some(path) = holder.get(field).and_then(Value::as_str).map(str::to_owned) else { return Ok(()) };
    let bytes = std::fs::read(&path)
        .map_err(|e| Error::message(format!("could not read {field} data from {path}: {e}")))?;
    holder[format!("{field}-data")] = json!(base64::engine::general_purpose::STANDARD.encode(bytes));
    if let Some(map) = holder.as_object_mut() {
        map.remove(field);
    }
    Ok(())
}

fn redact(config: &mut Value) {
    let fields = [
        ("certificate-authority-data", "DATA+OMITTED"),
        ("client-certificate-data", "DATA+OMITTED"),
        ("client-key-data", "DATA+OMITTED"),
        ("token", "REDACTED"),
        ("password", "REDACTED"),
    ];
    for (section, field) in [("clusters", "cluster"), ("users", "user")] {
        for item in config[section].as_array_mut().into_iter().flatten() {
            for (name, shown) in fields {
                if item[field].get(name).is_some() {
                    item[field][name] = json!(shown);
                }
            }
        }
    }
}

fn use_context(session: &Session, name: &str) -> Result<()> {
    let mut files = files(session)?;
    if entry(&kubeconfig::merge(&files), "contexts", name).is_none() {
        return Err(Error::message(format!("no context exists with the name: {name:?}")));
    }
    // The first file that names a current context is the one that counts.
    let at = files
        .iter()
        .position(|f| f.content["current-context"].as_str().is_some_and(|c| !c.is_empty()))
        .unwrap_or(0);
    let file = &mut files[at];
    file.content["current-context"] = json!(name);
    kubeconfig::write(file)?;
    println(format!("Switched to context {name:?}."))
}

impl GetContexts {
    fn run(self, session: &Session) -> Result<()> {
        if !matches!(self.output.as_str(), "" | "name") {
            return Err(Error::message(format!("output must be one of '' or 'name': {}", self.output)));
        }
        let config = merged(session)?;
        let current = config["current-context"].as_str().unwrap_or_default();
        let mut lines = Vec::new();
        if self.output.is_empty() && !self.no_headers {
            lines.push("CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE".to_owned());
        }
        let missing = self.names.iter().find(|n| entry(&config, "contexts", n).is_none());
        for item in config["contexts"].as_array().into_iter().flatten() {
            let name = item["name"].as_str().unwrap_or_default();
            if !self.names.is_empty() && !self.names.iter().any(|n| n == name) {
                continue;
            }
            let field = |f: &str| item["context"][f].as_str().unwrap_or_default();
            lines.push(match self.output.as_str() {
                "name" => name.to_owned(),
                _ => format!(
                    "{}\t{name}\t{}\t{}\t{}",
                    if name == current { "*" } else { "" },
                    field("cluster"),
                    field("user"),
                    field("namespace")
                ),
            });
        }
        if !lines.is_empty() {
            lines.push(String::new());
        }
        print(&tabwriter::align(&lines.join("\n"), tabwriter::TABLE))?;
        match missing {
            Some(name) => Err(Error::message(format!("context {name} not found"))),
            None => Ok(()),
        }
    }
}

fn print_names(session: &Session, section: &str) -> Result<()> {
    let config = merged(session)?;
    println("NAME")?;
    config[section]
        .as_array()
        .into_iter()
        .flatten()
        .try_for_each(|e| println(e["name"].as_str().unwrap_or_default()))
}

/// Lays given values over an entry.
fn overlay(mut content: Value, values: &[(&str, Option<Value>)]) -> Value {
    for (field, value) in values {
        if let Some(value) = value {
            content[*field] = value.clone();
        }
    }
    content
}

fn present(session: &Session, section: &str, name: &str) -> Result<(Value, bool)> {
    let files = files(session)?;
    let found = files.iter().find_map(|f| entry(&f.content, section, name).cloned()).filter(Value::is_object);
    let existed = found.is_some();
    Ok((found.unwrap_or_else(|| json!({})), existed))
}

impl SetContext {
    fn run(self, session: &Session) -> Result<()> {
        let globals = &session.globals;
        let current =
            kubeconfig::merge(&files(session)?)["current-context"].as_str().unwrap_or_default().to_owned();
        let name = match (self.name, self.current) {
            (Some(_), true) => {
                return Err(Error::message("you cannot specify both a context name and --current"));
            }
            (Some(name), false) => name,
            (None, true) if current.is_empty() => return Err(Error::message("no current context is set")),
            (None, true) => current,
            (None, false) => {
                return Err(Error::message("you must specify a non-empty context name or --current"));
            }
        };
        let (content, existed) = present(session, "contexts", &name)?;
        let content = overlay(
            content,
            &[
                ("cluster", globals.cluster.clone().map(Value::from)),
                ("user", globals.user.clone().map(Value::from)),
                ("namespace", globals.namespace.clone().map(Value::from)),
            ],
        );
        let content = overlay(
            json!({"cluster": "", "user": ""}),
            &[
                ("cluster", content.get("cluster").cloned()),
                ("user", content.get("user").cloned()),
                ("namespace", content.get("namespace").cloned()),
            ],
        );
        change(session, "contexts", &name, Some(content))?;
        println(format!("Context {name:?} {}.", if existed { "modified" } else { "created" }))
    }
}

impl SetCluster {
    fn run(self, session: &Session) -> Result<()> {
        let globals = &session.globals;
        let (content, _) = present(session, "clusters", &self.name)?;
        let mut content = overlay(
            content,
            &[
                ("server", globals.server.clone().map(|s| s.trim_end_matches('/').into())),
                ("certificate-authority", globals.certificate_authority.as_deref().map(absolute)),
                ("tls-server-name", globals.tls_server_name.clone().map(Value::from)),
                ("insecure-skip-tls-verify", globals.insecure_skip_tls_verify.then_some(json!(true))),
                ("proxy-url", self.proxy_url.clone().map(Value::from)),
            ],
        );
        if self.embed_certs {
            embed(&mut content, "certificate-authority")?;
        }
        change(session, "clusters", &self.name, Some(content))?;
        println(format!("Cluster {:?} set.", self.name))
    }
}

impl SetCredentials {
    fn run(self, session: &Session) -> Result<()> {
        let globals = &session.globals;
        let (content, _) = present(session, "users", &self.name)?;
        let mut content = overlay(
            content,
            &[
                ("client-certificate", globals.client_certificate.as_deref().map(absolute)),
                ("client-key", globals.client_key.as_deref().map(absolute)),
                ("token", globals.token.clone().map(Value::from)),
                ("username", self.username.clone().map(Value::from)),
                ("password", self.password.clone().map(Value::from)),
            ],
        );
        if self.embed_certs {
            embed(&mut content, "client-certificate")?;
            embed(&mut content, "client-key")?;
        }
        change(session, "users", &self.name, Some(content))?;
        println(format!("User {:?} set.", self.name))
    }
}

fn absolute(path: &str) -> Value {
    let full = std::path::absolute(path).map_or_else(|_| path.to_owned(), |p| p.display().to_string());
    Value::from(full)
}

fn delete(session: &Session, section: &str, what: &str, name: &str) -> Result<()> {
    let mut files = files(session)?;
    let file = kubeconfig::file_for(&mut files, section, name)?;
    let path = file.path.display().to_string();
    if entry(&file.content, section, name).is_none() {
        return Err(Error::message(format!("cannot delete {what} {name}, not in {path}")));
    }
    if section == "contexts" && file.content["current-context"] == name {
        crate::output::warn(
            "warning: this removed your active context, use \"kubectl config use-context\" to select a different one",
        );
    }
    set_entry(&mut file.content, section, name, None);
    kubeconfig::write(file)?;
    println(format!("deleted {what} {name} from {path}"))
}

fn rename_context(session: &Session, old: &str, new: &str) -> Result<()> {
    let mut files = files(session)?;
    let all = kubeconfig::merge(&files);
    if entry(&all, "contexts", new).is_some() {
        return Err(Error::message(format!(
            "cannot rename the context {old:?}, the context {new:?} already exists in the kubeconfig"
        )));
    }
    let file = kubeconfig::file_for(&mut files, "contexts", old)?;
    let Some(content) = entry(&file.content, "contexts", old).cloned() else {
        return Err(Error::message(format!(
            "cannot rename the context {old:?}, it's not in {}",
            file.path.display()
        )));
    };
    set_entry(&mut file.content, "contexts", old, None);
    set_entry(&mut file.content, "contexts", new, Some(content));
    if file.content["current-context"] == old {
        file.content["current-context"] = json!(new);
    }
    kubeconfig::write(file)?;
    println(format!("Context {old:?} renamed to {new:?}."))
}
