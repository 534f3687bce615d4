//! What containers and pods ask for: requests, limits, quality of service, and cgroup numbers.

use api::quantity::Amount;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// How much a resource list grants of a resource; nothing for what is unset or malformed.
fn amount(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<Amount> {
    Amount::try_from(list?.get(resource)?).ok()
}

/// A container's limit of a resource.
pub fn limit(container: &Container, resource: &str) -> Option<Amount> {
    amount(container.resources.as_ref()?.limits.as_ref(), resource)
}

/// A container's request of a resource; its limit where only that is set.
pub fn request(container: &Container, resource: &str) -> Option<Amount> {
    let resources = container.resources.as_ref()?;
    amount(resources.requests.as_ref(), resource).or_else(|| amount(resources.limits.as_ref(), resource))
}

/// Whether an init container keeps running beside the pod's containers.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The init containers of a pod.
pub fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

/// Every container of a pod: init containers first.
pub fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    init_containers(spec).iter().chain(&spec.containers)
}

/// What a pod needs at its peak: its containers and sidecars together, or an init container with the
/// sidecars that started before it, whichever is more; and the overhead of its runtime class.
fn pod_sum(spec: &PodSpec, get: impl Fn(&Container) -> Amount) -> Amount {
    let mut sidecars = Amount::ZERO;
    let mut peak = Amount::ZERO;
    for container in init_containers(spec) {
        if is_sidecar(container) {
            sidecars += get(container);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + get(container));
        }
    }
    let steady = spec.containers.iter().map(get).sum::<Amount>() + sidecars;
    peak.max(steady)
}

fn overhead(spec: &PodSpec, resource: &str) -> Amount {
    amount(spec.overhead.as_ref(), resource).unwrap_or_default()
}

/// What a pod requests of a resource.
pub fn pod_request(spec: &PodSpec, resource: &str) -> Amount {
    pod_sum(spec, |c| request(c, resource).unwrap_or_default()) + overhead(spec, resource)
}

/// A pod's limit of a resource: none unless every container has one.
pub fn pod_limit(spec: &PodSpec, resource: &str) -> Option<Amount> {
    let limited = |c: &Container| limit(c, resource).is_some_and(|a| a > Amount::ZERO);
    all_containers(spec)
        .all(limited)
        .then(|| pod_sum(spec, |c| limit(c, resource).unwrap_or_default()) + overhead(spec, resource))
        .filter(|sum| *sum > Amount::ZERO)
}

/// The quality of service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Every container has equal requests and limits of cpu and memory.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is requested.
    BestEffort,
}

impl Qos {
    /// As `status.qosClass` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// The class of a pod by the requests and limits of cpu and memory of all its containers.
    pub fn of(spec: &PodSpec) -> Self {
        const KINDS: [&str; 2] = ["cpu", "memory"];
        let positive = |a: Option<Amount>| a.filter(|a| *a > Amount::ZERO);
        let mut any = false;
        let mut equal = true;
        for container in all_containers(spec) {
            for resource in KINDS {
                let (request, limit) =
                    (positive(request(container, resource)), positive(limit(container, resource)));
                any |= request.is_some() || limit.is_some();
                equal &= limit.is_some() && request == limit;
            }
        }
        match (any, equal) {
            (false, _) => Self::BestEffort,
            (true, true) => Self::Guaranteed,
            (true, false) => Self::Burstable,
        }
    }
}

/// The relative weight of so many millicores, as cgroup v1's `cpu.shares` counts it.
pub fn cpu_shares(milli: i64) -> i64 {
    if milli <= 0 { 2 } else { (milli.saturating_mul(1024) / 1000).clamp(2, 262_144) }
}

/// The scheduling period in microseconds.
pub const CPU_PERIOD: i64 = 100_000;

/// The microseconds of each period that so many millicores are worth; 0 when there is no limit.
pub fn cpu_quota(milli: i64) -> i64 {
    if milli <= 0 { 0 } else { (milli.saturating_mul(CPU_PERIOD) / 1000).max(1000) }
}

/// How eagerly the kernel should kill a container when memory runs out.
pub fn oom_score_adj(pod: &PodSpec, container: &Container, memory_capacity: i64) -> i64 {
    if pod.priority.unwrap_or(0) >= 2_000_000_000 {
        return -997;
    }
    match Qos::of(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = request(container, "memory").unwrap_or_default().to_units();
            let share = i128::from(request) * 1000 / i128::from(memory_capacity.max(1));
            (1000 - i64::try_from(share).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

/// The class of a pod as it was recorded, or as it is computed.
pub fn qos(pod: &Pod) -> Qos {
    pod.spec.as_ref().map_or(Qos::BestEffort, Qos::of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn check(containers: serde_json::Value, qos: Qos) {
        assert_eq!(Qos::of(&spec(json!({ "containers": containers }))), qos);
    }

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        check(json!([{"name": "a"}]), Qos::BestEffort);
        check(json!([{"name": "a", "resources": full}]), Qos::Guaranteed);
        check(json!([{"name": "a", "resources": full}, {"name": "b"}]), Qos::Burstable);
        check(json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}]), Qos::Burstable);
        check(json!([{"name": "a", "resources": {"requests": {"example.com/gpu": "1"}}}]), Qos::BestEffort);
        let unequal = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
        check(json!([{"name": "a", "resources": unequal}]), Qos::Burstable);
    }

    #[test]
    fn a_pod_requests_its_peak() {
        let cpu = |text: &str| json!({"requests": {"cpu": text}});
        let pod = spec(json!({
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": cpu("100m")},
                {"name": "setup", "resources": cpu("2")}],
            "containers": [{"name": "a", "resources": cpu("500m")}, {"name": "b", "resources": cpu("500m")}],
            "overhead": {"cpu": "10m"}}));
        assert_eq!(pod_request(&pod, "cpu").to_milli(), 2110);
        assert_eq!(pod_limit(&pod, "cpu"), None);
    }

    #[test]
    fn cgroup_numbers_are_as_documented() {
        assert_eq!((cpu_shares(0), cpu_shares(1000), cpu_shares(1)), (2, 1024, 2));
        assert_eq!((cpu_quota(0), cpu_quota(500), cpu_quota(1)), (0, 50_000, 1000));
        let pod = spec(json!({"containers": [{"name": "a", "resources": {"requests": {"memory": "4Gi"}}}]}));
        assert_eq!(oom_score_adj(&pod, &pod.containers[0], 8 << 30), 500);
    }
}
