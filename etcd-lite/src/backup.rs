//! Takes a snapshot of a running server of the etcd API, be it this one or etcd itself, into a file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use component::tls::{ClientTls, TlsError, client_config};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::pb::etcdserverpb::SnapshotRequest;
use crate::pb::etcdserverpb::maintenance_client::MaintenanceClient;

const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no snapshot. All but the files' may go away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The certificate or its key cannot be used.
    #[error("the client certificate cannot be used")]
    Tls(#[from] TlsError),
    /// The URL says neither http nor https, or names no host.
    #[error("{0:?} is no URL of an etcd")]
    Url(String),
    /// The URL wants TLS, and there is no certificate.
    #[error("{0} needs --cacert, --cert and --key")]
    NoCertificate(String),
    /// Nobody answers.
    #[error("could not connect to {0}")]
    Connect(String, #[source] tonic::transport::Error),
    /// The server refuses, or the stream broke.
    #[error("the server did not send a whole snapshot")]
    Refused(#[from] tonic::Status),
    /// The file cannot be written.
    #[error("could not write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
}

/// Writes a snapshot to a file, which is there whole or not at all; returns its size in bytes.
///
/// # Errors
/// [`BackupError`].
pub async fn backup(url: &str, tls: Option<&ClientTls>, file: &Path) -> Result<u64, BackupError> {
    let channel = connect(url, tls).await?;
    let mut client = MaintenanceClient::new(channel).max_decoding_message_size(64 << 20);
    let mut parts = client.snapshot(SnapshotRequest {}).await?.into_inner();
    let error = |e| BackupError::Write(file.to_owned(), e);
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    let part_file = PathBuf::from(name);
    let mut out = create(&part_file).map_err(error)?;
    let written = async {
        let mut size = 0;
        while let Some(part) = parts.message().await? {
            out.write_all(&part.blob).map_err(error)?;
            size += part.blob.len() as u64;
        }
        out.sync_all().map_err(error)?;
        std::fs::rename(&part_file, file).map_err(error)?;
        Ok(size)
    };
    let result = written.await;
    if result.is_err() {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&part_file);
    }
    result
}

/// Secrets are in it: nobody else may read it.
fn create(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

async fn connect(url: &str, tls: Option<&ClientTls>) -> Result<Channel, BackupError> {
    let bad = || BackupError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(2379);
    let tls = match uri.scheme_str() {
        Some("http") => None,
        Some("https") => {
            let files = tls.ok_or_else(|| BackupError::NoCertificate(url.to_owned()))?;
            let mut config = (*client_config(files)?).clone();
            config.alpn_protocols = vec![b"h2".to_vec()];
            let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
            Some((TlsConnector::from(Arc::new(config)), name))
        }
        _ => return Err(bad()),
    };
    let connector = tower::service_fn(move |_: Uri| {
        let (host, tls) = (host.clone(), tls.clone());
        async move {
            let stream = TcpStream::connect((host, port)).await?;
            let stream: Box<dyn Stream> = match tls {
                None => Box::new(stream),
                Some((connector, name)) => Box::new(connector.connect(name, stream).await?),
            };
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    // TLS is the connector's own.
    let endpoint = Endpoint::from_static("http://etcd").connect_timeout(CONNECT);
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|e| BackupError::Connect(url.to_owned(), e))
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}
