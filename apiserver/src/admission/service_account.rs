//! ServiceAccount: a pod that names no service account runs as `default`, finds the account's token in a volume unless
//! it or the account refuses, and pulls images with the account's secrets.

use api::Object;
use api::openapi::api::core::v1::ServiceAccount;
use serde_json::{Map, Value, json};

/// Where a pod finds its token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the name of the token's volume begins with.
const VOLUME: &str = "kube-api-access";
/// A little more than an hour, by which such a token can be told from others.
const EXPIRATION: i64 = 60 * 60 + 7;

/// Whether a kubelet made the pod from a file of its own: such a pod has no token.
fn is_mirror(pod: &Object) -> bool {
    pod.annotations().contains_key("kubernetes.io/config.mirror")
}

/// Sets `spec.serviceAccountName` where the client left it out; the name of the account, if the pod has one.
///
/// # Errors
/// Says what a mirror pod may not have.
pub fn name(pod: &mut Object) -> Result<Option<String>, String> {
    let mirror = is_mirror(pod);
    let Some(spec) = spec(pod) else { return Ok(None) };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut name = text(spec.get("serviceAccountName"));
    if name.is_empty() {
        // The field's older name.
        name = text(spec.get("serviceAccount"));
    }
    if mirror {
        if !name.is_empty() {
            return Err("a mirror pod may not reference service accounts".into());
        }
        let secret = |v: &Value| v.get("secret").is_some_and(|s| !s.is_null());
        if spec.get("volumes").and_then(Value::as_array).is_some_and(|v| v.iter().any(secret)) {
            return Err("a mirror pod may not reference secrets".into());
        }
        return Ok(None);
    }
    if name.is_empty() {
        name = "default".into();
    }
    spec.insert("serviceAccountName".into(), name.clone().into());
    Ok(Some(name))
}

/// Gives a pod what its account has for it. `suffix` makes the volume's name unique.
pub fn mount(pod: &mut Object, account: &ServiceAccount, suffix: &str) {
    let Some(spec) = spec(pod) else { return };
    let own = spec.get("imagePullSecrets").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if let Some(secrets) = account.image_pull_secrets.as_ref().filter(|s| !own && !s.is_empty()) {
        spec.insert("imagePullSecrets".into(), json!(secrets));
    }
    let wanted = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
    if !wanted.or(account.automount_service_account_token).unwrap_or(true) {
        return;
    }
    let volumes = spec.get("volumes").and_then(Value::as_array);
    let named = |v: &Value| {
        let name = v.get("name").and_then(Value::as_str).unwrap_or_default();
        name.starts_with(&format!("{VOLUME}-")).then(|| name.to_owned())
    };
    let present = volumes.and_then(|v| v.iter().find_map(named));
    let name = present.clone().unwrap_or_else(|| format!("{VOLUME}-{suffix}"));
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        let Some(containers) = spec.get_mut(field).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            mounted |= mount_in(container, &name);
        }
    }
    if mounted && present.is_none() {
        let list = spec.entry("volumes").or_insert_with(|| json!([]));
        if list.is_null() {
            *list = json!([]);
        }
        if let Some(list) = list.as_array_mut() {
            list.push(volume(&name));
        }
    }
}

fn spec(pod: &mut Object) -> Option<&mut Map<String, Value>> {
    pod.as_map_mut().get_mut("spec").and_then(Value::as_object_mut)
}

/// True unless something else is mounted there already.
fn mount_in(container: &mut Map<String, Value>, volume: &str) -> bool {
    let list = container.entry("volumeMounts").or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return false };
    if list.iter().any(|m| m.get("mountPath").and_then(Value::as_str) == Some(MOUNT_PATH)) {
        return false;
    }
    list.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
    true
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": EXPIRATION}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Object {
        Object::new(json!({"spec": spec})).expect("a map")
    }

    #[track_caller]
    fn check(spec: Value, wanted: Option<&str>) {
        let mut pod = pod(spec);
        assert_eq!(name(&mut pod).expect("fine").as_deref(), wanted);
        assert_eq!(pod.str_at("/spec/serviceAccountName"), wanted.unwrap_or_default());
    }

    #[test]
    fn a_pod_runs_as_default_unless_it_says_otherwise() {
        check(json!({}), Some("default"));
        check(json!({"serviceAccountName": ""}), Some("default"));
        check(json!({"serviceAccountName": "own"}), Some("own"));
        check(json!({"serviceAccount": "old"}), Some("old"));
        check(json!("nonsense"), None);
    }

    #[test]
    fn a_mirror_pod_has_no_account() {
        let mirror = |spec: Value| {
            let annotations = json!({"kubernetes.io/config.mirror": "x"});
            Object::new(json!({"metadata": {"annotations": annotations}, "spec": spec})).expect("a map")
        };
        assert_eq!(name(&mut mirror(json!({}))), Ok(None));
        assert!(name(&mut mirror(json!({"serviceAccountName": "a"}))).is_err());
        assert!(name(&mut mirror(json!({"volumes": [{"secret": {"secretName": "s"}}]}))).is_err());
    }

    #[test]
    fn the_token_is_mounted_once_and_only_where_it_is_wanted() {
        let account = |value: Value| serde_json::from_value::<ServiceAccount>(value).expect("an account");
        let plain = account(json!({"imagePullSecrets": [{"name": "pull"}]}));
        let mut one = pod(json!({
            "initContainers": [{"name": "i", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}],
            "containers": [{"name": "c"}],
        }));
        mount(&mut one, &plain, "abcde");
        mount(&mut one, &plain, "other");
        assert_eq!(one.str_at("/spec/volumes/0/name"), "kube-api-access-abcde");
        assert_eq!(one.pointer("/spec/volumes").and_then(Value::as_array).map(Vec::len), Some(1));
        assert_eq!(one.str_at("/spec/containers/0/volumeMounts/0/mountPath"), MOUNT_PATH);
        assert_eq!(one.str_at("/spec/initContainers/0/volumeMounts/0/name"), "x");
        assert_eq!(one.str_at("/spec/imagePullSecrets/0/name"), "pull");
        let refusing = account(json!({"automountServiceAccountToken": false}));
        let has_volume = |spec: Value, account: &ServiceAccount| {
            let mut pod = pod(spec);
            mount(&mut pod, account, "abcde");
            pod.pointer("/spec/volumes").is_some()
        };
        assert!(!has_volume(json!({"containers": [{}]}), &refusing));
        assert!(!has_volume(json!({"containers": [{}], "automountServiceAccountToken": false}), &plain));
        assert!(has_volume(json!({"containers": [{}], "automountServiceAccountToken": true}), &refusing));
    }
}
