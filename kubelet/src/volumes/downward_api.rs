//! downwardAPI volumes.

use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, Pod};

use super::config_map::mode;
use super::{File, Payload, VolumeError, check_path};
use crate::pod::env::{Facts, pod_field, resource_field};

/// The files of the items, each a field of the pod or a resource of a container.
pub fn payload(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    facts: &Facts,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => pod_field(pod, facts, &field.field_path)?,
            (None, Some(resource)) => resource_field(pod, &Container::default(), facts, resource)?,
            (None, None) => String::new(),
        };
        let path = check_path(&item.path)?.to_owned();
        payload.insert(path, File { data: text.into_bytes(), mode: mode(item.mode, default_mode) });
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_listed_line_by_line() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"labels": {"a": "1", "b": "x\"y"}}})).unwrap();
        let items: Vec<DownwardAPIVolumeFile> =
            serde_json::from_value(json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]))
                .unwrap();
        let made = payload(&pod, &items, None, &Facts::default()).unwrap();
        assert_eq!(String::from_utf8_lossy(&made["labels"].data), "a=\"1\"\nb=\"x\\\"y\"");
    }
}
