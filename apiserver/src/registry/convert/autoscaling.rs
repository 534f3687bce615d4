//! HorizontalPodAutoscalers of `autoscaling/v1` and `autoscaling/v2`.
//!
//! What v1 has no field for, it carries in annotations, in the names that v1's own types had for it; so nothing
//! is lost on the way there and back.

use api::Object;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// (field of v1, where it stands in v2)
type Names = &'static [(&'static str, &'static str)];

/// The sources of metrics, by the field that holds each.
const SPEC: &[(&str, Names)] = &[
    (
        "resource",
        &[
            ("name", "/name"),
            ("targetAverageUtilization", "/target/averageUtilization"),
            ("targetAverageValue", "/target/averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "/name"),
            ("container", "/container"),
            ("targetAverageUtilization", "/target/averageUtilization"),
            ("targetAverageValue", "/target/averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("targetAverageValue", "/target/averageValue"),
        ],
    ),
    (
        "object",
        &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("targetValue", "/target/value"),
            ("averageValue", "/target/averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("targetValue", "/target/value"),
            ("targetAverageValue", "/target/averageValue"),
        ],
    ),
];

/// What was measured of them.
const STATUS: &[(&str, Names)] = &[
    (
        "resource",
        &[
            ("name", "/name"),
            ("currentAverageUtilization", "/current/averageUtilization"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "/name"),
            ("container", "/container"),
            ("currentAverageUtilization", "/current/averageUtilization"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    ),
    (
        "object",
        &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("currentValue", "/current/value"),
            ("averageValue", "/current/averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("currentValue", "/current/value"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    ),
];

/// As v2 has it. Annotations that hold no such content stay where they are.
pub(super) fn to_v2(mut object: Object) -> Object {
    let mut taken = Vec::new();
    let mut annotation = |object: &Object, name: &'static str| {
        let text = object.meta()?.get("annotations")?.get(name)?.as_str()?;
        let value: Value = serde_json::from_str(text).ok()?;
        taken.push(name);
        Some(value)
    };
    let metrics = annotation(&object, METRICS).and_then(list);
    let current = annotation(&object, CURRENT_METRICS).and_then(list);
    let conditions = annotation(&object, CONDITIONS).and_then(list);
    let behavior = annotation(&object, BEHAVIOR).filter(Value::is_object);
    if let Some(spec) = object.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) {
        let mut all: Vec<Value> =
            spec.remove("targetCPUUtilizationPercentage").iter().map(cpu_target).collect();
        all.extend(metrics.into_iter().flatten().map(|m| rearranged(&m, SPEC, true)));
        insert_list(spec, "metrics", all);
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), behavior);
        }
    }
    if let Some(status) = object.as_map_mut().get_mut("status").and_then(Value::as_object_mut) {
        let cpu = status.remove("currentCPUUtilizationPercentage");
        let full: Vec<Value> = current.into_iter().flatten().map(|m| rearranged(&m, STATUS, true)).collect();
        // The annotation may hold the same figure with more detail.
        let told = full.iter().any(|m| cpu_utilization(m, "/resource/current").is_some());
        let mut all: Vec<Value> = cpu.iter().filter(|_| !told).map(cpu_current).collect();
        all.extend(full);
        insert_list(status, "currentMetrics", all);
        insert_list(status, "conditions", conditions.unwrap_or_default());
    }
    if let Some(annotations) = object.meta_mut().get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| !taken.contains(&name.as_str()));
        if annotations.is_empty() {
            object.meta_mut().remove("annotations");
        }
    }
    object.as_map_mut().insert("apiVersion".into(), "autoscaling/v2".into());
    object
}

/// As v1 has it.
pub(super) fn to_v1(mut object: Object) -> Object {
    let mut annotations: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = object.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics = spec.remove("metrics").and_then(list).unwrap_or_default();
        if let Some(at) = metrics.iter().position(|m| cpu_utilization(m, "/resource/target").is_some()) {
            let cpu = metrics.remove(at);
            if let Some(percent) = cpu_utilization(&cpu, "/resource/target") {
                spec.insert("targetCPUUtilizationPercentage".into(), percent.clone());
            }
        }
        let metrics: Vec<_> = metrics.iter().map(|m| rearranged(m, SPEC, false)).collect();
        annotations.push((METRICS, metrics.into()));
        annotations.extend(spec.remove("behavior").map(|behavior| (BEHAVIOR, behavior)));
    }
    if let Some(status) = object.as_map_mut().get_mut("status").and_then(Value::as_object_mut) {
        let current = status.remove("currentMetrics").and_then(list).unwrap_or_default();
        let cpu = current.iter().find_map(|m| cpu_utilization(m, "/resource/current").cloned());
        if let Some(percent) = cpu {
            status.insert("currentCPUUtilizationPercentage".into(), percent);
        }
        let others = current.iter().filter(|m| !is_plain_cpu(m)).map(|m| rearranged(m, STATUS, false));
        annotations.push((CURRENT_METRICS, others.collect::<Vec<_>>().into()));
        annotations.extend(status.remove("conditions").map(|conditions| (CONDITIONS, conditions)));
    }
    annotations.retain(|(_, value)| !value.as_array().is_some_and(Vec::is_empty) && !value.is_null());
    if !annotations.is_empty() {
        let all = object.meta_mut().entry("annotations").or_insert_with(|| json!({}));
        if let Some(all) = all.as_object_mut() {
            all.extend(
                annotations.into_iter().map(|(name, value)| (name.to_owned(), value.to_string().into())),
            );
        }
    }
    object.as_map_mut().insert("apiVersion".into(), "autoscaling/v1".into());
    object
}

fn list(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(list) = value { Some(list) } else { None }
}

fn insert_list(map: &mut Map<String, Value>, field: &str, list: Vec<Value>) {
    if !list.is_empty() {
        map.insert(field.into(), list.into());
    }
}

fn cpu_target(percent: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn cpu_current(percent: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}})
}

/// The share of the requested CPU that a metric is about.
fn cpu_utilization<'a>(metric: &'a Value, at: &str) -> Option<&'a Value> {
    let is_cpu = metric.pointer("/type")? == "Resource" && metric.pointer("/resource/name")? == "cpu";
    metric.pointer(&format!("{at}/averageUtilization")).filter(|v| is_cpu && v.is_number())
}

/// Whether a measurement says no more than v1's own field does.
fn is_plain_cpu(metric: &Value) -> bool {
    cpu_utilization(metric, "/resource/current").is_some_and(|percent| *metric == cpu_current(percent))
}

/// A metric in the other version's names.
fn rearranged(metric: &Value, table: &[(&str, Names)], to_v2: bool) -> Value {
    let mut new = json!({"type": metric.get("type").cloned().unwrap_or_default()});
    for (source, names) in table {
        let Some(old) = metric.get(*source) else { continue };
        let mut held = json!({});
        for (flat, nested) in *names {
            let flat = format!("/{flat}");
            let (from, to) = if to_v2 { (flat.as_str(), *nested) } else { (*nested, flat.as_str()) };
            if let Some(value) = old.pointer(from) {
                put(&mut held, to, value.clone());
            }
        }
        if to_v2 && let Some(target) = held.get_mut("target").and_then(Value::as_object_mut) {
            let type_ = [("averageUtilization", "Utilization"), ("value", "Value")]
                .into_iter()
                .find(|(field, _)| target.contains_key(*field))
                .map_or("AverageValue", |(_, type_)| type_);
            target.insert("type".into(), type_.into());
        }
        new[*source] = held;
    }
    new
}

/// Sets the value at a pointer, making the maps on the way.
fn put(document: &mut Value, pointer: &str, value: Value) {
    let mut at = document;
    for part in pointer.split('/').skip(1) {
        at = &mut at[part];
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::new(value).expect("a map")
    }

    #[test]
    fn an_autoscaler_survives_the_way_there_and_back() {
        let v2 = object(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "annotations": {"mine": "1"}},
            "spec": {
                "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
                    {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                    {"type": "Pods", "pods": {"metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}},
                        "target": {"type": "AverageValue", "averageValue": "5"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "m"},
                        "target": {"type": "Value", "value": "7"}}},
                    {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "9"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                        "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
            },
            "status": {
                "currentReplicas": 1, "desiredReplicas": 2,
                "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "100m"}}},
                    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "current": {"averageValue": "4"}}}],
            },
        }));
        let v1 = to_v1(v2.clone());
        assert_eq!(v1.int_at("/spec/targetCPUUtilizationPercentage"), Some(80));
        assert_eq!(v1.int_at("/status/currentCPUUtilizationPercentage"), Some(40));
        assert!(v1.pointer("/spec/metrics").is_none() && v1.pointer("/spec/behavior").is_none());
        assert_eq!(to_v2(v1).to_value(), v2.to_value());
    }

    #[test]
    fn a_plain_autoscaler_of_v1_needs_no_annotations() {
        let v1 = object(json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "targetCPUUtilizationPercentage": 50},
            "status": {"currentReplicas": 1, "desiredReplicas": 1, "currentCPUUtilizationPercentage": 3},
        }));
        let v2 = to_v2(v1.clone());
        assert_eq!(v2.int_at("/spec/metrics/0/resource/target/averageUtilization"), Some(50));
        assert_eq!(to_v1(v2).to_value(), v1.to_value());
    }
}
