//! Where the API servers are and who this component is, from a kubeconfig file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use component::tls::{self, ClientTls, TlsError};
use serde::Deserialize;

/// How to reach the API servers.
#[derive(Clone)]
pub struct ClientConfig {
    /// `https://host:port` of one or more API servers; the next is tried when one cannot be reached.
    pub servers: Vec<String>,
    /// Whom to trust, and this component's certificate.
    pub tls: Arc<rustls::ClientConfig>,
    /// Sent with every request.
    pub user_agent: String,
}

/// A kubeconfig that cannot be used. None of these goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read kubeconfig {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is no YAML of a kubeconfig's shape; the source tells line and column.
    #[error("could not parse kubeconfig {}", .0.display())]
    Parse(PathBuf, #[source] Box<serde_saphyr::Error>),
    /// Something that is needed is missing or refers to nothing.
    #[error("kubeconfig {}: {what}", .path.display())]
    Incomplete {
        /// The kubeconfig.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A certificate or key is not usable.
    #[error("kubeconfig {}", .0.display())]
    Tls(PathBuf, #[source] TlsError),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    current_context: Option<String>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

impl ClientConfig {
    /// Reads the current context of a kubeconfig file. `server` may list several URLs, separated by
    /// commas. Certificate files are read again when they change; embedded ones are not.
    pub fn from_kubeconfig(path: &Path, user_agent: &str) -> Result<Self, ConfigError> {
        let (cluster, user) = current(path)?;
        let tls = tls_config(path, &cluster, &user)?;
        let servers: Vec<_> = cluster.server.split(',').map(|s| s.trim().to_owned()).collect();
        Ok(Self { servers, tls, user_agent: user_agent.to_owned() })
    }

    /// The certificates (PEM) that the current context of a kubeconfig file trusts the servers by.
    pub fn trusted_by_kubeconfig(path: &Path) -> Result<String, ConfigError> {
        let (cluster, _) = current(path)?;
        let data = (&cluster.certificate_authority_data, &cluster.certificate_authority);
        let ca = pem(path, data.0, data.1, "certificate-authority")?;
        String::from_utf8(ca).map_err(|_| ConfigError::Incomplete {
            path: path.to_owned(),
            what: "certificate-authority is no PEM text".into(),
        })
    }
}

/// The cluster and the user of a kubeconfig file's current context.
fn current(path: &Path) -> Result<(Cluster, User), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Read(path.to_owned(), e))?;
    let config: Kubeconfig =
        serde_saphyr::from_str(&text).map_err(|e| ConfigError::Parse(path.to_owned(), Box::new(e)))?;
    let missing = |what: String| ConfigError::Incomplete { path: path.to_owned(), what };
    let current = config.current_context.ok_or_else(|| missing("current-context is not set".into()))?;
    let context = config.contexts.into_iter().find(|c| c.name == current);
    let context = context.ok_or_else(|| missing(format!("context {current:?} does not exist")))?.context;
    let cluster = config.clusters.into_iter().find(|c| c.name == context.cluster);
    let cluster = cluster.ok_or_else(|| missing(format!("cluster {:?} does not exist", context.cluster)))?;
    let user = config.users.into_iter().find(|u| u.name == context.user);
    let user = user.ok_or_else(|| missing(format!("user {:?} does not exist", context.user)))?;
    Ok((cluster.cluster, user.user))
}

fn tls_config(path: &Path, cluster: &Cluster, user: &User) -> Result<Arc<rustls::ClientConfig>, ConfigError> {
    let error = |e| ConfigError::Tls(path.to_owned(), e);
    if let (Some(ca), Some(cert), Some(key)) =
        (&cluster.certificate_authority, &user.client_certificate, &user.client_key)
    {
        let files = ClientTls { ca: beside(path, ca), cert: beside(path, cert), key: beside(path, key) };
        return tls::client_config(&files).map_err(error);
    }
    let trusted = (&cluster.certificate_authority_data, &cluster.certificate_authority);
    let ca = pem(path, trusted.0, trusted.1, "certificate-authority")?;
    let cert = pem(path, &user.client_certificate_data, &user.client_certificate, "client-certificate")?;
    let key = pem(path, &user.client_key_data, &user.client_key, "client-key")?;
    tls::client_config_from_pem(&ca, &cert, &key).map_err(error)
}

/// A path of a kubeconfig file is relative to that file.
fn beside(path: &Path, file: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new(".")).join(file)
}

/// What a kubeconfig file embeds, or names the file of.
fn pem(
    path: &Path,
    data: &Option<String>,
    file: &Option<PathBuf>,
    what: &'static str,
) -> Result<Vec<u8>, ConfigError> {
    let missing = |what: String| ConfigError::Incomplete { path: path.to_owned(), what };
    match (data, file) {
        (Some(data), _) => {
            BASE64_STANDARD.decode(data.trim()).map_err(|_| missing(format!("{what}-data is not base64")))
        }
        (None, Some(file)) => {
            let file = beside(path, file);
            std::fs::read(&file).map_err(|e| ConfigError::Read(file, e))
        }
        (None, None) => Err(missing(format!("{what} is not set"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, message: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, text).unwrap();
        let error = ClientConfig::from_kubeconfig(&path, "test").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        check("clusters: [", "could not parse");
        check("clusters: []", "current-context is not set");
        check("current-context: a", "context \"a\" does not exist");
        let contexts = "current-context: a\ncontexts: [{name: a, context: {cluster: b, user: c}}]\n";
        check(contexts, "cluster \"b\" does not exist");
        let clusters = format!("{contexts}clusters: [{{name: b, cluster: {{server: 'https://x'}}}}]\n");
        check(&clusters, "user \"c\" does not exist");
        check(&format!("{clusters}users: [{{name: c, user: {{}}}}]\n"), "certificate-authority is not set");
    }
    #[test]
    fn the_trusted_certificates_are_those_of_the_current_context() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let text = "{current-context: a, contexts: [{name: a, context: {cluster: b, user: c}}], \
            clusters: [{name: b, cluster: {server: 'https://x', certificate-authority: ca.crt}}], \
            users: [{name: c, user: {}}]}";
        std::fs::write(&path, text).unwrap();
        assert!(matches!(ClientConfig::trusted_by_kubeconfig(&path), Err(ConfigError::Read(..))));
        std::fs::write(dir.path().join("ca.crt"), "PEM").unwrap();
        assert_eq!(ClientConfig::trusted_by_kubeconfig(&path).unwrap(), "PEM");
    }
}
