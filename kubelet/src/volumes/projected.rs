//! projected volumes: several sources in one directory.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, ProjectedVolumeSource, Secret};

use super::{File, Payload, VolumeError, config_map, downward_api, secret};
use crate::objects::Objects;
use crate::pod::env::Facts;

/// The objects that the sources name, as they were read.
#[derive(Debug, Default)]
pub struct Fetched {
    config_maps: HashMap<String, Arc<ConfigMap>>,
    secrets: HashMap<String, Arc<Secret>>,
    /// By the path of their file.
    tokens: HashMap<String, String>,
}

/// Reads the objects that the sources name.
pub async fn fetch(
    objects: &Objects,
    pod: &Pod,
    source: &ProjectedVolumeSource,
) -> Result<Fetched, VolumeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut fetched = Fetched::default();
    for part in source.sources.iter().flatten() {
        if let Some(map) = &part.config_map {
            let object = objects.config_map(namespace, &map.name).await?;
            fetched.config_maps.extend(object.map(|o| (map.name.clone(), o)));
        }
        if let Some(secret) = &part.secret {
            let object = objects.secret(namespace, &secret.name).await?;
            fetched.secrets.extend(object.map(|o| (secret.name.clone(), o)));
        }
        if let Some(source) = &part.service_account_token {
            let token = objects.tokens().get(pod, source).await.map_err(VolumeError::Token)?;
            fetched.tokens.insert(source.path.clone(), token);
        }
    }
    Ok(fetched)
}

/// The files of all sources; of two with one path, the later one.
pub fn payload(
    pod: &Pod,
    source: &ProjectedVolumeSource,
    fetched: &Fetched,
    facts: &Facts,
) -> Result<Payload, VolumeError> {
    let default = source.default_mode;
    let mut payload = Payload::new();
    for part in source.sources.iter().flatten() {
        if let Some(map) = &part.config_map {
            let object = fetched.config_maps.get(&map.name).map(AsRef::as_ref);
            let optional = map.optional == Some(true);
            payload.extend(config_map::files(object, &map.name, map.items.as_deref(), default, optional)?);
        } else if let Some(secret) = &part.secret {
            let object = fetched.secrets.get(&secret.name).map(AsRef::as_ref);
            let optional = secret.optional == Some(true);
            payload.extend(secret::files(object, &secret.name, secret.items.as_deref(), default, optional)?);
        } else if let Some(downward) = &part.downward_api {
            let items = downward.items.as_deref().unwrap_or_default();
            payload.extend(downward_api::payload(pod, items, default, facts)?);
        } else if let Some(source) = &part.service_account_token {
            let token = fetched.tokens.get(&source.path).cloned().unwrap_or_default();
            // A group of the pod's own reads it through that group; nobody else needs to.
            let shared = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()?.fs_group).is_some();
            let mode = if shared { 0o600 } else { config_map::mode(None, default) };
            payload.insert(source.path.clone(), File { data: token.into_bytes(), mode });
        } else {
            return Err(VolumeError::Unsupported("clusterTrustBundle".into()));
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sources_share_one_directory() {
        let fetched = Fetched {
            config_maps: [(
                "c".to_owned(),
                Arc::new(serde_json::from_value(json!({"data": {"a": "1"}})).unwrap()),
            )]
            .into(),
            secrets: [(
                "s".to_owned(),
                Arc::new(serde_json::from_value(json!({"data": {"b": "Mg=="}})).unwrap()),
            )]
            .into(),
            tokens: [("t".to_owned(), "secret".to_owned())].into(),
        };
        let make = |sources| {
            let source = serde_json::from_value(json!({"sources": sources})).unwrap();
            payload(&Pod::default(), &source, &fetched, &Facts::default())
        };
        let made = make(json!([{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}])).unwrap();
        assert_eq!(made.keys().collect::<Vec<_>>(), ["a", "b"]);
        let made = make(json!([{"serviceAccountToken": {"path": "t"}}])).unwrap();
        assert_eq!(made["t"], File { data: b"secret".to_vec(), mode: 0o644 });
    }
}
