//! TLS with client certificates, Unix sockets, and the pages that are no gRPC.

use std::path::Path;
use std::process::Command;

use component::tls::ServerTls;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::support::{Server, block_on, soon};

/// Writes `ca.crt`, `name.crt` and `name.key`.
fn certificates(dir: &Path, name: &str) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    std::fs::write(dir.join("ca.crt"), params.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    std::fs::write(dir.join(format!("{name}.crt")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[test]
fn clients_without_a_certificate_are_sent_away() {
    block_on(async {
        let (ours, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        certificates(ours.path(), "both");
        certificates(theirs.path(), "both");
        let file = |dir: &TempDir, name: &str| dir.path().join(name);
        let tls = ServerTls {
            cert: file(&ours, "both.crt"),
            key: file(&ours, "both.key"),
            client_ca: Some(file(&ours, "ca.crt")),
        };
        let server = Server::start_with(|config| {
            config.tls = Some(tls);
            config.client_cert_auth = true;
        })
        .await;
        let connect = |identity: Option<&TempDir>| {
            let ca = Certificate::from_pem(std::fs::read(file(&ours, "ca.crt")).unwrap());
            let mut options = TlsOptions::new().ca_certificate(ca);
            if let Some(dir) = identity {
                let read = |name: &str| std::fs::read(file(dir, name)).unwrap();
                options = options.identity(Identity::from_pem(read("both.crt"), read("both.key")));
            }
            let options = ConnectOptions::new().with_tls(options);
            let url = server.url.clone();
            async move {
                let mut client = Client::connect([url], Some(options)).await?;
                client.put("a", "1", None).await.map(drop)
            }
        };
        assert!(soon("an answer", connect(None)).await.is_err(), "no certificate");
        assert!(soon("an answer", connect(Some(&theirs))).await.is_err(), "a stranger's certificate");
        let args = |with: bool| {
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").args(["--endpoints", &server.url, "--command-timeout=30s"]);
            command.arg("--cacert").arg(file(&ours, "ca.crt"));
            if with {
                command.arg("--cert").arg(file(&ours, "both.crt")).arg("--key").arg(file(&ours, "both.key"));
            }
            command
        };
        let mut status = args(true);
        let run = move || status.args(["endpoint", "status"]).output().unwrap();
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(soon("an answer", connect(Some(&ours))).await.is_ok(), "a client of our CA");
    });
}

#[test]
fn unix_sockets_and_pages_are_served() {
    block_on(async {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("etcd.sock");
        let metrics = dir.path().join("metrics.sock");
        let url = |path: &Path| format!("unix://{}", path.display());
        let config = |config: &mut etcd_lite::Config| {
            config.listen_metrics_urls = vec![url(&socket).parse().unwrap(), url(&metrics).parse().unwrap()];
        };
        let server = Server::start_with(config).await;
        server.client().await.put("a", "1", None).await.unwrap();
        for (path, page, expected) in [
            (&metrics, "/health", r#"{"health":"true"}"#),
            (&metrics, "/metrics", "etcd_server_has_leader"),
            (&socket, "/version", "etcdserver"),
        ] {
            let text = soon("a page", get(path, page)).await;
            assert!(text.contains(expected), "{page}: {text}");
        }
    });
}

/// A page over a Unix socket.
async fn get(path: &Path, page: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
    let request = format!("GET {page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
