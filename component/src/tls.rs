//! Mutual TLS: configurations from files that are read again when they change, and who a peer is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::tasks::lock;

/// The files of a client: whom it trusts, and who it is.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// Certificates of the CAs that may sign servers.
    pub ca: PathBuf,
    /// The client's certificate chain.
    pub cert: PathBuf,
    /// The client's key.
    pub key: PathBuf,
}

/// The files of a server: who it is, and whose clients it accepts.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The server's certificate chain.
    pub cert: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// Certificates of the CAs that may sign clients; without it no client certificate is asked for.
    pub client_ca: Option<PathBuf>,
}

/// What is wrong with a certificate, key or their files. None of these goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the wanted sort.
    #[error("could not read {what} from {}", .path.display())]
    Read {
        /// Certificate, key, ….
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The parts do not fit together.
    #[error("certificate or key is not usable")]
    Unusable(#[source] rustls::Error),
    /// The CA file cannot verify clients.
    #[error("client CA is not usable")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// A peer's certificate is no X.509 certificate.
    #[error("peer certificate cannot be parsed: {0}")]
    Peer(String),
}

/// Who a certificate says that its bearer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The subject's common name.
    pub user: String,
    /// The subject's organizations.
    pub groups: Vec<String>,
}

/// Reads the identity from a verified certificate's subject.
pub fn identity(cert: &CertificateDer<'_>) -> Result<Identity, TlsError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(cert).map_err(|e| TlsError::Peer(e.to_string()))?;
    let subject = parsed.subject();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().map(str::to_owned).ok();
    Ok(Identity {
        user: subject.iter_common_name().find_map(text).unwrap_or_default(),
        groups: subject.iter_organization().filter_map(text).collect(),
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Reads the certificates of a PEM file.
pub fn read_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::Read { what: "a certificate", path: path.to_owned(), source };
    let certs: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)?;
    if certs.is_empty() {
        return Err(error(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(certs)
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for cert in read_certs(path)? {
        store.add(cert).map_err(TlsError::Unusable)?;
    }
    Ok(store)
}

fn certified(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let error = |source| TlsError::Read { what: "a private key", path: key.to_owned(), source };
    let chain = read_certs(cert)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(error)?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Unusable)
}

/// A client's configuration. The certificate is read again when its file changes, so that a renewed
/// one is used by the next connection.
pub fn client_config(files: &ClientTls) -> Result<Arc<ClientConfig>, TlsError> {
    let resolver = Reloading::new(files.cert.clone(), files.key.clone())?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_root_certificates(roots(&files.ca)?)
        .with_client_cert_resolver(Arc::new(resolver));
    // A resumed session would go on with the certificate that it began with.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A client's configuration from PEM texts, as kubeconfig files embed them.
pub fn client_config_from_pem(ca: &[u8], cert: &[u8], key: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
    let error = |what| move |source| TlsError::Read { what, path: "kubeconfig".into(), source };
    let certs =
        |pem, what| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(error(what));
    let mut store = RootCertStore::empty();
    for cert in certs(ca, "a CA certificate")? {
        store.add(cert).map_err(TlsError::Unusable)?;
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(error("a private key"))?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_root_certificates(store)
        .with_client_auth_cert(certs(cert, "a certificate")?, key)
        .map_err(TlsError::Unusable)?;
    Ok(Arc::new(config))
}

/// Whom a client believes to be who it says.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Whoever was signed by a CA of these, in PEM.
    Pem(&'a [u8]),
    /// Everybody: the connection is encrypted, and no more.
    Anybody,
}

/// A client's configuration for whoever serves something in the cluster. `identity` is the client's own certificate
/// chain and key, which are read again when they change.
///
/// # Errors
/// When a file, or what `trust` holds, is not usable; PEM without certificates trusts nobody.
pub fn outgoing(trust: Trust<'_>, identity: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?;
    let builder = match trust {
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        }
        Trust::Pem(pem) => {
            let error = |source| TlsError::Read { what: "a certificate", path: "caBundle".into(), source };
            let mut store = RootCertStore::empty();
            for cert in CertificateDer::pem_slice_iter(pem) {
                store.add(cert.map_err(error)?).map_err(TlsError::Unusable)?;
            }
            builder.with_root_certificates(store)
        }
    };
    let mut config = match identity {
        Some((cert, key)) => {
            let resolver = Reloading::new(cert.to_owned(), key.to_owned())?;
            builder.with_client_cert_resolver(Arc::new(resolver))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Takes whatever certificate it is shown.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A server's configuration, offering HTTP/2 and HTTP/1.1. A client certificate is verified when it
/// is offered and may be left out: who may do what without one is for the server to decide.
pub fn server_config(files: &ServerTls) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .allow_unauthenticated()
                .build()
                .map_err(TlsError::Verifier)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let resolver = Reloading::new(files.cert.clone(), files.key.clone())?;
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would outlive the client's certificate: every connection proves itself anew.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// A certificate and key whose files are looked at once per handshake and read when they changed.
#[derive(Debug)]
struct Reloading {
    cert: PathBuf,
    key: PathBuf,
    held: Mutex<(Option<SystemTime>, Arc<CertifiedKey>)>,
}

impl Reloading {
    fn new(cert: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let held = (modified(&cert), Arc::new(certified(&cert, &key)?));
        Ok(Self { cert, key, held: Mutex::new(held) })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let mut held = lock(&self.held);
        let now = modified(&self.cert);
        if now != held.0 {
            match certified(&self.cert, &self.key) {
                Ok(renewed) => *held = (now, Arc::new(renewed)),
                // The pair may be half written; the old one serves until the next handshake.
                Err(error) => tracing::warn!(%error, "keeping the old certificate"),
            }
        }
        held.1.clone()
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

impl ResolvesServerCert for Reloading {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Reloading {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
