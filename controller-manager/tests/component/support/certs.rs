//! Certificates and kubeconfigs of a test's cluster.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Writes a CA, the server's certificate, and kubeconfigs `admin.conf` and `controller-manager.conf`.
pub fn write(dir: &Path, port: u16) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test-ca");
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    std::fs::write(dir.join("ca.crt"), pem).expect("written");
    let issuer = Issuer::new(params, key);
    issue(&issuer, dir, "server", "kube-apiserver", None);
    issue(&issuer, dir, "admin", "admin", Some("system:masters"));
    issue(&issuer, dir, "controller-manager", "system:kube-controller-manager", None);
    kubeconfig(dir, "admin", port);
    kubeconfig(dir, "controller-manager", port);
}

fn issue(issuer: &Issuer<'_, KeyPair>, dir: &Path, file: &str, user: &str, group: Option<&str>) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("valid names");
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let key = KeyPair::generate().expect("a key");
    let pem = params.signed_by(&key, issuer).expect("a certificate").pem();
    std::fs::write(dir.join(format!("{file}.crt")), pem).expect("written");
    std::fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).expect("written");
}

fn kubeconfig(dir: &Path, user: &str, port: u16) {
    let path = |file: String| dir.join(file).display().to_string();
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": path("ca.crt".into()),
        }}],
        "users": [{ "name": user, "user": {
            "client-certificate": path(format!("{user}.crt")), "client-key": path(format!("{user}.key")),
        }}],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
        "current-context": "test",
    });
    std::fs::write(dir.join(format!("{user}.conf")), config.to_string()).expect("written");
}
