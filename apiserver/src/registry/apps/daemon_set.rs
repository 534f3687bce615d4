//! The rules of DaemonSets.

use api::openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use api::openapi::apimachinery::pkg::util::intstr::IntOrString;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::selector;
use crate::registry::core::pod::{defaults, spec::replicated_template};
use crate::registry::fields::{count_or_percent, not_negative, one_of, percent};
use crate::registry::printing::{self, age};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of DaemonSets.
pub struct DaemonSetStrategy;

impl Strategy for DaemonSetStrategy {
    type K = DaemonSet;

    fn default(&self, set: &mut DaemonSet) {
        let spec = set.spec.get_or_insert_default();
        spec.revision_history_limit.get_or_insert(10);
        let update = spec.update_strategy.get_or_insert_default();
        if update.type_.get_or_insert_with(|| "RollingUpdate".into()) == "RollingUpdate" {
            let rolling = update.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        defaults::template(spec.template.spec.get_or_insert_default());
    }

    fn prepare_for_create(&self, set: &mut DaemonSet) {
        set.status = Some(DaemonSetStatus::default());
    }

    fn validate(&self, set: &DaemonSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = set.spec.clone().unwrap_or_default();
        selector::matches_template(&mut errors, &spec.selector, Some(&spec.template));
        replicated_template(&mut errors, "spec.template", &spec.template);
        not_negative(&mut errors, "spec.minReadySeconds", spec.min_ready_seconds);
        not_negative(&mut errors, "spec.revisionHistoryLimit", spec.revision_history_limit);
        rollout(&mut errors, &spec);
        errors
    }

    fn validate_update(&self, new: &DaemonSet, old: &DaemonSet) -> Vec<FieldError> {
        let selector = |set: &DaemonSet| set.spec.clone().unwrap_or_default().selector;
        let mut errors = Vec::new();
        selector::unchanged(&mut errors, &selector(new), &selector(old));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::integer("Desired", "The number of nodes that should run the pod."),
            Column::integer("Current", "The number of nodes that run a pod and should."),
            Column::integer("Ready", "The number of nodes whose pod is ready."),
            Column::integer("Up-to-date", "The number of nodes that run the pod of the present template."),
            Column::integer("Available", "The number of nodes whose pod has been ready for minReadySeconds."),
            Column::string("Node Selector", "The labels of the nodes that are chosen."),
            AGE,
            Column::string("Containers", "Names of each container in the template.").wide(),
            Column::string("Images", "Images referenced by each container in the template.").wide(),
            Column::string("Selector", "The label selector of the pods.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, set: &DaemonSet, now: Timestamp) -> Vec<Value> {
        let spec = set.spec.clone().unwrap_or_default();
        let status = set.status.clone().unwrap_or_default();
        let (names, images) = printing::containers(&spec.template);
        let nodes = spec.template.spec.as_ref().and_then(|s| s.node_selector.as_ref());
        vec![
            json!(set.metadata.name.as_deref().unwrap_or_default()),
            json!(status.desired_number_scheduled),
            json!(status.current_number_scheduled),
            json!(status.number_ready),
            json!(status.updated_number_scheduled.unwrap_or(0)),
            json!(status.number_available.unwrap_or(0)),
            json!(printing::labels(nodes)),
            json!(age(set.metadata.creation_timestamp.as_ref(), now)),
            json!(names),
            json!(images),
            json!(printing::selector(&spec.selector)),
        ]
    }
}

fn rollout(errors: &mut Vec<FieldError>, spec: &DaemonSetSpec) {
    let update = spec.update_strategy.clone().unwrap_or_default();
    let type_ = update.type_.as_deref();
    one_of(errors, "spec.updateStrategy.type", type_, &["OnDelete", "RollingUpdate"]);
    let Some(rolling) = update.rolling_update.filter(|_| type_ == Some("RollingUpdate")) else { return };
    const FIELD: &str = "spec.updateStrategy.rollingUpdate";
    let number = |value: &Option<IntOrString>| match value {
        None => Some(0),
        Some(IntOrString::Int(count)) => Some(*count),
        Some(IntOrString::String(text)) => percent(text),
    };
    for (name, value) in [("maxUnavailable", &rolling.max_unavailable), ("maxSurge", &rolling.max_surge)] {
        if let Some(value) = value {
            count_or_percent(errors, &format!("{FIELD}.{name}"), value);
        }
    }
    match (number(&rolling.max_unavailable), number(&rolling.max_surge)) {
        (Some(0), Some(0)) => errors
            .push(FieldError::required(format!("{FIELD}.maxUnavailable"), "cannot be 0 when maxSurge is 0")),
        (Some(a), Some(b)) if a > 0 && b > 0 => errors.push(FieldError::invalid(
            format!("{FIELD}.maxSurge"),
            rolling.max_surge.as_ref().map(crate::registry::fields::shown).unwrap_or_default(),
            "may not be set when maxUnavailable is non-zero",
        )),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, row, stored, with};

    fn set() -> Value {
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    }

    #[test]
    fn one_pod_may_be_away() {
        let made = stored(&DaemonSetStrategy, set());
        let update = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}});
        assert_eq!(made["spec"]["updateStrategy"], update);
        let neither = with(&made, "/spec/updateStrategy/rollingUpdate/maxUnavailable", 0.into());
        let wanted = "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0";
        invalid(&DaemonSetStrategy, neither, &[wanted]);
        row(
            &DaemonSetStrategy,
            set(),
            &["web", "0", "0", "0", "0", "0", "<none>", "<unknown>", "c", "i", "a=b"],
        );
    }
}
