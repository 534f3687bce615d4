//! The rules of CronJobs.

use api::openapi::api::batch::v1::{CronJob, CronJobStatus};
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{cron, job};
use crate::registry::core::pod::defaults;
use crate::registry::fields::{not_negative, one_of};
use crate::registry::printing::{self, age};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of CronJobs.
pub struct CronJobStrategy;

impl Strategy for CronJobStrategy {
    type K = CronJob;

    fn default(&self, cron: &mut CronJob) {
        let spec = cron.spec.get_or_insert_default();
        spec.concurrency_policy.get_or_insert_with(|| "Allow".into());
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        let template = &mut spec.job_template.spec.get_or_insert_default().template;
        defaults::template(template.spec.get_or_insert_default());
    }

    fn prepare_for_create(&self, cron: &mut CronJob) {
        cron.status = Some(CronJobStatus::default());
    }

    fn validate(&self, cron: &CronJob) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = cron.spec.clone().unwrap_or_default();
        let name = cron.metadata.name.as_deref().unwrap_or_default();
        if name.len() > 52 {
            // The names of its jobs are eleven longer, and a label holds 63.
            errors.push(FieldError::invalid("metadata.name", name, "must be no more than 52 characters"));
        }
        schedule(&mut errors, &spec.schedule, spec.time_zone.as_deref());
        let policies = &["Allow", "Forbid", "Replace"];
        one_of(&mut errors, "spec.concurrencyPolicy", spec.concurrency_policy.as_deref(), policies);
        not_negative(&mut errors, "spec.startingDeadlineSeconds", spec.starting_deadline_seconds);
        not_negative(&mut errors, "spec.successfulJobsHistoryLimit", spec.successful_jobs_history_limit);
        not_negative(&mut errors, "spec.failedJobsHistoryLimit", spec.failed_jobs_history_limit);
        let template = spec.job_template.spec.unwrap_or_default();
        if template.manual_selector == Some(true) {
            let field = "spec.jobTemplate.spec.manualSelector";
            errors.push(FieldError::not_supported(field, true, &["nil", "false"]));
        }
        job::spec_fields(&mut errors, "spec.jobTemplate.spec", &template);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Schedule", "When the job runs, as cron writes it."),
            Column::string("Timezone", "The time zone of the schedule."),
            Column::string("Suspend", "Whether no job is begun."),
            Column::integer("Active", "How many jobs run."),
            Column::string("Last Schedule", "When a job was begun last."),
            AGE,
            Column::string("Containers", "Names of each container in the template.").wide(),
            Column::string("Images", "Images referenced by each container in the template.").wide(),
            Column::string("Selector", "The label selector of the pods.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, cron: &CronJob, now: Timestamp) -> Vec<Value> {
        let spec = cron.spec.clone().unwrap_or_default();
        let status = cron.status.clone().unwrap_or_default();
        let job = spec.job_template.spec.unwrap_or_default();
        let (names, images) = printing::containers(&job.template);
        let last = status.last_schedule_time.as_ref();
        vec![
            json!(cron.metadata.name.as_deref().unwrap_or_default()),
            json!(spec.schedule),
            json!(printing::or_none(spec.time_zone.as_deref())),
            json!(if spec.suspend == Some(true) { "True" } else { "False" }),
            json!(status.active.map_or(0, |a| a.len())),
            json!(last.map_or_else(|| "<none>".into(), |t| age(Some(t), now))),
            json!(age(cron.metadata.creation_timestamp.as_ref(), now)),
            json!(names),
            json!(images),
            json!(printing::selector(&job.selector.unwrap_or_default())),
        ]
    }
}

fn schedule(errors: &mut Vec<FieldError>, schedule: &str, zone: Option<&str>) {
    const FIELD: &str = "spec.schedule";
    if schedule.is_empty() {
        errors.push(FieldError::required(FIELD, ""));
    } else if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(FIELD, schedule, detail));
    } else if let Some(problem) = cron::problem(schedule) {
        errors.push(FieldError::invalid(FIELD, schedule, &problem));
    }
    match zone {
        None => {}
        Some("") => {
            errors.push(FieldError::invalid("spec.timeZone", "", "timeZone must be nil or non-empty string"));
        }
        Some(zone) if zone.eq_ignore_ascii_case("local") => {
            let detail =
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
            errors.push(FieldError::invalid("spec.timeZone", zone, detail));
        }
        Some(zone) if !zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b)) => {
            errors.push(FieldError::invalid("spec.timeZone", zone, &format!("unknown time zone {zone}")));
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, row, with};

    #[test]
    fn a_schedule_can_be_read() {
        let cron = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}});
        row(
            &CronJobStrategy,
            cron.clone(),
            &["tick", "*/5 * * * *", "<none>", "False", "0", "<none>", "<unknown>", "c", "i", "<none>"],
        );
        let wrong = "spec.schedule: Invalid value: \"x\": expected exactly 5 fields, found 1: [x]";
        invalid(&CronJobStrategy, with(&cron, "/spec/schedule", "x".into()), &[wrong]);
    }
}
