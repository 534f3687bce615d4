//! The rules of APIServices.

use api::openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceStatus,
};
use api::validation::{FieldError, dns_subdomain};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of APIServices.
pub struct APIServiceStrategy;

impl Strategy for APIServiceStrategy {
    type K = APIService;

    fn default(&self, service: &mut APIService) {
        if let Some(target) = service.spec.as_mut().and_then(|s| s.service.as_mut()) {
            target.port.get_or_insert(443);
        }
    }

    fn prepare_for_create(&self, service: &mut APIService) {
        let mut status = APIServiceStatus::default();
        if service.spec.as_ref().is_none_or(|s| s.service.is_none()) {
            status.conditions = Some(vec![local()]);
        }
        service.status = Some(status);
    }

    fn prepare_for_update(&self, new: &mut APIService, old: &APIService) {
        new.status = old.status.clone();
    }

    fn prepare_for_status_update(&self, new: &mut APIService, old: &APIService) {
        new.spec = old.spec.clone();
        new.metadata.labels = old.metadata.labels.clone();
        new.metadata.annotations = old.metadata.annotations.clone();
    }

    /// It follows from group and version; that of the unnamed group ends with a dot.
    fn validate_name(&self, name: &str) -> Vec<String> {
        dns_subdomain(name.trim_end_matches('.'))
    }

    fn validate(&self, service: &APIService) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = service.spec.clone().unwrap_or_default();
        let (group, version) = (spec.group.unwrap_or_default(), spec.version.unwrap_or_default());
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let wanted = format!("{version}.{group}");
        if name != wanted {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.push(FieldError::invalid("metadata.name", json!(name), &detail));
        }
        if group.is_empty() && version != "v1" {
            let detail = "only v1 may have an empty group and it better be legacy kube";
            errors.push(FieldError::required("spec.group", detail));
        }
        if !group.is_empty() {
            let wrong = dns_subdomain(&group).into_iter();
            errors.extend(wrong.map(|detail| FieldError::invalid("spec.group", json!(group), &detail)));
        }
        if version.is_empty() {
            errors.push(FieldError::required("spec.version", ""));
        }
        for (field, value, most) in [
            ("spec.groupPriorityMinimum", spec.group_priority_minimum, 20000),
            ("spec.versionPriority", spec.version_priority, 1000),
        ] {
            if value <= 0 || value > most {
                let detail = format!("must be positive and less than {most}");
                errors.push(FieldError::invalid(field, json!(value), &detail));
            }
        }
        let bundle = spec.ca_bundle.is_some_and(|bundle| !bundle.0.is_empty());
        let insecure = spec.insecure_skip_tls_verify == Some(true);
        let skips = |detail| FieldError::invalid("spec.insecureSkipTLSVerify", json!(true), detail);
        let Some(target) = &spec.service else {
            if bundle {
                let detail = "local APIServices may not have a caBundle";
                errors.push(FieldError::invalid("spec.caBundle", Value::Null, detail));
            }
            if insecure {
                errors.push(skips("local APIServices may not use insecureSkipTLSVerify"));
            }
            return errors;
        };
        for (field, value) in [("namespace", &target.namespace), ("name", &target.name)] {
            if value.as_deref().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(format!("spec.service.{field}"), ""));
            }
        }
        if let Some(port) = target.port.filter(|port| !(1..=65535).contains(port)) {
            let detail = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid("spec.service.port", json!(port), detail));
        }
        if insecure && bundle {
            errors.push(skips("may not be true if caBundle is present"));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Service", "The service that hosts this API group version."),
            Column::string("Available", "Whether this service is available."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, service: &APIService, now: Timestamp) -> Vec<Value> {
        let target = service.spec.as_ref().and_then(|s| s.service.as_ref());
        let target = target.map_or("Local".to_owned(), |target| {
            let text = |t: &Option<String>| t.clone().unwrap_or_default();
            format!("{}/{}", text(&target.namespace), text(&target.name))
        });
        let conditions = service.status.as_ref().and_then(|s| s.conditions.as_ref());
        let available = conditions.into_iter().flatten().find(|c| c.type_ == "Available");
        let available = available.map_or("Unknown".to_owned(), |c| match (c.status.as_str(), &c.reason) {
            ("True", _) | (_, None) => c.status.clone(),
            (status, Some(reason)) => format!("{status} ({reason})"),
        });
        vec![
            json!(service.metadata.name.as_deref().unwrap_or_default()),
            json!(target),
            json!(available),
            json!(age(service.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

/// What is served by this server itself is available at once.
fn local() -> APIServiceCondition {
    APIServiceCondition {
        type_: "Available".into(),
        status: "True".into(),
        reason: Some("Local".into()),
        message: Some("Local APIServices are always available".into()),
        last_transition_time: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, object, row, with};

    fn service() -> Value {
        json!({"metadata": {"name": "v1.example.org"}, "spec": {"group": "example.org", "version": "v1",
            "groupPriorityMinimum": 1000, "versionPriority": 15, "insecureSkipTLSVerify": true,
            "service": {"namespace": "d", "name": "s"}}})
    }

    #[test]
    fn a_service_says_where_its_group_is_served() {
        let rules = &APIServiceStrategy;
        assert!(rules.validate(&object(service())).is_empty());
        invalid(
            rules,
            with(&service(), "/spec/versionPriority", 0.into()),
            &["spec.versionPriority: Invalid value: 0: must be positive and less than 1000"],
        );
        invalid(
            rules,
            with(&service(), "/spec/caBundle", "YWJj".into()),
            &["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"],
        );
        invalid(
            rules,
            with(&service(), "/spec/service", Value::Null),
            &[
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not use insecureSkipTLSVerify",
            ],
        );
        let mut named = service();
        named["metadata"]["name"] = "other".into();
        invalid(
            rules,
            named,
            &[
                "metadata.name: Invalid value: \"other\": must be `spec.version+\".\"+spec.group`: \"v1.example.org\"",
            ],
        );
        row(rules, service(), &["v1.example.org", "d/s", "Unknown", "<unknown>"]);
        let mut own: APIService = object(with(&service(), "/spec/service", Value::Null));
        rules.prepare_for_create(&mut own);
        row(rules, json!(own), &["v1.example.org", "Local", "True", "<unknown>"]);
    }
}
