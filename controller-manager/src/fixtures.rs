//! Builders for the objects that tables of cases are made of. Times are seconds since the epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Typed;
use api::meta::controller_ref;
use api::openapi::api::apps::v1::{Deployment, ReplicaSet};
use api::openapi::api::core::v1::{
    Container, ContainerStatus, Node, NodeCondition, Pod, PodCondition, Taint,
};
use api::openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use jiff::Timestamp;

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a small number of seconds")
}

pub fn time(seconds: i64) -> Time {
    Time(at(seconds))
}

pub fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("default".into()),
        uid: Some(format!("uid-{name}")),
        resource_version: Some("1".into()),
        generation: Some(1),
        creation_timestamp: Some(time(0)),
        labels: Some(labels(&[("app", "web")])),
        ..Default::default()
    }
}

pub struct Builder<K>(pub K);

impl<K: Typed> Builder<K> {
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.0.metadata_mut().namespace = Some(namespace.into());
        self
    }
    pub fn labels(mut self, pairs: &[(&str, &str)]) -> Self {
        self.0.metadata_mut().labels = Some(labels(pairs));
        self
    }
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        let map = self.0.metadata_mut().annotations.get_or_insert_default();
        map.insert(key.into(), value.into());
        self
    }
    pub fn created(mut self, seconds: i64) -> Self {
        self.0.metadata_mut().creation_timestamp = Some(time(seconds));
        self
    }
    pub fn deleting(mut self) -> Self {
        self.0.metadata_mut().deletion_timestamp = Some(time(1));
        self
    }
    pub fn owned_by<O: Typed>(mut self, owner: &O) -> Self {
        self.0.metadata_mut().owner_references = Some(vec![controller_ref(owner)]);
        self
    }
    pub fn build(self) -> K {
        self.0
    }
    pub fn arc(self) -> Arc<K> {
        Arc::new(self.0)
    }
}

/// A pod `app=web` with a container `c`, unassigned and pending.
pub fn pod(name: &str) -> Builder<Pod> {
    let mut pod = Pod { metadata: meta(name), ..Default::default() };
    let container = Container { name: "c".into(), ..Default::default() };
    pod.spec.get_or_insert_default().containers = vec![container];
    pod.status.get_or_insert_default().phase = Some("Pending".into());
    Builder(pod)
}

impl Builder<Pod> {
    pub fn node(mut self, node: &str) -> Self {
        self.0.spec.get_or_insert_default().node_name = Some(node.into());
        self
    }
    pub fn phase(mut self, phase: &str) -> Self {
        self.0.status.get_or_insert_default().phase = Some(phase.into());
        self
    }
    pub fn ip(mut self, ip: &str) -> Self {
        use api::openapi::api::core::v1::PodIP;
        let status = self.0.status.get_or_insert_default();
        status.pod_ip = Some(ip.into());
        status.pod_ips = Some(vec![PodIP { ip: ip.into() }]);
        self
    }
    fn condition(mut self, status: &str, since: i64) -> Self {
        let condition = PodCondition {
            type_: "Ready".into(),
            status: status.into(),
            last_transition_time: Some(time(since)),
            ..Default::default()
        };
        api::conditions::set(&mut self.0.status.get_or_insert_default().conditions, condition);
        self
    }
    /// Running on `node-1` (unless assigned elsewhere) and ready since then.
    pub fn ready_since(mut self, since: i64) -> Self {
        self.0.spec.get_or_insert_default().node_name.get_or_insert("node-1".into());
        self.phase("Running").condition("True", since)
    }
    pub fn unready_since(self, since: i64) -> Self {
        self.phase("Running").condition("False", since)
    }
    pub fn restarts(mut self, count: i32) -> Self {
        let status = ContainerStatus { name: "c".into(), restart_count: count, ..Default::default() };
        self.0.status.get_or_insert_default().container_statuses = Some(vec![status]);
        self
    }
}

/// A ReplicaSet `app=web` of the template that [`deployment`] has.
pub fn replica_set(name: &str, replicas: i32) -> Builder<ReplicaSet> {
    let mut set = ReplicaSet { metadata: meta(name), ..Default::default() };
    let spec = set.spec.get_or_insert_default();
    spec.replicas = Some(replicas);
    spec.selector = LabelSelector { match_labels: Some(labels(&[("app", "web")])), ..Default::default() };
    let template = spec.template.get_or_insert_default();
    template.metadata.get_or_insert_default().labels = Some(labels(&[("app", "web")]));
    let container = Container { name: "c".into(), image: Some("v1".into()), ..Default::default() };
    template.spec.get_or_insert_default().containers = vec![container];
    let status = set.status.get_or_insert_default();
    status.observed_generation = Some(1);
    status.terminating_replicas = Some(0);
    Builder(set)
}

impl Builder<ReplicaSet> {
    pub fn image(mut self, image: &str) -> Self {
        let template = self.0.spec.get_or_insert_default().template.get_or_insert_default();
        template.spec.get_or_insert_default().containers[0].image = Some(image.into());
        self
    }
    /// What its pods are reported to be: all of them exist, so many are ready and available.
    pub fn available(mut self, available: i32) -> Self {
        let replicas = self.0.spec.get_or_insert_default().replicas.unwrap_or_default();
        let status = self.0.status.get_or_insert_default();
        status.replicas = replicas;
        status.ready_replicas = Some(available);
        status.available_replicas = Some(available);
        self
    }
    pub fn revision(self, revision: i64) -> Self {
        self.annotation("deployment.kubernetes.io/revision", &revision.to_string())
    }
    /// The sizes that its Deployment noted when it last scaled it.
    pub fn sized(self, desired: i32, max: i32) -> Self {
        self.annotation("deployment.kubernetes.io/desired-replicas", &desired.to_string())
            .annotation("deployment.kubernetes.io/max-replicas", &max.to_string())
    }
}

/// A Deployment `web` of image `v1` with the API's defaults.
pub fn deployment(replicas: i32) -> Builder<Deployment> {
    use api::openapi::api::apps::v1::{DeploymentStrategy, RollingUpdateDeployment};
    use api::openapi::apimachinery::pkg::util::intstr::IntOrString;
    let mut deployment = Deployment { metadata: meta("web"), ..Default::default() };
    let set = replica_set("template", 0).build().spec.unwrap_or_default();
    let spec = deployment.spec.get_or_insert_default();
    spec.replicas = Some(replicas);
    spec.selector = set.selector;
    spec.template = set.template.unwrap_or_default();
    spec.revision_history_limit = Some(10);
    spec.progress_deadline_seconds = Some(600);
    let quarter = || Some(IntOrString::String("25%".into()));
    spec.strategy = Some(DeploymentStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDeployment { max_surge: quarter(), max_unavailable: quarter() }),
    });
    Builder(deployment)
}

impl Builder<Deployment> {
    pub fn image(mut self, image: &str) -> Self {
        let spec = self.0.spec.get_or_insert_default();
        spec.template.spec.get_or_insert_default().containers[0].image = Some(image.into());
        self
    }
}

/// A Node whose condition Ready has a status since then.
pub fn node(name: &str, ready: &str, since: i64) -> Builder<Node> {
    let mut node = Node { metadata: meta(name), ..Default::default() };
    node.metadata.namespace = None;
    let condition = NodeCondition {
        type_: "Ready".into(),
        status: ready.into(),
        last_heartbeat_time: Some(time(since)),
        last_transition_time: Some(time(since)),
        ..Default::default()
    };
    node.status.get_or_insert_default().conditions = Some(vec![condition]);
    Builder(node)
}

impl Builder<Node> {
    pub fn taint(mut self, key: &str, effect: &str, added: i64) -> Self {
        let taint = Taint {
            key: key.into(),
            effect: effect.into(),
            time_added: Some(time(added)),
            ..Default::default()
        };
        self.0.spec.get_or_insert_default().taints.get_or_insert_default().push(taint);
        self
    }
}

/// A Service `web` that selects `app=web`, with TCP ports given as (name, port, target port).
pub fn service(ports: &[(&str, i32, &str)]) -> Builder<api::openapi::api::core::v1::Service> {
    use api::openapi::api::core::v1::{Service, ServicePort};
    use api::openapi::apimachinery::pkg::util::intstr::IntOrString;
    let mut service = Service { metadata: meta("web"), ..Default::default() };
    let spec = service.spec.get_or_insert_default();
    spec.cluster_ip = Some("10.96.0.7".into());
    spec.selector = Some(labels(&[("app", "web")]));
    let port = |(name, port, target): &(&str, i32, &str)| ServicePort {
        name: (!name.is_empty()).then(|| (*name).into()),
        port: *port,
        protocol: Some("TCP".into()),
        target_port: Some(match target.parse() {
            Ok(number) => IntOrString::Int(number),
            Err(_) => IntOrString::String((*target).into()),
        }),
        ..Default::default()
    };
    spec.ports = Some(ports.iter().map(port).collect());
    Builder(service)
}
