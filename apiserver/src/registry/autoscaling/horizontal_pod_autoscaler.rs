//! The rules of HorizontalPodAutoscalers.

use api::openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget, ResourceMetricSource,
};
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{Errors, between, one_of, optional_one_of, required};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of HorizontalPodAutoscalers.
pub struct HorizontalPodAutoscalerStrategy;

const SOURCES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

impl Strategy for HorizontalPodAutoscalerStrategy {
    type K = HorizontalPodAutoscaler;

    fn default(&self, scaler: &mut HorizontalPodAutoscaler) {
        let spec = scaler.spec.get_or_insert_default();
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
            let target = MetricTarget {
                type_: "Utilization".into(),
                average_utilization: Some(80),
                ..MetricTarget::default()
            };
            spec.metrics = Some(vec![MetricSpec {
                type_: "Resource".into(),
                resource: Some(ResourceMetricSource { name: "cpu".into(), target }),
                ..MetricSpec::default()
            }]);
        }
        let Some(behavior) = &mut spec.behavior else { return };
        let policy = |type_: &str, value| HPAScalingPolicy { type_: type_.into(), value, period_seconds: 15 };
        let up = behavior.scale_up.get_or_insert_default();
        up.stabilization_window_seconds.get_or_insert(0);
        rules(up, vec![policy("Pods", 4), policy("Percent", 100)]);
        rules(behavior.scale_down.get_or_insert_default(), vec![policy("Percent", 100)]);
    }

    fn validate(&self, scaler: &HorizontalPodAutoscaler) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = scaler.spec.clone().unwrap_or_default();
        if let Some(least) = spec.min_replicas.filter(|n| *n < 1) {
            let detail = "must be greater than or equal to 1";
            errors.push(FieldError::invalid("spec.minReplicas", least, detail));
        }
        if spec.max_replicas < 1 {
            errors.push(FieldError::invalid("spec.maxReplicas", spec.max_replicas, "must be greater than 0"));
        }
        if spec.min_replicas.is_some_and(|least| spec.max_replicas < least) {
            let detail = "must be greater than or equal to `minReplicas`";
            errors.push(FieldError::invalid("spec.maxReplicas", spec.max_replicas, detail));
        }
        required(&mut errors, "spec.scaleTargetRef.kind", Some(&spec.scale_target_ref.kind));
        required(&mut errors, "spec.scaleTargetRef.name", Some(&spec.scale_target_ref.name));
        for (i, metric) in spec.metrics.iter().flatten().enumerate() {
            check_metric(&mut errors, &format!("spec.metrics[{i}]"), metric);
        }
        check_behavior(&mut errors, &spec);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Reference", "What is scaled."),
            Column::string("Targets", "What is measured, and what is aimed at."),
            Column::string("MinPods", "The fewest pods."),
            Column::string("MaxPods", "The most pods."),
            Column::string("Replicas", "The present number of pods."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, scaler: &HorizontalPodAutoscaler, now: Timestamp) -> Vec<Value> {
        let spec = scaler.spec.clone().unwrap_or_default();
        let replicas = scaler.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0);
        let of = &spec.scale_target_ref;
        vec![
            json!(scaler.metadata.name.as_deref().unwrap_or_default()),
            json!(format!("{}/{}", of.kind, of.name)),
            json!(targets(scaler)),
            json!(spec.min_replicas.map_or_else(|| "<unset>".into(), |n| n.to_string())),
            json!(spec.max_replicas),
            json!(replicas),
            json!(age(scaler.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

fn rules(rules: &mut HPAScalingRules, policies: Vec<HPAScalingPolicy>) {
    rules.select_policy.get_or_insert_with(|| "Max".into());
    if rules.policies.as_ref().is_none_or(Vec::is_empty) {
        rules.policies = Some(policies);
    }
}

/// The target and where it stands.
fn target(metric: &MetricSpec) -> Option<(&'static str, &MetricTarget)> {
    match metric.type_.as_str() {
        "Resource" => metric.resource.as_ref().map(|m| ("resource", &m.target)),
        "ContainerResource" => metric.container_resource.as_ref().map(|m| ("containerResource", &m.target)),
        "Pods" => metric.pods.as_ref().map(|m| ("pods", &m.target)),
        "Object" => metric.object.as_ref().map(|m| ("object", &m.target)),
        "External" => metric.external.as_ref().map(|m| ("external", &m.target)),
        _ => None,
    }
}

fn check_metric(errors: &mut Errors, field: &str, metric: &MetricSpec) {
    one_of(errors, &format!("{field}.type"), Some(&metric.type_), SOURCES);
    if !SOURCES.contains(&metric.type_.as_str()) {
        return;
    }
    let Some((source, target)) = target(metric) else {
        let mut source = metric.type_.clone();
        source[..1].make_ascii_lowercase();
        let detail = "must populate information for the given metric source";
        errors.push(FieldError::required(format!("{field}.{source}"), detail));
        return;
    };
    let at = |name: &str| format!("{field}.{source}.{name}");
    if source == "resource" {
        required(errors, &at("name"), metric.resource.as_ref().map(|r| r.name.as_str()));
    }
    one_of(errors, &at("target.type"), Some(&target.type_), &["AverageValue", "Utilization", "Value"]);
    if let Some(percent) = target.average_utilization.filter(|n| *n < 1) {
        errors.push(FieldError::invalid(at("target.averageUtilization"), percent, "must be greater than 0"));
    }
    let aims = [target.average_utilization.is_some(), target.average_value.is_some(), target.value.is_some()];
    if !aims.contains(&true) {
        let detail = "must set either a target raw value or a target utilization";
        errors.push(FieldError::required(at("target.averageUtilization"), detail));
    } else if target.average_utilization.is_some() && target.average_value.is_some() {
        let detail = "may not set both a target raw value and a target utilization";
        errors.push(FieldError::forbidden(at("target.averageValue"), detail));
    }
}

fn check_behavior(errors: &mut Errors, spec: &HorizontalPodAutoscalerSpec) {
    let Some(behavior) = &spec.behavior else { return };
    for (name, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
        let Some(rules) = rules else { continue };
        let at = |field: &str| format!("spec.behavior.{name}.{field}");
        let window = rules.stabilization_window_seconds;
        between(errors, &at("stabilizationWindowSeconds"), window, 0, 3600);
        let policies = &["Disabled", "Max", "Min"];
        optional_one_of(errors, &at("selectPolicy"), rules.select_policy.as_deref(), policies);
        for (i, policy) in rules.policies.iter().flatten().enumerate() {
            let at = |field: &str| at(&format!("policies[{i}].{field}"));
            one_of(errors, &at("type"), Some(&policy.type_), &["Percent", "Pods"]);
            if policy.value < 1 {
                errors.push(FieldError::invalid(at("value"), policy.value, "must be greater than zero"));
            }
            between(errors, &at("periodSeconds"), Some(policy.period_seconds), 1, 1800);
        }
    }
}

/// What is measured and aimed at, as `cpu: 40%/80%`.
fn targets(scaler: &HorizontalPodAutoscaler) -> String {
    let spec = scaler.spec.clone().unwrap_or_default();
    let current = scaler.status.as_ref().and_then(|s| s.current_metrics.as_deref()).unwrap_or_default();
    let one = |(i, metric): (usize, &MetricSpec)| {
        let now = current.get(i).map(|c| json!(c)).unwrap_or_default();
        let (source, target) = target(metric)?;
        let now = &now[source]["current"];
        let percent = |n: &Value| n.as_i64().map(|n| format!("{n}%"));
        let text = |n: &Value| n.as_str().map(str::to_owned);
        let (now, aim) = match (&target.average_utilization, &target.average_value, &target.value) {
            (Some(aim), ..) => (percent(&now["averageUtilization"]), format!("{aim}%")),
            (_, Some(aim), _) => (text(&now["averageValue"]), aim.0.clone()),
            (_, _, aim) => (text(&now["value"]), aim.as_ref().map(|q| q.0.clone()).unwrap_or_default()),
        };
        let name = match source {
            "resource" => metric.resource.as_ref().map(|r| format!("{}: ", r.name)),
            "containerResource" => metric.container_resource.as_ref().map(|r| format!("{}: ", r.name)),
            _ => None,
        };
        Some(format!("{}{}/{aim}", name.unwrap_or_default(), now.unwrap_or_else(|| "<unknown>".into())))
    };
    let all: Vec<String> = spec.metrics.iter().flatten().enumerate().filter_map(one).collect();
    match all.as_slice() {
        [] => "<none>".into(),
        [a, b, more @ ..] if !more.is_empty() => format!("{a}, {b} + {} more...", more.len()),
        all => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, row, stored, with};

    #[test]
    fn an_autoscaler_aims_at_cpu_unless_told() {
        let scaler = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
        let made = stored(&HorizontalPodAutoscalerStrategy, scaler.clone());
        row(
            &HorizontalPodAutoscalerStrategy,
            made,
            &["a", "Deployment/web", "cpu: <unknown>/80%", "1", "3", "0", "<unknown>"],
        );
        let few = "spec.maxReplicas: Invalid value: 0: must be greater than 0";
        let least = "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`";
        invalid(
            &HorizontalPodAutoscalerStrategy,
            with(&scaler, "/spec/maxReplicas", 0.into()),
            &[few, least],
        );
    }
}
