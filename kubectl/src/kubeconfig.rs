//! Kubeconfig files: reading, merging, changing, and the connection that they describe.

use std::path::{Path, PathBuf};

use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Map, Value, json};

use crate::cli::Globals;
use crate::error::{Error, Result};

/// The lists of named entries that a kubeconfig holds, and the field that each entry wraps.
const SECTIONS: &[(&str, &str)] = &[("clusters", "cluster"), ("contexts", "context"), ("users", "user")];

/// File names in clusters and users, which are relative to the file that names them.
const PATHS: &[&str] = &["certificate-authority", "client-certificate", "client-key", "tokenFile"];

/// One kubeconfig file.
#[derive(Debug, Clone)]
pub struct File {
    /// Where it is, or would be.
    pub path: PathBuf,
    /// What it holds; an empty object if there is no such file.
    pub content: Value,
}

/// The files that are consulted, most important first.
pub fn locations(globals: &Globals) -> Vec<PathBuf> {
    if let Some(path) = &globals.kubeconfig {
        return vec![path.into()];
    }
    match std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()) {
        Some(list) => std::env::split_paths(&list).filter(|p| !p.as_os_str().is_empty()).collect(),
        None => vec![home().join(".kube/config")],
    }
}

/// The user's home folder, or the current one where there is none.
pub fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// Reads every file that there is. A file named with --kubeconfig must exist.
pub fn read(globals: &Globals) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for path in locations(globals) {
        let content = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && globals.kubeconfig.is_none() => json!({}),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::message(format!("stat {}: no such file or directory", path.display())));
            }
            Err(e) => {
                return Err(Error::message(format!("error loading config file {:?}: {e}", path.display())));
            }
        };
        files.push(File { path, content });
    }
    Ok(files)
}

fn parse(path: &Path, text: &str) -> Result<Value> {
    let fail = |e: &str| Error::message(format!("error loading config file \"{}\": {e}", path.display()));
    match crate::manifest::parse_yaml(text).map_err(|e| fail(&format!("yaml: {e}")))? {
        Value::Null => Ok(json!({})),
        value @ Value::Object(_) => Ok(value),
        _ => Err(fail("the document is not an object")),
    }
}

/// All files as one, with file names as they stand in them.
pub fn merge(files: &[File]) -> Value {
    merge_with(files, false)
}

/// All files as one: the first file that sets something wins. `resolve` makes file names absolute.
fn merge_with(files: &[File], resolve: bool) -> Value {
    let mut merged = Map::new();
    merged.insert("apiVersion".into(), json!("v1"));
    merged.insert("kind".into(), json!("Config"));
    merged.insert("preferences".into(), json!({}));
    merged.insert("current-context".into(), json!(""));
    for (section, _) in SECTIONS {
        merged.insert((*section).into(), Value::Null);
    }
    for file in files {
        let folder = file.path.parent().unwrap_or(Path::new("."));
        for (section, field) in SECTIONS {
            merge_section(&mut merged[*section], &file.content[*section], field, resolve.then_some(folder));
        }
        if merged["current-context"] == "" && file.content["current-context"].is_string() {
            merged["current-context"] = file.content["current-context"].clone();
        }
        if let Some(preferences) = file.content["preferences"].as_object().filter(|p| !p.is_empty()) {
            merged["preferences"] = Value::Object(preferences.clone());
        }
    }
    for (section, _) in SECTIONS {
        if let Some(entries) = merged[*section].as_array_mut() {
            entries.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        }
    }
    Value::Object(merged)
}

fn merge_section(into: &mut Value, from: &Value, field: &str, folder: Option<&Path>) {
    for entry in from.as_array().into_iter().flatten() {
        if into.is_null() {
            *into = json!([]);
        }
        let Some(list) = into.as_array_mut() else { return };
        if list.iter().any(|have| have["name"] == entry["name"]) {
            continue;
        }
        let mut entry = entry.clone();
        for name in PATHS {
            let Some(folder) = folder else { break };
            let Some(path) = entry[field].get(*name).and_then(Value::as_str).filter(|p| !p.is_empty()) else {
                continue;
            };
            let absolute = std::path::absolute(folder.join(path)).unwrap_or_else(|_| folder.join(path));
            entry[field][*name] = json!(absolute.display().to_string());
        }
        list.push(entry);
    }
}

/// The content of a named entry, such as `entry(config, "contexts", "kind")`.
pub fn entry<'a>(config: &'a Value, section: &str, name: &str) -> Option<&'a Value> {
    let field = SECTIONS.iter().find(|(s, _)| *s == section)?.1;
    config[section].as_array()?.iter().find(|e| e["name"] == name).map(|e| &e[field])
}

/// The context that is in force: --context or `current-context`; empty if there is none.
pub fn current_context(globals: &Globals, config: &Value) -> String {
    globals
        .context
        .clone()
        .unwrap_or_else(|| config["current-context"].as_str().unwrap_or_default().to_owned())
}

/// What a session connects with.
#[derive(Debug, Clone)]
pub struct Target {
    /// For the client.
    pub config: Config,
    /// The namespace of requests that name none.
    pub namespace: String,
}

/// The connection that the files and the flags describe together.
pub async fn target(globals: &Globals) -> Result<Target> {
    let config = merge_with(&read(globals)?, true);
    let context_name = current_context(globals, &config);
    let context = entry(&config, "contexts", &context_name).cloned();
    if context.is_none() && !context_name.is_empty() {
        return Err(Error::message(format!("context \"{context_name}\" does not exist")));
    }
    let context = context.unwrap_or_else(|| json!({}));
    let namespace = first([globals.namespace.as_deref(), context["namespace"].as_str(), Some("default")]);
    let named = |flag: &Option<String>, field: &str| first([flag.as_deref(), context[field].as_str(), None]);
    let cluster =
        chosen(&config, "clusters", "cluster", &globals.cluster, &named(&globals.cluster, "cluster"))?;
    let user = chosen(&config, "users", "auth info", &globals.user, &named(&globals.user, "user"))?;
    let nothing = cluster.is_none() && globals.server.is_none();
    if nothing && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        let mut config = Config::incluster_env().map_err(Error::message)?;
        config.proxy_url = None;
        let namespace = globals.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        return Ok(Target { config, namespace });
    }
    let (cluster, user) = overridden(globals, cluster, user);
    let config = connect(&cluster, &user).await?;
    Ok(Target { config, namespace })
}

fn first<const N: usize>(choices: [Option<&str>; N]) -> String {
    choices.into_iter().flatten().find(|s| !s.is_empty()).unwrap_or_default().to_owned()
}

fn chosen(
    config: &Value,
    section: &str,
    what: &str,
    flag: &Option<String>,
    name: &str,
) -> Result<Option<Value>> {
    match entry(config, section, name) {
        Some(found) => Ok(Some(found.clone())),
        None if flag.is_some() => Err(Error::message(format!("{what} {name:?} does not exist"))),
        None if !name.is_empty() && section == "clusters" => {
            Err(Error::message(format!("cluster {name:?} does not exist")))
        }
        None => Ok(None),
    }
}

/// The cluster and the user with the flags laid over them.
fn overridden(globals: &Globals, cluster: Option<Value>, user: Option<Value>) -> (Value, Value) {
    let mut cluster = cluster.filter(Value::is_object).unwrap_or_else(|| json!({}));
    let mut user = user.filter(Value::is_object).unwrap_or_else(|| json!({}));
    let server = globals.server.as_deref().or(cluster["server"].as_str()).unwrap_or("http://localhost:8080");
    let server = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    cluster["server"] = json!(server);
    if globals.insecure_skip_tls_verify {
        cluster["insecure-skip-tls-verify"] = json!(true);
        remove(&mut cluster, &["certificate-authority", "certificate-authority-data"]);
    }
    let replace = |target: &mut Value, field: &str, value: &Option<String>, data: &str| {
        if let Some(value) = value {
            remove(target, &[data]);
            target[field] = json!(value);
        }
    };
    replace(
        &mut cluster,
        "certificate-authority",
        &globals.certificate_authority,
        "certificate-authority-data",
    );
    replace(&mut cluster, "tls-server-name", &globals.tls_server_name, "");
    replace(&mut user, "client-certificate", &globals.client_certificate, "client-certificate-data");
    replace(&mut user, "client-key", &globals.client_key, "client-key-data");
    replace(&mut user, "token", &globals.token, "tokenFile");
    replace(&mut user, "as", &globals.impersonate, "");
    if !globals.impersonate_group.is_empty() {
        user["as-groups"] = json!(globals.impersonate_group);
    }
    (cluster, user)
}

fn remove(value: &mut Value, fields: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| !fields.contains(&key.as_str()));
    }
}

async fn connect(cluster: &Value, user: &Value) -> Result<Config> {
    let document = json!({
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    let kubeconfig: Kubeconfig =
        serde_json::from_value(document).map_err(|e| Error::message(format!("error loading config: {e}")))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|e| Error::message(format!("error loading config: {e}")))?;
    // Proxies of the environment are meant for the internet, not for a cluster on this machine.
    if is_loopback(config.cluster_url.host().unwrap_or_default()) && cluster["proxy-url"].is_null() {
        config.proxy_url = None;
    }
    Ok(config)
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The file that a change goes to: the one that has the entry already, or the first that exists,
/// or the one that would be looked for first.
pub fn file_for<'a>(files: &'a mut [File], section: &str, name: &str) -> Result<&'a mut File> {
    let has = |f: &File| entry(&f.content, section, name).is_some();
    let filled = |f: &File| f.content.as_object().is_some_and(|m| !m.is_empty());
    let at = files.iter().position(has).or_else(|| files.iter().position(filled)).unwrap_or(0);
    files.get_mut(at).ok_or_else(|| Error::message("no kubeconfig file to change"))
}

/// Sets a named entry, or removes it.
pub fn set_entry(config: &mut Value, section: &str, name: &str, content: Option<Value>) {
    let Some((_, field)) = SECTIONS.iter().find(|(s, _)| *s == section) else { return };
    if !config[section].is_array() {
        config[section] = json!([]);
    }
    let Some(list) = config[section].as_array_mut() else { return };
    match content {
        None => list.retain(|e| e["name"] != name),
        Some(content) => match list.iter_mut().find(|e| e["name"] == name) {
            Some(have) => have[*field] = content,
            None => list.push(json!({"name": name, *field: content})),
        },
    }
}

/// Writes a file so that a reader sees the old content or the new, with access for its owner only.
pub fn write(file: &File) -> Result<()> {
    let fail = |e: std::io::Error| Error::message(format!("error writing {}: {e}", file.path.display()));
    let mut content = file.content.clone();
    for (field, value) in [("apiVersion", json!("v1")), ("kind", json!("Config")), ("preferences", json!({}))]
    {
        if content[field].is_null() {
            content[field] = value;
        }
    }
    for (section, _) in SECTIONS {
        if content[*section].is_null() {
            content[*section] = json!([]);
        }
    }
    let folder = file.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(fail)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    std::io::Write::write_all(&mut temporary, crate::output::yaml::document(&content).as_bytes())
        .map_err(fail)?;
    temporary.persist(&file.path).map_err(|e| fail(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: Value) -> File {
        File { path: path.into(), content }
    }

    #[test]
    fn the_first_file_wins_and_paths_become_absolute() {
        let merged = merge_with(
            &[
                file(
                    "/a/config",
                    json!({"current-context": "x", "clusters": [{"name": "c", "cluster": {"server": "s1", "certificate-authority": "ca.pem"}}]}),
                ),
                file(
                    "/b/config",
                    json!({"current-context": "y", "clusters": [{"name": "c", "cluster": {"server": "s2"}}, {"name": "b", "cluster": {}}]}),
                ),
            ],
            true,
        );
        assert_eq!(merged["current-context"], "x");
        assert_eq!(entry(&merged, "clusters", "c").unwrap()["server"], "s1");
        assert_eq!(entry(&merged, "clusters", "c").unwrap()["certificate-authority"], "/a/ca.pem");
        assert_eq!(merged["clusters"][0]["name"], "b");
        assert!(merged["users"].is_null());
    }

    #[test]
    fn flags_lie_over_the_files() {
        let globals =
            Globals { server: Some("127.0.0.1:1".into()), token: Some("t".into()), ..Globals::default() };
        let (cluster, user) = overridden(&globals, Some(json!({"server": "x"})), None);
        assert_eq!(cluster["server"], "http://127.0.0.1:1");
        assert_eq!(user["token"], "t");
    }

    #[test]
    fn entries_are_set_replaced_and_removed() {
        let mut config = json!({});
        set_entry(&mut config, "contexts", "a", Some(json!({"cluster": "c"})));
        set_entry(&mut config, "contexts", "a", Some(json!({"cluster": "d"})));
        assert_eq!(config["contexts"], json!([{"name": "a", "context": {"cluster": "d"}}]));
        set_entry(&mut config, "contexts", "a", None);
        assert_eq!(config["contexts"], json!([]));
    }
}
