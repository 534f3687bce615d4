//! The settings about tokens, as the command line gives them, and the documents by which others verify tokens.

use std::path::PathBuf;

use component::jwt::{JwtError, KeySet, SigningKey};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::TokenConfig;

/// The flags about tokens. The default issues none and trusts none.
#[derive(Clone, Debug, Default)]
pub struct TokenOptions {
    /// `--service-account-issuer`: the first one issues, all are trusted.
    pub issuers: Vec<String>,
    /// `--api-audiences`; the issuers unless given.
    pub api_audiences: Vec<String>,
    /// `--service-account-key-file`; the signing key's unless given.
    pub key_files: Vec<PathBuf>,
    /// `--service-account-signing-key-file`.
    pub signing_key_file: Option<PathBuf>,
    /// `--service-account-max-token-expiration`.
    pub max_expiration: Option<SignedDuration>,
    /// `--service-account-extend-token-expiration`.
    pub extend_expiration: bool,
    /// `--service-account-jwks-uri`.
    pub jwks_uri: Option<String>,
}

impl TokenOptions {
    /// Reads the keys.
    ///
    /// # Errors
    /// When a file holds no key that can be used.
    pub fn load(&self) -> Result<TokenConfig, JwtError> {
        let mut keys = KeySet::default();
        for file in &self.key_files {
            keys.add_file(file)?;
        }
        let signing = self.signing_key_file.as_deref().map(SigningKey::from_file).transpose()?;
        if let Some(signing) = &signing
            && keys.is_empty()
        {
            keys.add(signing.verifying().clone());
        }
        let audiences = if self.api_audiences.is_empty() { &self.issuers } else { &self.api_audiences };
        Ok(TokenConfig {
            issuers: self.issuers.clone(),
            api_audiences: audiences.clone(),
            keys,
            signing,
            max_expiration: self.max_expiration,
            extend_expiration: self.extend_expiration,
            jwks_uri: self.jwks_uri.clone(),
        })
    }
}

/// The path of the key set.
const JWKS: &str = "/openid/v1/jwks";

/// The document of a path of OpenID Connect discovery, with its media type; `address` is where this server is.
pub fn discovery(config: &TokenConfig, path: &str, address: &str) -> Option<(&'static str, Value)> {
    if config.keys.is_empty() {
        return None;
    }
    match path.trim_end_matches('/') {
        "/.well-known/openid-configuration" => {
            let keys = config.jwks_uri.clone().unwrap_or_else(|| format!("https://{address}{JWKS}"));
            let document = json!({
                "issuer": config.issuers.first(),
                "jwks_uri": keys,
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": config.keys.algorithms(),
            });
            Some(("application/json", document))
        }
        JWKS => Some(("application/jwk-set+json", config.keys.to_jwks())),
        _ => None,
    }
}
