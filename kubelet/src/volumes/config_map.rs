//! configMap volumes.

use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapVolumeSource, KeyToPath};

use super::{File, Payload, VolumeError, check_path};

/// The mode of files that nobody chose another one for.
pub const DEFAULT_MODE: i32 = 0o644;

/// A mode as the file system takes it.
pub fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    u32::try_from(own.or(default).unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o7777
}

/// The bytes under a key, text or binary.
fn value(object: &ConfigMap, key: &str) -> Option<Vec<u8>> {
    let text = object.data.as_ref().and_then(|d| d.get(key)).map(|t| t.clone().into_bytes());
    text.or_else(|| object.binary_data.as_ref()?.get(key).map(|b| b.0.clone()))
}

/// The files of chosen items, or of all keys where none are chosen.
pub fn files(
    object: Option<&ConfigMap>,
    name: &str,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
) -> Result<Payload, VolumeError> {
    let Some(object) = object else {
        return if optional { Ok(Payload::new()) } else { Err(VolumeError::NoConfigMap(name.to_owned())) };
    };
    let mut payload = Payload::new();
    match items.filter(|i| !i.is_empty()) {
        None => {
            let keys = object.data.iter().flatten().map(|(k, _)| k);
            for key in keys.chain(object.binary_data.iter().flatten().map(|(k, _)| k)) {
                let data = value(object, key).unwrap_or_default();
                payload.insert(key.clone(), File { data, mode: mode(None, default_mode) });
            }
        }
        Some(items) => {
            for item in items {
                match value(object, &item.key) {
                    Some(data) => {
                        let path = check_path(&item.path)?.to_owned();
                        payload.insert(path, File { data, mode: mode(item.mode, default_mode) });
                    }
                    None if optional => {}
                    None => return Err(VolumeError::NoKey { kind: "config", key: item.key.clone() }),
                }
            }
        }
    }
    Ok(payload)
}

/// The files of a configMap volume.
pub fn payload(source: &ConfigMapVolumeSource, object: Option<&ConfigMap>) -> Result<Payload, VolumeError> {
    files(object, &source.name, source.items.as_deref(), source.default_mode, source.optional == Some(true))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(source: Value, object: Option<Value>) -> Result<Vec<(String, String, u32)>, String> {
        let object: Option<ConfigMap> = object.map(|o| serde_json::from_value(o).unwrap());
        let payload =
            payload(&serde_json::from_value(source).unwrap(), object.as_ref()).map_err(|e| e.to_string())?;
        let text = |f: &File| String::from_utf8(f.data.clone()).unwrap();
        Ok(payload.iter().map(|(p, f)| (p.clone(), text(f), f.mode)).collect())
    }

    #[test]
    fn keys_become_files() {
        let object = || Some(json!({"data": {"a": "1"}, "binaryData": {"b": "Mg=="}}));
        let all = vec![("a".into(), "1".into(), 0o644), ("b".into(), "2".into(), 0o644)];
        assert_eq!(of(json!({"name": "c"}), object()), Ok(all));
        let items = json!({"name": "c", "defaultMode": 0o400, "items": [{"key": "a", "path": "x/y"}]});
        assert_eq!(of(items, object()), Ok(vec![("x/y".into(), "1".into(), 0o400)]));
        assert_eq!(of(json!({"name": "c"}), None), Err("configmap \"c\" not found".into()));
        assert_eq!(of(json!({"name": "c", "optional": true}), None), Ok(vec![]));
        let missing = json!({"name": "c", "items": [{"key": "z", "path": "z"}]});
        assert_eq!(of(missing, object()), Err("references non-existent config key: z".into()));
        let outside = json!({"name": "c", "items": [{"key": "a", "path": "../z"}]});
        assert!(of(outside, object()).is_err());
    }
}
