//! The rules of StatefulSets.

use api::openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetStatus,
};
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::selector;
use crate::registry::core::persistent_volume_claim;
use crate::registry::core::pod::{defaults, spec::replicated_template};
use crate::registry::fields::{count_or_percent, not_negative, one_of, shown};
use crate::registry::printing::{self, age};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of StatefulSets.
pub struct StatefulSetStrategy;

impl Strategy for StatefulSetStrategy {
    type K = StatefulSet;

    fn default(&self, set: &mut StatefulSet) {
        let spec = set.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.pod_management_policy.get_or_insert_with(|| "OrderedReady".into());
        let update = spec.update_strategy.get_or_insert_default();
        if update.type_.get_or_insert_with(|| "RollingUpdate".into()) == "RollingUpdate" {
            update.rolling_update.get_or_insert_default().partition.get_or_insert(0);
        }
        let retention: &mut StatefulSetPersistentVolumeClaimRetentionPolicy =
            spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        retention.when_deleted.get_or_insert_with(|| "Retain".into());
        retention.when_scaled.get_or_insert_with(|| "Retain".into());
        defaults::template(spec.template.spec.get_or_insert_default());
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            persistent_volume_claim::defaults(claim);
        }
    }

    fn prepare_for_create(&self, set: &mut StatefulSet) {
        set.status = Some(StatefulSetStatus::default());
    }

    fn validate(&self, set: &StatefulSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = set.spec.clone().unwrap_or_default();
        not_negative(&mut errors, "spec.replicas", spec.replicas);
        not_negative(&mut errors, "spec.minReadySeconds", spec.min_ready_seconds);
        not_negative(&mut errors, "spec.revisionHistoryLimit", spec.revision_history_limit);
        let policy = spec.pod_management_policy.as_deref();
        one_of(&mut errors, "spec.podManagementPolicy", policy, &["OrderedReady", "Parallel"]);
        selector::matches_template(&mut errors, &spec.selector, Some(&spec.template));
        replicated_template(&mut errors, "spec.template", &spec.template);
        rollout(&mut errors, &spec);
        let retention = spec.persistent_volume_claim_retention_policy.unwrap_or_default();
        for (name, policy) in
            [("whenDeleted", &retention.when_deleted), ("whenScaled", &retention.when_scaled)]
        {
            let field = format!("spec.persistentVolumeClaimRetentionPolicy.{name}");
            one_of(&mut errors, &field, policy.as_deref(), &["Delete", "Retain"]);
        }
        not_negative(&mut errors, "spec.ordinals.start", spec.ordinals.and_then(|o| o.start));
        errors
    }

    fn validate_update(&self, new: &StatefulSet, old: &StatefulSet) -> Vec<FieldError> {
        let mut new = new.spec.clone().unwrap_or_default();
        let old = old.spec.clone().unwrap_or_default();
        new.replicas = old.replicas;
        new.ordinals.clone_from(&old.ordinals);
        new.template.clone_from(&old.template);
        new.update_strategy.clone_from(&old.update_strategy);
        new.revision_history_limit = old.revision_history_limit;
        new.persistent_volume_claim_retention_policy
            .clone_from(&old.persistent_volume_claim_retention_policy);
        new.min_ready_seconds = old.min_ready_seconds;
        if new == old {
            return Vec::new();
        }
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
            'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' \
            are forbidden";
        vec![FieldError::forbidden("spec", detail)]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Ready", "Number of the pod with ready state"),
            AGE,
            Column::string("Containers", "Names of each container in the template.").wide(),
            Column::string("Images", "Images referenced by each container in the template.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, set: &StatefulSet, now: Timestamp) -> Vec<Value> {
        let spec = set.spec.clone().unwrap_or_default();
        let ready = set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
        let (names, images) = printing::containers(&spec.template);
        vec![
            json!(set.metadata.name.as_deref().unwrap_or_default()),
            json!(format!("{ready}/{}", spec.replicas.unwrap_or(0))),
            json!(age(set.metadata.creation_timestamp.as_ref(), now)),
            json!(names),
            json!(images),
        ]
    }
}

fn rollout(errors: &mut Vec<FieldError>, spec: &StatefulSetSpec) {
    let update = spec.update_strategy.clone().unwrap_or_default();
    let type_ = update.type_.as_deref();
    one_of(errors, "spec.updateStrategy.type", type_, &["OnDelete", "RollingUpdate"]);
    let Some(rolling) = update.rolling_update else { return };
    if type_ == Some("OnDelete") {
        let detail = "only allowed for updateStrategy 'RollingUpdate'";
        errors.push(FieldError::invalid("spec.updateStrategy.rollingUpdate", json!(rolling), detail));
        return;
    }
    not_negative(errors, "spec.updateStrategy.rollingUpdate.partition", rolling.partition);
    if let Some(most) = &rolling.max_unavailable {
        const FIELD: &str = "spec.updateStrategy.rollingUpdate.maxUnavailable";
        count_or_percent(errors, FIELD, most);
        if matches!(shown(most), Value::Number(n) if n.as_i64() == Some(0)) || shown(most) == "0%" {
            errors.push(FieldError::invalid(FIELD, shown(most), "cannot be 0"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, invalid_update, row, stored, with};

    fn set() -> Value {
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "serviceName": "web",
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}]}})
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let made = stored(&StatefulSetStrategy, set());
        assert_eq!(made["spec"]["podManagementPolicy"], "OrderedReady");
        assert_eq!(
            made["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
        let retention = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
        assert_eq!(made["spec"]["persistentVolumeClaimRetentionPolicy"], retention);
        assert_eq!(made["spec"]["volumeClaimTemplates"][0]["spec"]["volumeMode"], "Filesystem");
        row(&StatefulSetStrategy, set(), &["web", "0/0", "<unknown>", "c", "i"]);
    }

    #[test]
    fn most_of_the_spec_is_fixed() {
        invalid(
            &StatefulSetStrategy,
            with(&set(), "/spec/podManagementPolicy", "Odd".into()),
            &[
                "spec.podManagementPolicy: Unsupported value: \"Odd\": supported values: \"OrderedReady\", \"Parallel\"",
            ],
        );
        let forbidden = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', \
            'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
            'minReadySeconds' are forbidden";
        let changed = with(&set(), "/spec/serviceName", "other".into());
        invalid_update(&StatefulSetStrategy, set(), changed, &[forbidden]);
        invalid_update(&StatefulSetStrategy, set(), with(&set(), "/spec/replicas", 5.into()), &[]);
    }
}
