//! What pods ask for and nodes have, in whole units that are cheap to compare.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::openapi::api::core::v1::{Container, PodSpec};
use api::openapi::apimachinery::pkg::api::resource::Quantity;
use api::quantity::Amount;

/// What a container without a CPU request counts as when nodes are scored: 100 millicores.
const DEFAULT_CPU: i64 = 100;
/// What a container without a memory request counts as when nodes are scored: 200 MiB.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of every resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Millicores.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral: i64,
    /// How many pods.
    pub pods: i64,
    /// Everything else by name, in whole units; nothing for almost all pods and nodes, hence elsewhere.
    #[allow(
        clippy::box_collection,
        reason = "a word in every node rather than three: nodes fill two cache lines"
    )]
    more: Option<Box<BTreeMap<Arc<str>, i64>>>,
}

impl Resources {
    /// Reads a list of the API. What is no quantity was refused by the API server and counts as zero.
    pub fn of(list: &BTreeMap<String, Quantity>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            let amount = Amount::parse(&quantity.0).unwrap_or(Amount::ZERO);
            match name.as_str() {
                "cpu" => resources.cpu = amount.to_milli(),
                "memory" => resources.memory = amount.to_units(),
                "ephemeral-storage" => resources.ephemeral = amount.to_units(),
                "pods" => resources.pods = amount.to_units(),
                _ => {
                    resources.more_mut().insert(name.as_str().into(), amount.to_units());
                }
            }
        }
        resources
    }

    /// Everything but what has a field of its own, ordered by name, in whole units.
    pub fn extended(&self) -> impl Iterator<Item = (&Arc<str>, i64)> {
        self.more.iter().flat_map(|more| more.iter()).map(|(name, amount)| (name, *amount))
    }

    /// One of [`Self::extended`]; 0 when there is none.
    pub fn extended_of(&self, name: &str) -> i64 {
        self.more.as_ref().and_then(|more| more.get(name)).copied().unwrap_or(0)
    }

    /// Whether there is nothing but what has a field of its own.
    pub fn is_plain(&self) -> bool {
        self.more.is_none()
    }

    /// The amount of a resource by its name in the API: millicores of CPU, whole units of all else.
    pub fn amount(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral,
            "pods" => self.pods,
            other => self.extended_of(other),
        }
    }

    fn more_mut(&mut self) -> &mut BTreeMap<Arc<str>, i64> {
        self.more.get_or_insert_default()
    }

    fn combine(&mut self, other: &Self, combine: impl Fn(i64, i64) -> i64) {
        self.cpu = combine(self.cpu, other.cpu);
        self.memory = combine(self.memory, other.memory);
        self.ephemeral = combine(self.ephemeral, other.ephemeral);
        self.pods = combine(self.pods, other.pods);
        for (name, amount) in other.extended() {
            let held = self.more_mut().entry(name.clone()).or_insert(0);
            *held = combine(*held, amount);
        }
    }

    /// Adds, saturating.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Subtracts what was added before.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
        if let Some(more) = &mut self.more {
            more.retain(|_, amount| *amount != 0);
            if more.is_empty() {
                self.more = None;
            }
        }
    }

    /// The greater of each.
    fn max(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }
}

/// What a pod asks of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// As stated; counts as one pod.
    pub stated: Resources,
    /// CPU with the default for containers that state none, for scores.
    pub scored_cpu: i64,
    /// Memory with the default for containers that state none, for scores.
    pub scored_memory: i64,
}

impl Request {
    /// Adds up a pod: its containers run together with its sidecars; each init container runs alone
    /// with the sidecars that were started before it; overhead comes on top (KEP-753, KEP-688).
    pub fn of(spec: &PodSpec) -> Self {
        let mut stated = total(spec, &stated);
        let mut scored = total(spec, &scored);
        if let Some(requests) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
            pod_level(&mut stated, requests);
            pod_level(&mut scored, requests);
        }
        if let Some(overhead) = &spec.overhead {
            let overhead = Resources::of(overhead);
            stated.add(&overhead);
            scored.add(&overhead);
        }
        stated.pods = 1;
        Self { stated, scored_cpu: scored.cpu, scored_memory: scored.memory }
    }

    /// Whether nothing is asked for but a place.
    pub fn is_best_effort(&self) -> bool {
        let Resources { cpu, memory, ephemeral, pods: _, more: _ } = &self.stated;
        *cpu == 0 && *memory == 0 && *ephemeral == 0 && self.stated.extended().all(|(_, v)| v == 0)
    }
}

fn total(spec: &PodSpec, of: &impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let asked = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&asked);
            running.add(&asked);
            peak.max(&sidecars);
        } else {
            let mut now = sidecars.clone();
            now.add(&asked);
            peak.max(&now);
        }
    }
    running.max(&peak);
    running
}

fn stated(container: &Container) -> Resources {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    requests.map(Resources::of).unwrap_or_default()
}

fn scored(container: &Container) -> Resources {
    let mut resources = stated(container);
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let states = |name: &str| requests.is_some_and(|r| r.contains_key(name));
    if !states("cpu") {
        resources.cpu = DEFAULT_CPU;
    }
    if !states("memory") {
        resources.memory = DEFAULT_MEMORY;
    }
    resources
}

/// What the pod asks for as a whole replaces the sum of its containers (KEP-2837).
fn pod_level(sum: &mut Resources, requests: &BTreeMap<String, Quantity>) {
    let whole = Resources::of(requests);
    if requests.contains_key("cpu") {
        sum.cpu = whole.cpu;
    }
    if requests.contains_key("memory") {
        sum.memory = whole.memory;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(spec: Value, cpu: i64, memory: i64, scored_cpu: i64) {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let request = Request::of(&spec);
        let seen = (request.stated.cpu, request.stated.memory, request.scored_cpu);
        assert_eq!(seen, (cpu, memory, scored_cpu));
        assert_eq!(request.stated.pods, 1);
    }

    fn container(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    #[test]
    fn containers_run_together() {
        check(json!({"containers": [container("100m", "1Ki"), container("1", "1k")]}), 1100, 2024, 1100);
        check(json!({"containers": [{"name": "c"}, container("1", "0")]}), 1000, 0, 1100);
    }

    #[test]
    fn init_containers_run_alone_and_sidecars_stay() {
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "200m", "memory": "5"}}});
        let spec = json!({"containers": [container("1", "10")], "initContainers": [container("3", "1")]});
        check(spec, 3000, 10, 3000);
        let spec =
            json!({"containers": [container("1", "10")], "initContainers": [sidecar, container("3", "1")]});
        check(spec, 3200, 15, 3200);
        let spec = json!({"containers": [container("1", "10")], "initContainers": [container("1100m", "1"), sidecar]});
        check(spec, 1200, 15, 1200);
    }

    #[test]
    fn overhead_comes_on_top_and_the_pods_own_request_replaces_the_sum() {
        let spec = json!({"containers": [container("1", "10")], "overhead": {"cpu": "250m", "memory": "7"}});
        check(spec, 1250, 17, 1250);
        let spec = json!({"containers": [container("1", "10")], "resources": {"requests": {"cpu": "2"}}});
        check(spec, 2000, 10, 2000);
    }

    #[test]
    fn what_was_added_can_be_subtracted() {
        let list =
            [("nvidia.com/gpu".to_owned(), Quantity("2".into())), ("cpu".to_owned(), Quantity("1".into()))];
        let some = Resources::of(&list.into());
        let mut sum = Resources::default();
        sum.add(&some);
        sum.add(&some);
        assert_eq!((sum.cpu, sum.extended_of("nvidia.com/gpu")), (2000, 4));
        sum.subtract(&some);
        sum.subtract(&some);
        assert_eq!(sum, Resources::default());
    }
}
