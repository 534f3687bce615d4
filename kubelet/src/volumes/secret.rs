//! secret volumes.

use k8s_openapi::api::core::v1::{KeyToPath, Secret, SecretVolumeSource};

use super::config_map::mode;
use super::{File, Payload, VolumeError, check_path};

/// The files of chosen items, or of all keys where none are chosen.
pub fn files(
    object: Option<&Secret>,
    name: &str,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
) -> Result<Payload, VolumeError> {
    let Some(object) = object else {
        return if optional { Ok(Payload::new()) } else { Err(VolumeError::NoSecret(name.to_owned())) };
    };
    let mut payload = Payload::new();
    match items.filter(|i| !i.is_empty()) {
        None => {
            for (key, value) in object.data.iter().flatten() {
                payload.insert(key.clone(), File { data: value.0.clone(), mode: mode(None, default_mode) });
            }
        }
        Some(items) => {
            for item in items {
                match object.data.as_ref().and_then(|d| d.get(&item.key)) {
                    Some(value) => {
                        let path = check_path(&item.path)?.to_owned();
                        let file = File { data: value.0.clone(), mode: mode(item.mode, default_mode) };
                        payload.insert(path, file);
                    }
                    None if optional => {}
                    None => return Err(VolumeError::NoKey { kind: "secret", key: item.key.clone() }),
                }
            }
        }
    }
    Ok(payload)
}

/// The files of a secret volume.
pub fn payload(source: &SecretVolumeSource, object: Option<&Secret>) -> Result<Payload, VolumeError> {
    let name = source.secret_name.as_deref().unwrap_or_default();
    files(object, name, source.items.as_deref(), source.default_mode, source.optional == Some(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_become_files() {
        let object: Secret = serde_json::from_value(json!({"data": {"p": "c2VjcmV0"}})).unwrap();
        let source: SecretVolumeSource =
            serde_json::from_value(json!({"secretName": "s", "defaultMode": 0o400})).unwrap();
        let made = payload(&source, Some(&object)).unwrap();
        assert_eq!(made["p"], File { data: b"secret".to_vec(), mode: 0o400 });
        assert_eq!(payload(&source, None).unwrap_err().to_string(), "secret \"s\" not found");
    }
}
