//! The rules of Jobs.

use api::openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use api::openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use api::openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use api::selector::Selector;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::core::pod::{defaults, spec as pod_spec};
use crate::registry::fields::{Errors, IMMUTABLE, label_selector, not_negative, one_of};
use crate::registry::printing::{self, age, human_duration};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The label by which a job's pods are selected.
const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
/// The most pods that an indexed job may run at once.
const MAX_INDEXED: i32 = 100_000;

/// The rules of Jobs.
pub struct JobStrategy;

/// Labels that the server puts on a job's pods: those of today and those of before.
fn own_labels(name: &str, uid: &str) -> [(&'static str, String); 4] {
    [
        (UID_LABEL, uid.to_owned()),
        ("controller-uid", uid.to_owned()),
        ("batch.kubernetes.io/job-name", name.to_owned()),
        ("job-name", name.to_owned()),
    ]
}

impl Strategy for JobStrategy {
    type K = Job;

    fn default(&self, job: &mut Job) {
        let spec = job.spec.get_or_insert_default();
        if spec.completions.is_none() && spec.parallelism.is_none() {
            spec.completions = Some(1);
        }
        spec.parallelism.get_or_insert(1);
        let per_index = spec.backoff_limit_per_index.is_some();
        spec.backoff_limit.get_or_insert(if per_index { i32::MAX } else { 6 });
        spec.completion_mode.get_or_insert_with(|| "NonIndexed".into());
        spec.suspend.get_or_insert(false);
        spec.manual_selector.get_or_insert(false);
        let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
        spec.pod_replacement_policy.get_or_insert_with(|| replacement.into());
        let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        if !labels.is_empty() && job.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
            job.metadata.labels = Some(labels);
        }
        for rule in spec.pod_failure_policy.iter_mut().flat_map(|p| &mut p.rules) {
            for pattern in rule.on_pod_conditions.iter_mut().flatten() {
                if pattern.status.as_deref().unwrap_or_default().is_empty() {
                    pattern.status = Some("True".into());
                }
            }
        }
        defaults::template(spec.template.spec.get_or_insert_default());
    }

    fn prepare_for_create(&self, job: &mut Job) {
        job.status = Some(JobStatus::default());
        let (name, uid) = (job.metadata.name.clone().unwrap_or_default(), job.metadata.uid.clone());
        let uid = uid.unwrap_or_default();
        let spec = job.spec.get_or_insert_default();
        if spec.manual_selector == Some(true) {
            return;
        }
        let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.extend(own_labels(&name, &uid).map(|(key, value)| (key.to_owned(), value)));
        let selector = spec.selector.get_or_insert_default();
        selector.match_labels.get_or_insert_default().insert(UID_LABEL.into(), uid);
    }

    fn validate(&self, job: &Job) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = job.spec.clone().unwrap_or_default();
        match &spec.selector {
            None => errors.push(FieldError::required("spec.selector", "")),
            Some(selector) => matches(&mut errors, selector, &spec.template),
        }
        spec_fields(&mut errors, "spec", &spec);
        errors
    }

    fn validate_update(&self, new: &Job, old: &Job) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (new_spec, old_spec) =
            (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        // An indexed job may grow and shrink, its completions following its parallelism.
        let elastic = new_spec.completion_mode.as_deref() == Some("Indexed")
            && new_spec.completions == new_spec.parallelism
            && old_spec.completions == old_spec.parallelism;
        let fixed = [
            ("completions", json!(new_spec.completions), json!(old_spec.completions), !elastic),
            ("selector", json!(new_spec.selector), json!(old_spec.selector), true),
            ("completionMode", json!(new_spec.completion_mode), json!(old_spec.completion_mode), true),
            (
                "podFailurePolicy",
                json!(new_spec.pod_failure_policy),
                json!(old_spec.pod_failure_policy),
                true,
            ),
            ("successPolicy", json!(new_spec.success_policy), json!(old_spec.success_policy), true),
            (
                "backoffLimitPerIndex",
                json!(new_spec.backoff_limit_per_index),
                json!(old_spec.backoff_limit_per_index),
                true,
            ),
            ("managedBy", json!(new_spec.managed_by), json!(old_spec.managed_by), true),
        ];
        for (name, value, _, _) in fixed.into_iter().filter(|(_, new, old, fixed)| *fixed && new != old) {
            errors.push(FieldError::invalid(format!("spec.{name}"), value, IMMUTABLE));
        }
        if steered(&new_spec.template, &old_spec) != old_spec.template {
            errors.push(FieldError::invalid("spec.template", json!(new_spec.template), IMMUTABLE));
        }
        errors
    }

    fn selectable_fields(&self, job: &Job) -> Vec<(&'static str, String)> {
        let succeeded = job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
        vec![("status.successful", succeeded.to_string())]
    }

    fn field_paths(&self, _field: &'static str) -> Vec<&'static str> {
        vec!["status.succeeded"]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Status", "What the job has come to."),
            Column::string("Completions", "How many pods have succeeded, of how many that must."),
            Column::string("Duration", "How long the job ran, or has been running."),
            AGE,
            Column::string("Containers", "Names of each container in the template.").wide(),
            Column::string("Images", "Images referenced by each container in the template.").wide(),
            Column::string("Selector", "The label selector of the pods.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, job: &Job, now: Timestamp) -> Vec<Value> {
        let spec = job.spec.clone().unwrap_or_default();
        let status = job.status.clone().unwrap_or_default();
        let done = status.succeeded.unwrap_or(0);
        let parallel = spec.parallelism.unwrap_or(0);
        let completions = match spec.completions {
            Some(wanted) => format!("{done}/{wanted}"),
            None if parallel > 1 => format!("{done}/1 of {parallel}"),
            None => format!("{done}/1"),
        };
        let duration = match (&status.start_time, &status.completion_time) {
            (None, _) => String::new(),
            (Some(start), Some(end)) => human_duration(end.0.as_second() - start.0.as_second()),
            (Some(start), None) => age(Some(start), now),
        };
        let (names, images) = printing::containers(&spec.template);
        vec![
            json!(job.metadata.name.as_deref().unwrap_or_default()),
            json!(word(job)),
            json!(completions),
            json!(duration),
            json!(age(job.metadata.creation_timestamp.as_ref(), now)),
            json!(names),
            json!(images),
            json!(printing::selector(&spec.selector.unwrap_or_default())),
        ]
    }
}

/// The state of a job in a word.
fn word(job: &Job) -> &'static str {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let holds = |type_: &str| conditions.iter().any(|c| c.type_ == type_ && c.status == "True");
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if job.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn matches(errors: &mut Errors, selector: &LabelSelector, template: &PodTemplateSpec) {
    label_selector(errors, "spec.selector", selector);
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    if !Selector::from_typed(Some(selector)).is_ok_and(|s| s.matches(&labels)) {
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", json!(labels), detail));
    }
}

/// The template with the scheduling directives of before, where a suspended job that never ran may change them.
fn steered(new: &PodTemplateSpec, old: &JobSpec) -> PodTemplateSpec {
    let mut template = new.clone();
    if old.suspend != Some(true) {
        return template;
    }
    let empty = PodSpec::default();
    let before = old.template.spec.as_ref().unwrap_or(&empty);
    if let Some(spec) = &mut template.spec {
        spec.node_selector.clone_from(&before.node_selector);
        spec.affinity.clone_from(&before.affinity);
        spec.tolerations.clone_from(&before.tolerations);
        spec.scheduling_gates.clone_from(&before.scheduling_gates);
    }
    if let (Some(meta), Some(before)) = (&mut template.metadata, &old.template.metadata) {
        meta.labels.clone_from(&before.labels);
        meta.annotations.clone_from(&before.annotations);
    }
    template
}

/// Checks the spec of a job, or of the template of one.
pub(super) fn spec_fields(errors: &mut Errors, field: &str, spec: &JobSpec) {
    let at = |name: &str| format!("{field}.{name}");
    let counts = [
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ];
    for (name, count) in counts {
        not_negative(errors, &at(name), count);
    }
    not_negative(errors, &at("activeDeadlineSeconds"), spec.active_deadline_seconds);
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    if let Some(mode) = spec.completion_mode.as_deref() {
        one_of(errors, &at("completionMode"), Some(mode), &["Indexed", "NonIndexed"]);
    }
    if indexed {
        if spec.completions.is_none() {
            let detail = "when completion mode is Indexed";
            errors.push(FieldError::required(at("completions"), detail));
        }
        if let Some(many) = spec.parallelism.filter(|p| *p > MAX_INDEXED) {
            let detail =
                format!("must be less than or equal to {MAX_INDEXED} when completion mode is Indexed");
            errors.push(FieldError::invalid(at("parallelism"), many, &detail));
        }
    } else if spec.backoff_limit_per_index.is_some() {
        let detail = "requires indexed completion mode";
        errors.push(FieldError::invalid(at("backoffLimitPerIndex"), spec.backoff_limit_per_index, detail));
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.push(FieldError::required(at("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(policy) = spec.pod_replacement_policy.as_deref() {
        let policies = &["Failed", "TerminatingOrFailed"][..];
        let policies = if spec.pod_failure_policy.is_some() { &policies[..1] } else { policies };
        one_of(errors, &at("podReplacementPolicy"), Some(policy), policies);
    }
    failure_policy(errors, &at("podFailurePolicy"), spec);
    if spec.success_policy.is_some() && !indexed {
        let detail = "requires indexed completion mode";
        errors.push(FieldError::invalid(at("successPolicy"), json!(spec.success_policy), detail));
    }
    run_once_template(errors, &at("template"), &spec.template);
}

fn failure_policy(errors: &mut Errors, field: &str, spec: &JobSpec) {
    let Some(policy) = &spec.pod_failure_policy else { return };
    let restart = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    if restart != Some("Never") {
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(FieldError::invalid(
            field.replace("podFailurePolicy", "template.spec.restartPolicy"),
            restart.unwrap_or_default(),
            detail,
        ));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        let at = format!("{field}.rules[{i}]");
        one_of(
            errors,
            &format!("{at}.action"),
            Some(&rule.action),
            &["Count", "FailIndex", "FailJob", "Ignore"],
        );
        let conditions = rule.on_pod_conditions.as_ref().is_some_and(|c| !c.is_empty());
        match (&rule.on_exit_codes, conditions) {
            (Some(_), true) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.push(FieldError::invalid(&at, json!(rule), detail));
            }
            (None, false) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.push(FieldError::invalid(&at, json!(rule), detail));
            }
            (Some(codes), false) => {
                let field = format!("{at}.onExitCodes");
                one_of(errors, &format!("{field}.operator"), Some(&codes.operator), &["In", "NotIn"]);
                if codes.values.is_empty() {
                    errors.push(FieldError::invalid(
                        format!("{field}.values"),
                        json!([]),
                        "at least one value is required",
                    ));
                }
                if codes.operator == "In" && codes.values.contains(&0) {
                    errors.push(FieldError::invalid(
                        format!("{field}.values"),
                        0,
                        "must not be 0 for the In operator",
                    ));
                }
            }
            (None, true) => {}
        }
    }
}

/// Checks a template of pods that end.
fn run_once_template(errors: &mut Errors, field: &str, template: &PodTemplateSpec) {
    let meta = template.metadata.clone().unwrap_or_default();
    errors.extend(api::validation::labels(&meta.labels.unwrap_or_default(), &format!("{field}.labels")));
    let annotations = meta.annotations.unwrap_or_default();
    errors.extend(api::validation::annotations(&annotations, &format!("{field}.annotations")));
    let empty = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&empty);
    pod_spec::validate(errors, &format!("{field}.spec"), spec);
    if spec.restart_policy.as_deref() == Some("Always") {
        let supported = &["OnFailure", "Never"];
        errors.push(FieldError::not_supported(format!("{field}.spec.restartPolicy"), "Always", supported));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, invalid_update, stored, with};

    fn job() -> Value {
        json!({"metadata": {"name": "once", "uid": "u"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i"}]}}}})
    }

    #[test]
    fn a_job_is_given_a_selector_of_its_own() {
        let made = stored(&JobStrategy, job());
        assert_eq!(
            made["spec"]["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
        );
        let labels = json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "once",
            "controller-uid": "u", "job-name": "once"});
        assert_eq!(made["spec"]["template"]["metadata"]["labels"], labels);
        let counts =
            (&made["spec"]["completions"], &made["spec"]["parallelism"], &made["spec"]["backoffLimit"]);
        assert_eq!(counts, (&json!(1), &json!(1), &json!(6)));
        let fixed = "spec.completions: Invalid value: 5: field is immutable";
        invalid_update(&JobStrategy, made.clone(), with(&made, "/spec/completions", 5.into()), &[fixed]);
        invalid_update(&JobStrategy, made.clone(), with(&made, "/spec/parallelism", 5.into()), &[]);
    }

    #[test]
    fn pods_of_a_job_end() {
        let restart = "spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"OnFailure\", \"Never\"";
        let selector = "spec.selector: Required value";
        let always = with(&job(), "/spec/template/spec/restartPolicy", "Always".into());
        invalid(&JobStrategy, with(&always, "/spec/manualSelector", true.into()), &[selector, restart]);
    }
}
