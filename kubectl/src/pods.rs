//! Which pod and which container a command means.

use std::cmp::Reverse;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::output::warn;
use crate::resource::targets::{Filter, Target, items, list, parse};
use crate::session::{Call, Session};

/// Says which container is used unless one is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The JSON pointer of the pod spec in an object of a kind.
pub fn template_path(kind: &str) -> &'static str {
    match kind {
        "Pod" => "/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        "PodTemplate" => "/template/spec",
        _ => "/spec/template/spec",
    }
}

/// The label selector by which an object finds its pods, as a query; `None` if it has none.
pub fn selector_of(object: &Value) -> Option<String> {
    let selector = &object["spec"]["selector"];
    let labels = match selector["matchLabels"].is_object() || selector["matchExpressions"].is_array() {
        true => &selector["matchLabels"],
        false => selector,
    };
    let mut parts: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?)))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

/// The pods of an object such as a Deployment or a Service, best first.
pub async fn pods_of(session: &Session, target: &Target) -> Result<Vec<Value>> {
    let object = session.json(&Call::get(target.path())).await?;
    if target.resource.is("", "pods") {
        return Ok(vec![object]);
    }
    let Some(labels) = selector_of(&object) else {
        return Err(Error::message(format!(
            "cannot find pods of {}: it selects none",
            target.resource.slashed(target.name.as_deref().unwrap_or_default())
        )));
    };
    let pods = pods_by_label(session, &target.namespace, &labels).await?;
    if pods.is_empty() {
        return Err(Error::message(format!(
            "timed out waiting for the condition: no pods found for {}",
            target.resource.slashed(target.name.as_deref().unwrap_or_default())
        )));
    }
    Ok(pods)
}

/// The pods that a label query selects, best first.
pub async fn pods_by_label(session: &Session, namespace: &str, labels: &str) -> Result<Vec<Value>> {
    let target = Target {
        resource: session.resource("pods").await?,
        name: None,
        namespace: namespace.into(),
        document: None,
    };
    let mut pods =
        items(&list(session, &target, &Filter { labels: labels.into(), ..Filter::default() }).await?);
    pods.sort_by_cached_key(rank);
    Ok(pods)
}

/// Running and ready before others; the longest ready first.
fn rank(pod: &Value) -> (bool, bool, bool, bool, Reverse<bool>, String) {
    let ready = condition(&pod["status"]["conditions"], "Ready");
    let is_ready = ready.is_some_and(|c| c["status"] == "True");
    let since = ready.and_then(|c| c["lastTransitionTime"].as_str()).unwrap_or_default().to_owned();
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    (
        pod["metadata"]["deletionTimestamp"].is_string(),
        pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty),
        phase != "Running",
        !is_ready,
        Reverse(!since.is_empty()),
        since,
    )
}

/// A condition by its type.
pub fn condition<'a>(conditions: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions.as_array()?.iter().find(|c| c["type"] == kind)
}

/// The target of `POD`, `pod/NAME`, `TYPE/NAME` or `TYPE NAME`.
pub async fn target(session: &Session, args: &[String]) -> Result<Target> {
    let (resource, name) = match args {
        [one] => match one.split_once('/') {
            Some(_) => {
                let mut parts = one.splitn(2, '/');
                parse(std::slice::from_ref(one))?;
                (parts.next().unwrap_or_default().to_owned(), parts.next().unwrap_or_default().to_owned())
            }
            None => ("pods".into(), one.clone()),
        },
        [kind, name] => (kind.clone(), name.clone()),
        _ => return Err(Error::message("expected 'POD' or 'TYPE/NAME'")),
    };
    let resource = session.resource(&resource).await?;
    let namespace = if resource.namespaced { session.namespace().await?.to_owned() } else { String::new() };
    Ok(Target { resource, name: Some(name), namespace, document: None })
}

/// Names of a pod's containers, with init and ephemeral ones marked.
fn container_names(pod: &Value) -> Vec<(String, &'static str)> {
    let mut names = Vec::new();
    for (list, mark) in
        [("containers", ""), ("initContainers", " (init)"), ("ephemeralContainers", " (ephem)")]
    {
        for container in pod["spec"][list].as_array().into_iter().flatten() {
            names.push((container["name"].as_str().unwrap_or_default().to_owned(), mark));
        }
    }
    names
}

/// Every container of a pod: the init containers first, in the order in which they run.
pub fn all_containers(pod: &Value) -> Vec<String> {
    let mut names = container_names(pod);
    names.sort_by_key(|(_, mark)| match *mark {
        " (init)" => 0,
        "" => 1,
        _ => 2,
    });
    names.into_iter().map(|(name, _)| name).collect()
}

/// The container that is meant; which one was chosen out of several is said on standard error.
pub fn container(pod: &Value, wanted: Option<&str>, quiet: bool) -> Result<String> {
    let names = container_names(pod);
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if let Some(wanted) = wanted {
        return match names.iter().any(|(name, _)| name == wanted) {
            true => Ok(wanted.into()),
            false => Err(Error::message(format!("container {wanted} not found in pod {pod_name}"))),
        };
    }
    if let Some(annotated) = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str() {
        if names.iter().any(|(name, _)| name == annotated) {
            return Ok(annotated.into());
        }
        warn(format!("Default container name {annotated:?} not found in pod {pod_name}"));
    }
    let Some((first, _)) = names.first() else {
        return Err(Error::message(format!("pod {pod_name} has no containers")));
    };
    if names.len() > 1 && !quiet {
        let shown: Vec<String> = names.iter().map(|(name, mark)| format!("{name}{mark}")).collect();
        warn(format!("Defaulted container {first:?} out of: {}", shown.join(", ")));
    }
    Ok(first.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_become_queries() {
        let deployment = json!({"spec": {"selector": {"matchLabels": {"app": "w"}, "matchExpressions": [
            {"key": "t", "operator": "In", "values": ["a", "b"]}, {"key": "x", "operator": "DoesNotExist"}]}}});
        assert_eq!(selector_of(&deployment).unwrap(), "app=w,t in (a,b),!x");
        assert_eq!(selector_of(&json!({"spec": {"selector": {"app": "w"}}})).unwrap(), "app=w");
        assert_eq!(selector_of(&json!({"spec": {}})), None);
    }

    #[test]
    fn the_container_is_the_named_the_annotated_or_the_first() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, None, true).unwrap(), "a");
        assert_eq!(container(&pod, Some("i"), true).unwrap(), "i");
        assert_eq!(
            container(&pod, Some("x"), true).unwrap_err().report(),
            "error: container x not found in pod p"
        );
        pod["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        assert_eq!(container(&pod, None, true).unwrap(), "b");
        assert_eq!(all_containers(&pod), ["i", "a", "b"]);
    }

    #[test]
    fn ready_pods_come_first() {
        let pod = |name: &str, phase: &str, ready: &str| {
            json!({"metadata": {"name": name}, "spec": {"nodeName": "n"},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2024-01-01T00:00:00Z"}]}})
        };
        let mut pods = [
            pod("pending", "Pending", "False"),
            pod("starting", "Running", "False"),
            pod("ready", "Running", "True"),
        ];
        pods.sort_by_cached_key(rank);
        let names: Vec<&str> = pods.iter().filter_map(|p| p["metadata"]["name"].as_str()).collect();
        assert_eq!(names, ["ready", "starting", "pending"]);
    }
}
