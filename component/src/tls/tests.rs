use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { issuer: Issuer::new(params, key), pem }
}

fn issue(ca: &Ca, dir: &Path, name: &str, user: &str, group: &str) {
    let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, user);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, &ca.issuer).unwrap();
    std::fs::write(dir.join(format!("{name}.crt")), cert.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("ca.crt"), &ca.pem).unwrap();
}

fn server(dir: &Path) -> Arc<ServerConfig> {
    let file = |n: &str| dir.join(n);
    server_config(&ServerTls { cert: file("s.crt"), key: file("s.key"), client_ca: Some(file("ca.crt")) })
        .unwrap()
}

fn client(dir: &Path) -> Arc<ClientConfig> {
    let file = |n: &str| dir.join(n);
    client_config(&ClientTls { ca: file("ca.crt"), cert: file("c.crt"), key: file("c.key") }).unwrap()
}

/// Shakes hands in memory and returns whom the server saw.
async fn handshake(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Result<Identity, std::io::Error> {
    let (a, b) = tokio::io::duplex(65536);
    let accept = async {
        let mut stream = tokio_rustls::TlsAcceptor::from(server).accept(a).await?;
        stream.write_all(b"x").await?;
        let peer = stream.get_ref().1.peer_certificates().map(|c| identity(&c[0]).unwrap());
        Ok::<_, std::io::Error>(peer.unwrap())
    };
    let connect = async {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(client).connect(name, b).await?;
        stream.read_u8().await
    };
    let (seen, read) = tokio::join!(accept, connect);
    let seen = seen?;
    read.map(|_| seen)
}

#[tokio::test]
async fn the_server_sees_who_the_client_is() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca();
    issue(&ca, dir.path(), "s", "server", "");
    issue(&ca, dir.path(), "c", "system:node:a", "system:nodes");
    let seen = handshake(server(dir.path()), client(dir.path())).await.unwrap();
    let groups = vec!["system:nodes".into()];
    assert_eq!(seen, Identity { user: "system:node:a".into(), groups });
}

#[tokio::test]
async fn a_renewed_certificate_is_used_by_the_next_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca();
    issue(&ca, dir.path(), "s", "server", "");
    issue(&ca, dir.path(), "c", "before", "");
    let (server, client) = (server(dir.path()), client(dir.path()));
    assert_eq!(handshake(server.clone(), client.clone()).await.unwrap().user, "before");
    issue(&ca, dir.path(), "c", "after", "");
    let later = modified(&dir.path().join("c.crt")).unwrap() + std::time::Duration::from_secs(2);
    std::fs::File::options()
        .append(true)
        .open(dir.path().join("c.crt"))
        .unwrap()
        .set_modified(later)
        .unwrap();
    assert_eq!(handshake(server, client).await.unwrap().user, "after");
}

#[tokio::test]
async fn a_client_of_another_ca_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (ca(), ca());
    issue(&ours, dir.path(), "s", "server", "");
    issue(&theirs, other.path(), "c", "stranger", "");
    std::fs::write(other.path().join("ca.crt"), &ours.pem).unwrap();
    assert!(handshake(server(dir.path()), client(other.path())).await.is_err());
}

#[test]
fn a_missing_file_is_named() {
    let files = ServerTls { cert: "/nowhere/s.crt".into(), key: "/nowhere/s.key".into(), client_ca: None };
    assert!(server_config(&files).unwrap_err().to_string().contains("/nowhere/s.crt"));
}
