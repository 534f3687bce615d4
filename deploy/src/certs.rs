//! The cluster's certificates: a CA for the cluster and one for etcd alone, and an identity for everybody.
//!
//! etcd has a CA of its own because it admits whoever that CA has signed: a node's certificate must not open it.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use x509_parser::prelude::{GeneralName, X509Certificate, parse_x509_pem};

use crate::cluster::{CLUSTER_DOMAIN, Cluster, KUBERNETES_SERVICE_IP, Paths, write_if_changed};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a CA is valid.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long any other certificate is valid.
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// What must be left of a certificate for it to be used again: a third of a year.
const ENOUGH: Duration = Duration::from_secs(120 * 24 * 3600);

/// The name of the files of the key that signs the tokens of service accounts.
const TOKEN_KEY: &str = "sa";

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file cannot be read or written.
    #[error("could not use {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A certificate cannot be made.
    #[error("could not make the certificate {name}")]
    Make {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

/// Which CA signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ca {
    /// That of the cluster.
    Cluster,
    /// That of etcd.
    Etcd,
    /// That by which those who serve other groups of the API know the API server.
    FrontProxy,
}

impl Ca {
    /// The CA's files are `NAME.crt` and `NAME.key`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "ca",
            Self::Etcd => "etcd-ca",
            Self::FrontProxy => "front-proxy-ca",
        }
    }
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its files are `NAME.crt` and `NAME.key`.
    pub name: String,
    /// Who signs it.
    pub ca: Ca,
    /// The common name: the user.
    pub user: String,
    /// The organisation: the group.
    pub group: Option<String>,
    /// The names and addresses for which a server may use it; without any it is a client's only.
    pub hosts: Vec<String>,
}

/// The certificates that a cluster needs.
pub fn subjects(cluster: &Cluster) -> Vec<Subject> {
    let subject = |name: &str, ca, user: &str, group: Option<&str>, hosts: Vec<String>| Subject {
        name: name.into(),
        ca,
        user: user.into(),
        group: group.map(str::to_owned),
        hosts,
    };
    let local = || vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut api =
        vec!["kubernetes".to_owned(), "kubernetes.default".to_owned(), "kubernetes.default.svc".to_owned()];
    api.push(format!("kubernetes.default.svc.{CLUSTER_DOMAIN}"));
    api.extend([KUBERNETES_SERVICE_IP.to_owned(), cluster.gateway().to_string()]);
    api.extend(local());
    let mut all = vec![
        subject("apiserver", Ca::Cluster, "kube-apiserver", None, api),
        subject("scheduler-serving", Ca::Cluster, "kube-scheduler", None, local()),
        subject("controller-manager-serving", Ca::Cluster, "kube-controller-manager", None, local()),
        subject("etcd", Ca::Etcd, "etcd", None, local()),
        subject("apiserver-etcd-client", Ca::Etcd, "kube-apiserver-etcd-client", None, Vec::new()),
        subject("front-proxy-client", Ca::FrontProxy, "front-proxy-client", None, Vec::new()),
        subject("admin", Ca::Cluster, "kubernetes-admin", Some("system:masters"), Vec::new()),
        subject("scheduler", Ca::Cluster, "system:kube-scheduler", None, Vec::new()),
        subject("controller-manager", Ca::Cluster, "system:kube-controller-manager", None, Vec::new()),
        subject("kube-proxy", Ca::Cluster, "system:kube-proxy", Some("system:node-proxier"), Vec::new()),
    ];
    for node in &cluster.nodes {
        let (file, user) = (format!("kubelet-{}", node.name), format!("system:node:{}", node.name));
        all.push(subject(&file, Ca::Cluster, &user, Some("system:nodes"), Vec::new()));
    }
    all
}

/// Makes every certificate that is missing, nearly expired or says something else than it should. Returns the names
/// of those that were made.
///
/// # Errors
/// When one cannot be made or written.
pub fn ensure(cluster: &Cluster, paths: &Paths, now: Timestamp) -> Result<Vec<String>, CertError> {
    let dir = paths.pki("");
    let error = |source| CertError::File { path: dir.clone(), source };
    fs::create_dir_all(&dir).map_err(error)?;
    let mut made = Vec::new();
    for ca in [Ca::Cluster, Ca::Etcd, Ca::FrontProxy] {
        let authority = Authority::ensure(cluster, paths, ca, now, &mut made)?;
        for subject in subjects(cluster).iter().filter(|s| s.ca == ca) {
            if authority.ensure_leaf(paths, subject, now)? {
                made.push(subject.name.clone());
            }
        }
    }
    if ensure_token_key(paths)? {
        made.push(TOKEN_KEY.to_owned());
    }
    Ok(made)
}

/// Makes the key with which the tokens of service accounts are signed; whether it had to be made. It has no end: with
/// another one no token would count any more.
fn ensure_token_key(paths: &Paths) -> Result<bool, CertError> {
    let (private, public) = (paths.pki(&format!("{TOKEN_KEY}.key")), paths.pki(&format!("{TOKEN_KEY}.pub")));
    let read = fs::read_to_string(&private).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
    let is_new = read.is_none();
    let key = match read {
        Some(key) => key,
        None => {
            let error = |source| CertError::Make { name: TOKEN_KEY.to_owned(), source };
            KeyPair::generate().map_err(error)?
        }
    };
    for (path, content, mode) in
        [(private, key.serialize_pem(), 0o600), (public, key.public_key_pem(), 0o644)]
    {
        write_if_changed(&path, content.as_bytes(), mode)
            .map(drop)
            .map_err(|source| CertError::File { path, source })?;
    }
    Ok(is_new)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The CA's public key, as its certificates name it.
    key_id: Vec<u8>,
}

impl Authority {
    fn ensure(
        cluster: &Cluster,
        paths: &Paths,
        ca: Ca,
        now: Timestamp,
        made: &mut Vec<String>,
    ) -> Result<Self, CertError> {
        let name = ca.name();
        let params = ca_params(cluster, ca, now);
        if let Some((pem, key)) = read_pair(paths, name)
            && is_current(&pem, &key, now, |cert| cert.is_ca())
        {
            let key_id = params.key_identifier(&key);
            return Ok(Self { issuer: Issuer::new(params, key), key_id });
        }
        let error = |source| CertError::Make { name: name.to_owned(), source };
        let key = KeyPair::generate().map_err(error)?;
        let cert = params.self_signed(&key).map_err(error)?;
        write_pair(paths, name, &cert.pem(), &key)?;
        made.push(name.to_owned());
        let key_id = params.key_identifier(&key);
        Ok(Self { issuer: Issuer::new(params, key), key_id })
    }

    /// Whether the certificate had to be made.
    fn ensure_leaf(&self, paths: &Paths, subject: &Subject, now: Timestamp) -> Result<bool, CertError> {
        if let Some((pem, key)) = read_pair(paths, &subject.name)
            && is_current(&pem, &key, now, |cert| self.signed(cert) && says(cert, subject))
        {
            return Ok(false);
        }
        let error = |source| CertError::Make { name: subject.name.clone(), source };
        let key = KeyPair::generate().map_err(error)?;
        let cert = leaf_params(subject, now).and_then(|p| p.signed_by(&key, &self.issuer)).map_err(error)?;
        write_pair(paths, &subject.name, &cert.pem(), &key)?;
        Ok(true)
    }

    fn signed(&self, cert: &X509Certificate<'_>) -> bool {
        use x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier;
        cert.extensions().iter().any(|extension| match extension.parsed_extension() {
            AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().is_some_and(|id| id.0 == self.key_id),
            _ => false,
        })
    }
}

fn life(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    // A clock that is a little behind must not refuse what was made just now.
    params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds) - DAY / 24;
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds) + life;
}

fn ca_params(cluster: &Cluster, ca: Ca, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    life(&mut params, now, CA_LIFE);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{} {}", cluster.prefix(), ca.name()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn leaf_params(subject: &Subject, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    life(&mut params, now, LEAF_LIFE);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, &subject.user);
    if let Some(group) = &subject.group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    for host in &subject.hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        });
    }
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !subject.hosts.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    Ok(params)
}

fn read_pair(paths: &Paths, name: &str) -> Option<(String, KeyPair)> {
    let cert = fs::read_to_string(paths.pki(&format!("{name}.crt"))).ok()?;
    let key = fs::read_to_string(paths.pki(&format!("{name}.key"))).ok()?;
    Some((cert, KeyPair::from_pem(&key).ok()?))
}

fn write_pair(paths: &Paths, name: &str, cert: &str, key: &KeyPair) -> Result<(), CertError> {
    // The key first: a certificate without its key would look whole to a reader of certificates.
    for (ending, content, mode) in [("key", key.serialize_pem().as_str(), 0o600), ("crt", cert, 0o644)] {
        let path = paths.pki(&format!("{name}.{ending}"));
        write_if_changed(&path, content.as_bytes(), mode)
            .map(drop)
            .map_err(|source| CertError::File { path, source })?;
    }
    Ok(())
}

/// Whether a certificate belongs to the key, is valid for long enough, and is what `fits` wants.
fn is_current(
    pem: &str,
    key: &KeyPair,
    now: Timestamp,
    fits: impl FnOnce(&X509Certificate<'_>) -> bool,
) -> bool {
    let Ok((_, pem)) = parse_x509_pem(pem.as_bytes()) else { return false };
    let Ok(cert) = pem.parse_x509() else { return false };
    let until = cert.validity().not_after.timestamp();
    let enough = i64::try_from(ENOUGH.as_secs()).expect("a third of a year fits");
    cert.validity().not_before.timestamp() <= now.as_second()
        && until - enough > now.as_second()
        && cert.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(key)
        && fits(&cert)
}

fn says(cert: &X509Certificate<'_>, subject: &Subject) -> bool {
    let name = cert.subject();
    let user = name.iter_common_name().find_map(|a| a.as_str().ok());
    let group = name.iter_organization().find_map(|a| a.as_str().ok());
    let mut found: Vec<String> = match cert.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(host).collect(),
        _ => Vec::new(),
    };
    let mut wanted = subject.hosts.clone();
    found.sort();
    wanted.sort();
    user == Some(subject.user.as_str()) && group == subject.group.as_deref() && found == wanted
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "certs/tests.rs"]
mod tests;
