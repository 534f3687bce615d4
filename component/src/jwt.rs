//! Signed tokens (RFC 7519) of service accounts: RS256 and ES256, with the keys of PEM files.
//!
//! The cryptography is that of rustls, which reads every form of private key and which everything else here uses
//! too; the libraries for tokens would bring another one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rustls::SignatureScheme;
use rustls::crypto::ring;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Why a key or a token cannot be used. None of these goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// The file cannot be read, or holds no PEM.
    #[error("could not read keys from {}", .0.display())]
    Read(PathBuf, #[source] rustls::pki_types::pem::Error),
    /// The file holds no key.
    #[error("{} holds no key", .0.display())]
    NoKey(PathBuf),
    /// A key of another sort than RSA or ECDSA on P-256.
    #[error("the key is neither RSA nor ECDSA on the curve P-256")]
    Unsupported,
    /// The key cannot sign.
    #[error("could not sign")]
    Sign(#[source] rustls::Error),
    /// What was given is no token.
    #[error("not a token: {0}")]
    Malformed(&'static str),
    /// No key that is trusted has signed it.
    #[error("the signature is invalid")]
    Signature,
}

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    fn scheme(self) -> SignatureScheme {
        match self {
            Self::Rs256 => SignatureScheme::RSA_PKCS1_SHA256,
            Self::Es256 => SignatureScheme::ECDSA_NISTP256_SHA256,
        }
    }
}

/// A key that tells which tokens are genuine.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    /// The digest of the key, as `kid` names it.
    id: String,
    /// What the signature is verified with: the content of the key's bit string.
    bits: Vec<u8>,
    /// As a key set shows it.
    public: Value,
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyingKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl VerifyingKey {
    fn from_der(der: &[u8]) -> Result<Self, JwtError> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| JwtError::Unsupported)?;
        let bits = info.subject_public_key.data.to_vec();
        let id = BASE64.encode(Sha256::digest(der));
        let text = |bytes: &[u8]| {
            let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
            BASE64.encode(&bytes[first..])
        };
        let (algorithm, own) = match info.parsed() {
            Ok(Parsed::RSA(key)) => {
                (Algorithm::Rs256, json!({"kty": "RSA", "n": text(key.modulus), "e": text(key.exponent)}))
            }
            Ok(Parsed::EC(point)) if point.data().len() == 65 => {
                let (x, y) = point.data()[1..].split_at(32);
                let (x, y) = (BASE64.encode(x), BASE64.encode(y));
                (Algorithm::Es256, json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}))
            }
            _ => return Err(JwtError::Unsupported),
        };
        let mut public = json!({"use": "sig", "kid": id, "alg": algorithm.name()});
        if let (Some(public), Some(own)) = (public.as_object_mut(), own.as_object()) {
            public.extend(own.clone());
        }
        Ok(Self { algorithm, id, bits, public })
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        let scheme = self.algorithm.scheme();
        let Some((_, all)) = algorithms.mapping.iter().find(|(s, _)| *s == scheme) else { return false };
        let der = match self.algorithm {
            Algorithm::Rs256 => Some(signature.to_vec()),
            Algorithm::Es256 => ecdsa::to_der(signature),
        };
        der.is_some_and(|der| all.iter().any(|one| one.verify_signature(&self.bits, message, &der).is_ok()))
    }
}

/// The keys whose tokens are trusted.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<VerifyingKey>);

impl KeySet {
    /// Adds the keys of a PEM file: public ones, or the public halves of private ones.
    ///
    /// # Errors
    /// When the file holds none that can be used.
    pub fn add_file(&mut self, path: &Path) -> Result<(), JwtError> {
        let read = |source| JwtError::Read(path.to_owned(), source);
        let sections: Vec<(SectionKind, Vec<u8>)> =
            PemObject::pem_file_iter(path).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
        let before = self.0.len();
        for (kind, der) in sections {
            match kind {
                SectionKind::PublicKey => self.add(VerifyingKey::from_der(&der)?),
                SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                    self.add(SigningKey::new(&private(kind, der))?.verifying);
                }
                _ => {}
            }
        }
        if self.0.len() == before { Err(JwtError::NoKey(path.to_owned())) } else { Ok(()) }
    }

    /// Adds a key.
    pub fn add(&mut self, key: VerifyingKey) {
        self.0.push(key);
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key set as RFC 7517 writes it.
    pub fn to_jwks(&self) -> Value {
        let mut keys: Vec<Value> = Vec::new();
        for key in &self.0 {
            if !keys.contains(&key.public) {
                keys.push(key.public.clone());
            }
        }
        json!({"keys": keys})
    }

    /// How the keys sign, without repetition.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.0.iter().map(|key| key.algorithm.name()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The claims of a token that one of the keys has signed. Nothing else is checked: neither time nor audience.
    ///
    /// # Errors
    /// [`JwtError::Malformed`] for what is no token, [`JwtError::Signature`] for one of somebody else.
    pub fn verify(&self, token: &str) -> Result<Value, JwtError> {
        let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed("no signature"))?;
        let header = part(message.split('.').next().unwrap_or_default())?;
        let signature = BASE64.decode(signature).map_err(|_| JwtError::Malformed("the signature"))?;
        let id = header.get("kid").and_then(Value::as_str);
        let algorithm = header.get("alg").and_then(Value::as_str);
        let fits =
            |key: &&VerifyingKey| id.is_none_or(|id| id == key.id) && algorithm == Some(key.algorithm.name());
        if !self.0.iter().filter(fits).any(|key| key.verifies(message.as_bytes(), &signature)) {
            return Err(JwtError::Signature);
        }
        claims(token)
    }
}

/// The claims of a token, whoever has signed it: to be trusted only after [`KeySet::verify`].
///
/// # Errors
/// [`JwtError::Malformed`].
pub fn claims(token: &str) -> Result<Value, JwtError> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(JwtError::Malformed("not three parts"));
    };
    part(claims)
}

fn part(text: &str) -> Result<Value, JwtError> {
    let bytes = BASE64.decode(text).map_err(|_| JwtError::Malformed("not base64"))?;
    serde_json::from_slice(&bytes).map_err(|_| JwtError::Malformed("not JSON"))
}

fn private(kind: SectionKind, der: Vec<u8>) -> PrivateKeyDer<'static> {
    match kind {
        SectionKind::RsaPrivateKey => PrivateKeyDer::Pkcs1(der.into()),
        SectionKind::EcPrivateKey => PrivateKeyDer::Sec1(der.into()),
        _ => PrivateKeyDer::Pkcs8(der.into()),
    }
}

/// A key that makes tokens.
pub struct SigningKey {
    key: Arc<dyn rustls::sign::SigningKey>,
    verifying: VerifyingKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.verifying.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads the private key of a PEM file.
    ///
    /// # Errors
    /// When it holds none, or one of another sort than RSA and ECDSA on P-256.
    pub fn from_file(path: &Path) -> Result<Self, JwtError> {
        Self::new(&PrivateKeyDer::from_pem_file(path).map_err(|e| JwtError::Read(path.to_owned(), e))?)
    }

    fn new(der: &PrivateKeyDer<'_>) -> Result<Self, JwtError> {
        let key = ring::sign::any_supported_type(der).map_err(|_| JwtError::Unsupported)?;
        let public: SubjectPublicKeyInfoDer<'_> = key.public_key().ok_or(JwtError::Unsupported)?;
        let verifying = VerifyingKey::from_der(&public)?;
        drop(public);
        Ok(Self { key, verifying })
    }

    /// The key that verifies what this one signs.
    pub fn verifying(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// When the cryptography fails, for want of randomness.
    pub fn sign(&self, claims: &Value) -> Result<String, JwtError> {
        let algorithm = self.verifying.algorithm;
        let header = json!({"alg": algorithm.name(), "kid": self.verifying.id});
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signer = self.key.choose_scheme(&[algorithm.scheme()]).ok_or(JwtError::Unsupported)?;
        let signature = signer.sign(message.as_bytes()).map_err(JwtError::Sign)?;
        let signature = match algorithm {
            Algorithm::Rs256 => signature,
            Algorithm::Es256 => ecdsa::from_der(&signature).ok_or(JwtError::Unsupported)?,
        };
        Ok(format!("{message}.{}", BASE64.encode(signature)))
    }
}

/// The two forms of an ECDSA signature: tokens have both numbers side by side, TLS has them in ASN.1.
mod ecdsa {
    /// Both numbers of 32 bytes.
    pub(super) fn from_der(der: &[u8]) -> Option<Vec<u8>> {
        let [0x30, length, rest @ ..] = der else { return None };
        if usize::from(*length) != rest.len() {
            return None;
        }
        let (r, rest) = number(rest)?;
        let (s, rest) = number(rest)?;
        let mut out = vec![0; 64];
        out[32 - r.len()..32].copy_from_slice(r);
        out[64 - s.len()..].copy_from_slice(s);
        rest.is_empty().then_some(out)
    }

    fn number(der: &[u8]) -> Option<(&[u8], &[u8])> {
        let [0x02, length, rest @ ..] = der else { return None };
        let (bytes, rest) = rest.split_at_checked(usize::from(*length))?;
        let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
        (bytes.len() - first <= 32).then_some((&bytes[first..], rest))
    }

    /// As ASN.1 writes them.
    pub(super) fn to_der(fixed: &[u8]) -> Option<Vec<u8>> {
        if fixed.len() != 64 {
            return None;
        }
        let mut body = Vec::with_capacity(70);
        for bytes in fixed.chunks(32) {
            let first = bytes.iter().position(|b| *b != 0).unwrap_or(31);
            let bytes = &bytes[first..];
            let sign = bytes[0] & 0x80 != 0;
            body.extend([0x02, u8::try_from(bytes.len()).ok()? + u8::from(sign)]);
            body.extend(sign.then_some(0));
            body.extend_from_slice(bytes);
        }
        let mut der = vec![0x30, u8::try_from(body.len()).ok()?];
        der.extend(body);
        Some(der)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key file as `openssl ecparam` and `openssl genrsa` write them, or as PKCS #8.
    fn key(dir: &Path, name: &str, arguments: &[&str]) -> PathBuf {
        let path = dir.join(name);
        let done = std::process::Command::new("openssl")
            .arg(arguments[0])
            .arg("-out")
            .arg(&path)
            .args(&arguments[1..])
            .output()
            .expect("openssl is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        path
    }

    #[test]
    fn what_one_key_signs_it_verifies_and_no_other() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = [
            key(dir.path(), "rsa.pem", &["genrsa", "-traditional", "2048"]),
            key(
                dir.path(),
                "pkcs8.pem",
                &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            ),
            key(dir.path(), "sec1.pem", &["ecparam", "-genkey", "-noout", "-name", "prime256v1"]),
            key(
                dir.path(),
                "ec.pem",
                &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            ),
        ];
        let claims = json!({"sub": "somebody", "exp": 5});
        for file in &files {
            let signing = SigningKey::from_file(file).expect("a key");
            let (mut own, mut others) = (KeySet::default(), KeySet::default());
            own.add_file(file).expect("a key");
            for other in files.iter().filter(|f| *f != file) {
                others.add_file(other).expect("a key");
            }
            // An ECDSA signature differs each time, and so does the length of its numbers.
            for _ in 0..20 {
                let token = signing.sign(&claims).expect("signed");
                assert_eq!(own.verify(&token).expect("genuine"), claims);
                assert!(matches!(others.verify(&token), Err(JwtError::Signature)));
                let forged = token.replacen('.', ".e30", 1);
                assert!(own.verify(&forged).is_err());
            }
        }
    }

    #[test]
    fn a_public_key_verifies_and_names_the_same_key() {
        let dir = tempfile::tempdir().expect("a folder");
        let private = key(dir.path(), "sa.key", &["genrsa", "2048"]);
        let text = private.display().to_string();
        let public = key(dir.path(), "sa.pub", &["rsa", "-in", &text, "-pubout"]);
        let (mut of_private, mut of_public) = (KeySet::default(), KeySet::default());
        of_private.add_file(&private).expect("a key");
        of_public.add_file(&public).expect("a key");
        assert_eq!(of_private.to_jwks(), of_public.to_jwks());
        assert_eq!(of_public.algorithms(), ["RS256"]);
        assert_eq!(of_public.to_jwks()["keys"][0]["e"], "AQAB");
        let token = SigningKey::from_file(&private).expect("a key").sign(&json!({})).expect("signed");
        assert!(of_public.verify(&token).is_ok());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut keys = KeySet::default();
        keys.add_file(&key(dir.path(), "k.pem", &["ecparam", "-genkey", "-name", "prime256v1"]))
            .expect("a key");
        for bad in ["", ".", "..", "a.b.c", "e30.e30.", "e30.e30.AAAA", "eyJhbGciOiJub25lIn0.e30."] {
            assert!(keys.verify(bad).is_err(), "{bad:?}");
        }
        std::fs::write(dir.path().join("empty"), "nothing").expect("written");
        assert!(keys.add_file(&dir.path().join("empty")).is_err());
    }
}
