//! Evictions: deletions that a PodDisruptionBudget may refuse.
//!
//! See the documentation of API-initiated eviction.

use std::collections::BTreeMap;

use api::decode::decode_json;
use api::openapi::api::core::v1::Pod;
use api::openapi::api::policy::v1::PodDisruptionBudget;
use api::openapi::apimachinery::pkg::apis::meta::v1::{Condition, DeleteOptions, StatusCause, Time};
use api::selector::Selector;
use api::status::StatusError;
use api::{Object, Subresource, Typed};
use jiff::Timestamp;
use serde_json::json;

use crate::auth::User;
use crate::registry::meta::whole_seconds;
use crate::registry::read::ListQuery;
use crate::registry::store::{Target, WriteOptions, Written};
use crate::registry::{Registry, pods};

/// Evictions that a budget may have granted before the controller has seen their pods go.
const MAX_DISRUPTED: usize = 2000;
/// How often a budget that others change meanwhile is read again.
const ATTEMPTS: usize = 20;

/// What a budget says to an eviction.
#[derive(Debug)]
enum Verdict {
    /// The pod may go, and the budget need not know.
    Free,
    /// The pod may go once the budget has been written like this.
    Granted(Box<PodDisruptionBudget>),
}

fn holds(pod: &Pod, type_: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
}

/// Whether a pod counts for no budget: it has not begun, is over, or goes already.
fn is_exempt(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    matches!(phase, "Failed" | "Pending" | "Succeeded") || pod.metadata.deletion_timestamp.is_some()
}

fn covers(budget: &PodDisruptionBudget, labels: &BTreeMap<String, String>) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    // A budget without a selector covers nothing; one with an empty selector everything.
    selector.is_some_and(|s| Selector::from_typed(Some(s)).is_ok_and(|s| s.matches(labels)))
}

/// 429, with what the budget waits for.
fn too_many(cause: String, retry_after: Option<i32>) -> StatusError {
    const MESSAGE: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut error = StatusError::new(429, "TooManyRequests", MESSAGE);
    let details = error.0.details.get_or_insert_default();
    details.retry_after_seconds = retry_after;
    details.causes = Some(vec![StatusCause {
        reason: Some("DisruptionBudget".into()),
        message: Some(cause),
        field: None,
    }]);
    error
}

/// Whether a pod may go by a budget that covers it.
fn decide(budget: &PodDisruptionBudget, pod: &Pod, now: Timestamp) -> Result<Verdict, StatusError> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let status = budget.status.clone().unwrap_or_default();
    let policy = budget.spec.as_ref().and_then(|s| s.unhealthy_pod_eviction_policy.as_deref());
    if !holds(pod, "Ready") {
        let enough = status.current_healthy >= status.desired_healthy && status.desired_healthy > 0;
        if policy == Some("AlwaysAllow") || enough {
            return Ok(Verdict::Free);
        }
    }
    let forbidden = |detail: &str| StatusError::forbidden(PodDisruptionBudget::kind(), &name, detail);
    if status.observed_generation.unwrap_or(0) < budget.metadata.generation.unwrap_or(0) {
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        return Err(too_many(cause, Some(10)));
    }
    if status.disruptions_allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.as_ref().is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        let detail = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(forbidden(detail));
    }
    if status.disruptions_allowed == 0 {
        let (needs, has) = (status.desired_healthy, status.current_healthy);
        let cause =
            format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently");
        return Err(too_many(cause, None));
    }
    let mut granted = budget.clone();
    let status = granted.status.get_or_insert_default();
    status.disruptions_allowed -= 1;
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    if status.disruptions_allowed == 0 {
        let condition = Condition {
            type_: "DisruptionAllowed".into(),
            status: "False".into(),
            reason: "InsufficientPods".into(),
            message: String::new(),
            observed_generation: status.observed_generation,
            last_transition_time: now.clone(),
        };
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != "DisruptionAllowed");
        conditions.push(condition);
    }
    let pod = pod.metadata.name.clone().unwrap_or_default();
    status.disrupted_pods.get_or_insert_default().insert(pod, now);
    Ok(Verdict::Granted(Box::new(granted)))
}

impl Registry {
    /// Deletes a pod if its budget allows.
    ///
    /// # Errors
    /// 429 when it does not, 500 when two budgets cover the pod, and all that a deletion can refuse.
    pub async fn evict(
        &self,
        user: &User,
        target: Target<'_>,
        options: &DeleteOptions,
    ) -> Result<Written, StatusError> {
        let dry_run = options.dry_run.iter().flatten().any(|v| v == "All");
        let document = || {
            serde_json::json!({"apiVersion": "policy/v1", "kind": "Eviction", "deleteOptions": options,
                "metadata": {"name": target.name, "namespace": target.namespace}})
        };
        self.admit_part(user, target, Subresource::Eviction, dry_run, document).await?;
        for _ in 0..ATTEMPTS {
            let entry = self.get(target.kind, target.namespace, target.name, "").await?;
            let pod: Pod = decode_json(&entry.json).map_err(StatusError::internal)?;
            if is_exempt(&pod) {
                break;
            }
            let budgets = self.budgets(&pod).await?;
            let budget = match budgets.as_slice() {
                [] => break,
                [one] => one,
                _ => {
                    return Err(StatusError::internal(
                        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                    ));
                }
            };
            let Verdict::Granted(granted) = decide(budget, &pod, self.clock().now())? else { break };
            if dry_run {
                break;
            }
            let named = Object::from_typed(&*granted);
            let kind = PodDisruptionBudget::kind();
            let at = Target { kind, namespace: target.namespace, name: named.name() };
            let (own, plain) = (User::apiserver(), WriteOptions::default());
            match self.update(&own, at, Some(Subresource::Status), named.to_value(), &plain, &|| Ok(())).await
            {
                Ok(_) => break,
                // Another eviction, or the controller, was faster: what it left is what counts.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let mut options = options.clone();
        if !dry_run {
            self.announce(target, &mut options).await?;
        }
        self.delete(user, target, Some(Subresource::Eviction), &options).await
    }

    /// Tells the pod, in its conditions, why it goes (KEP-3329). A pod to which the preconditions do not apply is
    /// left alone: the deletion will refuse it.
    async fn announce(&self, target: Target<'_>, options: &mut DeleteOptions) -> Result<(), StatusError> {
        let (own, plain) = (User::apiserver(), WriteOptions::default());
        for _ in 0..ATTEMPTS {
            let entry = self.get(target.kind, target.namespace, target.name, "").await?;
            let mut pod = Object::parse(&entry.json).map_err(StatusError::internal)?;
            let wanted = options.preconditions.clone().unwrap_or_default();
            if wanted.uid.is_some_and(|uid| uid != pod.uid())
                || wanted.resource_version.as_deref().is_some_and(|v| v != pod.resource_version())
            {
                return Ok(());
            }
            let condition = json!({"type": "DisruptionTarget", "status": "True",
                "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
                "lastTransitionTime": whole_seconds(self.clock().now())});
            if !pods::set_condition(&mut pod, condition) {
                return Ok(());
            }
            let status = Some(Subresource::Status);
            match self.update(&own, target, status, pod.to_value(), &plain, &|| Ok(())).await {
                Ok(written) => {
                    let version = options.preconditions.as_mut().and_then(|p| p.resource_version.as_mut());
                    // The version that the client has seen is this one but for the condition.
                    if let Some(version) = version {
                        let pod = Object::parse(&written.json).map_err(StatusError::internal)?;
                        *version = pod.resource_version().to_owned();
                    }
                    return Ok(());
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        // Whoever writes to it all the time does not keep it from going.
        Ok(())
    }

    async fn budgets(&self, pod: &Pod) -> Result<Vec<PodDisruptionBudget>, StatusError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let list = self.list(PodDisruptionBudget::kind(), namespace, &ListQuery::default()).await?;
        let parsed = list.entries.iter().filter_map(|entry| decode_json(&entry.json).ok());
        Ok(parsed.filter(|budget| covers(budget, &labels)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::object;
    use serde_json::Value;

    fn pod(ready: &str) -> Pod {
        object(json!({"metadata": {"name": "p", "labels": {"a": "b"}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
    }

    fn budget(status: Value) -> PodDisruptionBudget {
        object(
            json!({"metadata": {"name": "b", "generation": 1}, "spec": {"selector": {"matchLabels": {"a": "b"}}}, "status": status}),
        )
    }

    #[track_caller]
    fn refused(status: Value, code: u16, text: &str) {
        let error = decide(&budget(status), &pod("True"), Timestamp::UNIX_EPOCH).expect_err("refused");
        let causes = error.0.details.clone().and_then(|d| d.causes).unwrap_or_default();
        let told = causes.first().and_then(|c| c.message.clone()).unwrap_or_else(|| error.to_string());
        assert_eq!(error.code(), code, "{error}");
        assert!(told.contains(text), "{told}");
    }

    #[test]
    fn a_budget_grants_what_it_has() {
        let status = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2});
        let verdict = decide(&budget(status), &pod("True"), Timestamp::UNIX_EPOCH).expect("granted");
        let Verdict::Granted(granted) = verdict else { panic!("{verdict:?}") };
        let status = granted.status.expect("a status");
        assert_eq!(status.disruptions_allowed, 0);
        assert!(status.disrupted_pods.expect("told").contains_key("p"));
        refused(json!({"disruptionsAllowed": 1}), 429, "is still being processed by the server");
        let none = json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1});
        refused(none.clone(), 429, "The disruption budget b needs 1 healthy pods and has 1 currently");
        // A pod that is not ready is no loss while enough others are.
        let verdict = decide(&budget(none), &pod("False"), Timestamp::UNIX_EPOCH);
        assert!(matches!(verdict, Ok(Verdict::Free)), "{verdict:?}");
    }

    #[test]
    fn a_budget_covers_what_it_selects() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert!(covers(&budget(json!({})), &labels));
        assert!(!covers(&budget(json!({})), &BTreeMap::new()));
        assert!(!covers(&object(json!({"spec": {}})), &labels));
        assert!(covers(&object(json!({"spec": {"selector": {}}})), &labels));
    }
}
