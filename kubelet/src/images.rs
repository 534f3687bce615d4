//! Images: whether to pull, with which credentials, and what a failure means.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use std::collections::HashMap;
use tokio::sync::{Notify, Semaphore};

use crate::pod::security::ImageUser;
use crate::runtime::{Runtime, RuntimeError};

/// How many images are pulled at once.
const PARALLEL_PULLS: usize = 4;

/// An image that the node has.
#[derive(Clone, Debug, PartialEq)]
pub struct Present {
    /// By which the runtime knows it.
    pub id: String,
    /// Who it runs as.
    pub user: ImageUser,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a container has no image, with the reason that its status shows.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is no image reference.
    #[error(
        "Failed to apply default image tag {0:?}: couldn't parse image name {0:?}: invalid reference format"
    )]
    InvalidName(String),
    /// It is absent and may not be pulled.
    #[error("Container image {0:?} is not present with pull policy of Never")]
    NeverPull(String),
    /// The runtime could not say whether it is present.
    #[error("Failed to inspect image {image:?}: {source}")]
    Inspect {
        /// The image.
        image: String,
        /// What the runtime said.
        source: RuntimeError,
    },
    /// The registry or the runtime refused.
    #[error("{}", .0)]
    Pull(#[source] RuntimeError),
}

impl ImageError {
    /// As a waiting container shows it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "InvalidImageName",
            Self::NeverPull(_) => "ErrImageNeverPull",
            Self::Inspect { .. } => "ImageInspectError",
            Self::Pull(_) => "ErrImagePull",
        }
    }
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Every time.
    Always,
    /// Unless it is present.
    IfNotPresent,
    /// Not at all.
    Never,
}

impl PullPolicy {
    /// The policy of a container; without one, by the image's tag.
    pub fn of(given: Option<&str>, image: &str) -> Self {
        match given {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some("IfNotPresent") => Self::IfNotPresent,
            Some(_) | None => {
                let (name, digest) = image.split_once('@').map_or((image, false), |(n, _)| (n, true));
                let last = name.rsplit('/').next().unwrap_or(name);
                let latest = last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
                if latest && !digest { Self::Always } else { Self::IfNotPresent }
            }
        }
    }
}

/// An image's name with the tag that is meant when there is none; none for what is no name.
pub fn with_tag(image: &str) -> Option<String> {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let (path, last) = name.rsplit_once('/').map_or(("", name), |(p, l)| (p, l));
    let (base, tag) = last.split_once(':').map_or((last, None), |(b, t)| (b, Some(t)));
    let lower = |t: &str| !t.is_empty() && !t.chars().any(|c| c.is_ascii_uppercase());
    let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let sound = !image.is_empty()
        && !image.contains(bad)
        && lower(base)
        && base.chars().all(word)
        && !image.starts_with('/')
        && !path.split('/').skip(1).any(str::is_empty)
        && tag.is_none_or(|t| !t.is_empty() && t.len() <= 128 && t.chars().all(word))
        && digest.is_none_or(|d| {
            d.split_once(':').is_some_and(|(a, h)| {
                !a.is_empty() && h.len() >= 32 && h.chars().all(|c| c.is_ascii_hexdigit())
            })
        });
    if !sound {
        return None;
    }
    Some(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

/// The registry of an image: its first part where that looks like a host, else Docker's.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        Some(_) | None => "docker.io",
    }
}

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize, Default)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

/// The credentials for an image's registry among a pod's pull secrets.
pub fn credentials<'a>(image: &str, secrets: impl Iterator<Item = &'a Secret>) -> Option<cri::AuthConfig> {
    let wanted = registry(image);
    let host = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        let host = key.split('/').next().unwrap_or(key).to_owned();
        if host == "index.docker.io" { "docker.io".to_owned() } else { host }
    };
    secrets.filter_map(docker_auths).flatten().find(|(key, _)| host(key) == wanted).map(|(key, auth)| {
        let decoded = BASE64_STANDARD.decode(auth.auth.trim()).ok().and_then(|b| String::from_utf8(b).ok());
        let (user, password) = decoded
            .as_deref()
            .and_then(|t| t.split_once(':'))
            .map_or((auth.username.clone(), auth.password.clone()), |(u, p)| (u.to_owned(), p.to_owned()));
        cri::AuthConfig {
            username: user,
            password,
            server_address: key,
            identity_token: auth.identitytoken,
            ..Default::default()
        }
    })
}

fn docker_auths(secret: &Secret) -> Option<HashMap<String, DockerAuth>> {
    let data = secret.data.as_ref()?;
    if let Some(config) = data.get(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(&config.0).ok().map(|c| c.auths);
    }
    serde_json::from_slice(&data.get(".dockercfg")?.0).ok()
}

/// Something that happened with an image, for the pod's events.
#[derive(Debug, PartialEq)]
pub enum Notice {
    /// A pull begins.
    Pulling,
    /// A pull ended well: how long it took, alone and with waiting, and the size.
    Pulled(Duration, Duration, u64),
    /// The image was there.
    AlreadyPresent,
}

/// Sees to images. Bounds how many are pulled at once.
pub struct Images {
    runtime: Runtime,
    pulls: Semaphore,
    changed: Arc<Notify>,
}

impl Images {
    /// Works on a runtime.
    pub fn new(runtime: Runtime) -> Self {
        Self { runtime, pulls: Semaphore::new(PARALLEL_PULLS), changed: Arc::default() }
    }

    /// Is notified when an image was pulled.
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    async fn inspect(&self, image: &str) -> Result<Option<Present>, ImageError> {
        let found = self.runtime.image(image).await;
        let found = found.map_err(|source| ImageError::Inspect { image: image.to_owned(), source })?;
        Ok(found.map(|i| Present {
            id: i.id,
            user: ImageUser { uid: i.uid.map(|u| u.value), name: i.username },
            size: i.size,
        }))
    }

    /// Makes sure that an image is on the node, by its policy.
    pub async fn ensure(
        &self,
        image: &str,
        policy: PullPolicy,
        auth: Option<cri::AuthConfig>,
        sandbox: cri::PodSandboxConfig,
        mut notify: impl FnMut(Notice),
    ) -> Result<Present, ImageError> {
        let name = with_tag(image).ok_or_else(|| ImageError::InvalidName(image.to_owned()))?;
        let present = self.inspect(&name).await?;
        match (policy, present) {
            (PullPolicy::Never | PullPolicy::IfNotPresent, Some(present)) => {
                notify(Notice::AlreadyPresent);
                return Ok(present);
            }
            (PullPolicy::Never, None) => return Err(ImageError::NeverPull(image.to_owned())),
            (PullPolicy::IfNotPresent, None) | (PullPolicy::Always, _) => {}
        }
        let asked = tokio::time::Instant::now();
        let _permit = self.pulls.acquire().await.expect("the semaphore is never closed");
        notify(Notice::Pulling);
        let begun = tokio::time::Instant::now();
        let reference = self.runtime.pull_image(&name, auth, sandbox).await.map_err(ImageError::Pull)?;
        let present = match self.inspect(&reference).await? {
            Some(present) => present,
            None => {
                self.inspect(&name).await?.ok_or(ImageError::Pull(RuntimeError::Incomplete("PullImage")))?
            }
        };
        self.changed.notify_one();
        notify(Notice::Pulled(begun.elapsed(), asked.elapsed(), present.size));
        Ok(present)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_policy_follows_the_tag_where_none_is_given() {
        assert_eq!(PullPolicy::of(None, "busybox"), PullPolicy::Always);
        assert_eq!(PullPolicy::of(None, "localhost:5000/busybox:latest"), PullPolicy::Always);
        assert_eq!(PullPolicy::of(None, "localhost:5000/busybox:1"), PullPolicy::IfNotPresent);
        assert_eq!(PullPolicy::of(None, "busybox@sha256:00"), PullPolicy::IfNotPresent);
        assert_eq!(PullPolicy::of(Some("Never"), "busybox"), PullPolicy::Never);
    }

    #[test]
    fn names_get_the_default_tag() {
        #[track_caller]
        fn check(image: &str, expected: Option<&str>) {
            assert_eq!(with_tag(image).as_deref(), expected, "{image}");
        }
        check("busybox", Some("busybox:latest"));
        check("localhost:5000/a/b", Some("localhost:5000/a/b:latest"));
        check("a/b:v1", Some("a/b:v1"));
        check("", None);
        check("Busybox", None);
        check("a b", None);
        check("a:", None);
        check("a@x", None);
        check("/a", None);
    }

    #[test]
    fn credentials_are_those_of_the_registry() {
        let config = json!({"auths": {"https://index.docker.io/v1/": {"auth": BASE64_STANDARD.encode("me:pass:word")},
            "r.example:5000": {"username": "u", "password": "p"}}});
        let secret: Secret = serde_json::from_value(json!({"data": {".dockerconfigjson":
            BASE64_STANDARD.encode(config.to_string())}}))
        .unwrap();
        let find = |image| credentials(image, std::iter::once(&secret)).map(|a| (a.username, a.password));
        assert_eq!(find("busybox"), Some(("me".into(), "pass:word".into())));
        assert_eq!(find("r.example:5000/a:1"), Some(("u".into(), "p".into())));
        assert_eq!(find("other.example/a"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_not(text in ".{0,60}") {
            let _ = with_tag(&text);
            let _ = PullPolicy::of(None, &text);
        }
    }
}
