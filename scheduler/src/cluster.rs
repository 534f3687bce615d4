//! What decisions depend on beyond nodes and pods: who owns pods, which disruptions they bear, and
//! what is known of volumes.

use std::collections::HashMap;

use api::meta::MetaExt;
use api::openapi::api::policy::v1::PodDisruptionBudget;
use api::selector::{Requirement, Selector};

use crate::pod::PodInfo;
use crate::terms::selector_of;
use crate::volumes::Volumes;

/// A budget of disruptions as preemption reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Which pods of its namespace.
    pub selector: Selector,
    /// How many may be disrupted now.
    pub allowed: i32,
    /// Pods whose disruption has been counted already.
    pub disrupted: Vec<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Cluster {
    /// Selectors of Services, by namespace and name.
    services: HashMap<String, HashMap<String, Selector>>,
    /// Selectors of what manages pods, by uid.
    owners: HashMap<String, Selector>,
    /// By namespace and name.
    budgets: HashMap<String, HashMap<String, Budget>>,
    /// Volumes, claims and classes.
    pub volumes: Volumes,
}

impl Cluster {
    /// Keeps a Service's selector; `None` when it is gone or has none.
    pub fn set_service(&mut self, namespace: &str, name: &str, selector: Option<Selector>) {
        set(&mut self.services, namespace, name, selector.filter(|s| !s.is_everything()));
    }

    /// Keeps the selector of a ReplicaSet, StatefulSet or ReplicationController; `None` when it is gone.
    pub fn set_owner(&mut self, uid: &str, selector: Option<Selector>) {
        match selector {
            Some(selector) => {
                self.owners.insert(uid.to_owned(), selector);
            }
            None => {
                self.owners.remove(uid);
            }
        }
    }

    /// Keeps a budget; `None` when it is gone.
    pub fn set_budget(&mut self, namespace: &str, name: &str, budget: Option<&PodDisruptionBudget>) {
        let read = |budget: &PodDisruptionBudget| {
            let status = budget.status.as_ref();
            Budget {
                selector: selector_of(budget.spec.as_ref().and_then(|s| s.selector.as_ref())),
                allowed: status.map_or(0, |s| s.disruptions_allowed),
                disrupted: status
                    .and_then(|s| s.disrupted_pods.as_ref())
                    .map(|pods| pods.keys().cloned().collect())
                    .unwrap_or_default(),
            }
        };
        set(&mut self.budgets, namespace, name, budget.map(read));
    }

    /// The budgets of a namespace.
    pub fn budgets(&self, namespace: &str) -> impl Iterator<Item = &Budget> {
        self.budgets.get(namespace).into_iter().flat_map(HashMap::values)
    }

    /// The pods that belong together with this one: those of the Services that select it and of what
    /// manages it. `None` when nothing is known to.
    pub fn like(&self, pod: &PodInfo) -> Option<Selector> {
        let services = self.services.get(pod.namespace()).into_iter().flat_map(HashMap::values);
        let mut all: Vec<Requirement> = Vec::new();
        for selector in services.filter(|s| s.matches(pod.labels())) {
            all.extend(selector.requirements().iter().cloned());
        }
        if let Some(owner) = pod.pod.controller().and_then(|owner| self.owners.get(&owner.uid)) {
            all.extend(owner.requirements().iter().cloned());
        }
        // The order in which Services are found must not make two selectors of one.
        all.sort_by_cached_key(|requirement| requirement.to_string());
        all.dedup();
        (!all.is_empty()).then(|| Selector::all_of(all))
    }
}

fn set<T>(all: &mut HashMap<String, HashMap<String, T>>, namespace: &str, name: &str, item: Option<T>) {
    match item {
        Some(item) => {
            all.entry(namespace.to_owned()).or_default().insert(name.to_owned(), item);
        }
        None => {
            if let Some(items) = all.get_mut(namespace) {
                items.remove(name);
                if items.is_empty() {
                    all.remove(namespace);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::json;

    #[test]
    fn pods_of_one_owner_and_one_service_belong_together() {
        let mut cluster = Cluster::default();
        let owned = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs-uid", "controller": true}]);
        let info =
            pod("a").meta("labels", json!({"app": "web", "hash": "1"})).meta("ownerReferences", owned).info();
        assert_eq!(cluster.like(&info), None);
        cluster.set_service("default", "web", Selector::parse("app=web").ok());
        cluster.set_service("default", "db", Selector::parse("app=db").ok());
        cluster.set_service("other", "web", Selector::parse("hash=1").ok());
        assert_eq!(cluster.like(&info).unwrap().to_string(), "app=web");
        cluster.set_owner("rs-uid", Selector::parse("app=web,hash=1").ok());
        assert_eq!(cluster.like(&info).unwrap().to_string(), "app=web,hash=1");
        cluster.set_service("default", "web", None);
        cluster.set_owner("rs-uid", None);
        assert_eq!(cluster.like(&info), None);
    }
}
