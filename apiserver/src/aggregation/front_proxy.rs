//! How this server proves to others that it speaks for its users, and how they may check that.

use std::path::PathBuf;

use serde_json::{Value, json};

/// The certificate with which this server presents itself to those who serve other groups.
#[derive(Clone, Debug)]
pub struct Client {
    /// The chain.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What is published for those who serve other groups, in upstream's ConfigMap.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The certificates of the CA of clients, in PEM.
    pub client_ca: String,
    /// The certificates of the CA that signed [`Client`], in PEM; without any, headers are not to be believed.
    pub ca: Option<String>,
    /// The names that the certificate may have; any if there are none.
    pub allowed_names: Vec<String>,
    /// The headers that name the user.
    pub username_headers: Vec<String>,
    /// The headers that name the groups.
    pub group_headers: Vec<String>,
    /// What the headers of everything else begin with.
    pub extra_prefixes: Vec<String>,
    /// The headers that tell the user's uid.
    pub uid_headers: Vec<String>,
}

/// The ConfigMap `extension-apiserver-authentication`.
pub fn config_map(published: &Published) -> Value {
    let list = |all: &[String]| json!(all).to_string();
    let mut data = json!({});
    if !published.client_ca.is_empty() {
        data["client-ca-file"] = published.client_ca.clone().into();
    }
    if let Some(ca) = &published.ca {
        data["requestheader-client-ca-file"] = ca.clone().into();
        data["requestheader-allowed-names"] = list(&published.allowed_names).into();
        data["requestheader-username-headers"] = list(&published.username_headers).into();
        data["requestheader-group-headers"] = list(&published.group_headers).into();
        data["requestheader-extra-headers-prefix"] = list(&published.extra_prefixes).into();
        if !published.uid_headers.is_empty() {
            data["requestheader-uid-headers"] = list(&published.uid_headers).into();
        }
    }
    json!({"metadata": {"name": "extension-apiserver-authentication"}, "data": data})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_must_know_is_published_as_lists_of_json() {
        let text = |t: &str| vec![t.to_owned()];
        let published = Published {
            client_ca: "PEM".into(),
            ca: Some("FRONT".into()),
            allowed_names: text("front-proxy-client"),
            username_headers: text("X-Remote-User"),
            group_headers: text("X-Remote-Group"),
            extra_prefixes: text("X-Remote-Extra-"),
            uid_headers: Vec::new(),
        };
        let data = &config_map(&published)["data"];
        assert_eq!(data["requestheader-allowed-names"], "[\"front-proxy-client\"]");
        assert_eq!(
            (&data["client-ca-file"], &data["requestheader-client-ca-file"]),
            (&json!("PEM"), &json!("FRONT"))
        );
        assert!(data.get("requestheader-uid-headers").is_none());
        let none = Published { ca: None, ..published };
        assert_eq!(config_map(&none)["data"], json!({"client-ca-file": "PEM"}));
    }
}
