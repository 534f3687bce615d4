//! Small pods and nodes for tests.

use std::sync::Arc;

use api::openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::pod::PodInfo;

pub struct NodeFixture(Value);

pub fn node(name: &str) -> NodeFixture {
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {}}, "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "10Gi"}}});
    node["metadata"]["labels"]["kubernetes.io/hostname"] = name.into();
    NodeFixture(node)
}

impl NodeFixture {
    pub fn cpu(self, cpu: &str) -> Self {
        self.allocatable("cpu", cpu)
    }

    pub fn allocatable(mut self, resource: &str, amount: &str) -> Self {
        self.0["status"]["allocatable"][resource] = amount.into();
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][key] = value.into();
        self
    }

    pub fn spec(mut self, spec: Value) -> Self {
        self.0["spec"] = spec;
        self
    }

    pub fn taint(mut self, key: &str, value: &str, effect: &str) -> Self {
        let taint = json!({"key": key, "value": value, "effect": effect});
        match self.0["spec"]["taints"].as_array_mut() {
            Some(taints) => taints.push(taint),
            None => self.0["spec"]["taints"] = json!([taint]),
        }
        self
    }

    pub fn image(mut self, name: &str, size: i64) -> Self {
        self.0["status"]["images"] = json!([{"names": [name], "sizeBytes": size}]);
        self
    }

    pub fn build(self) -> Node {
        serde_json::from_value(self.0).expect("the fixture is a Node")
    }

    pub fn state(self) -> crate::snapshot::NodeState {
        crate::snapshot::NodeState::new(&self.build())
    }
}

pub struct PodFixture(Value);

pub fn pod(name: &str) -> PodFixture {
    PodFixture(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("{name}-uid")},
        "spec": {"containers": [{"name": "c", "image": "app"}]}}))
}

impl PodFixture {
    pub fn cpu(self, cpu: &str) -> Self {
        self.request("cpu", cpu)
    }

    pub fn request(mut self, resource: &str, amount: &str) -> Self {
        self.0["spec"]["containers"][0]["resources"]["requests"][resource] = amount.into();
        self
    }

    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.0["spec"][field] = value;
        self
    }

    pub fn meta(mut self, field: &str, value: Value) -> Self {
        self.0["metadata"][field] = value;
        self
    }

    pub fn phase(mut self, phase: &str) -> Self {
        self.0["status"]["phase"] = phase.into();
        self
    }

    pub fn status(mut self, field: &str, value: Value) -> Self {
        self.0["status"][field] = value;
        self
    }

    pub fn image(mut self, image: &str) -> Self {
        self.0["spec"]["containers"][0]["image"] = image.into();
        self
    }

    pub fn port(mut self, ip: &str, port: i32, protocol: &str) -> Self {
        let port = json!({"containerPort": 80, "hostPort": port, "hostIP": ip, "protocol": protocol});
        self.0["spec"]["containers"][0]["ports"] = json!([port]);
        self
    }

    pub fn on(self, node: &str) -> Self {
        self.set("nodeName", node.into())
    }

    pub fn priority(self, priority: i32) -> Self {
        self.set("priority", priority.into())
    }

    pub fn build(self) -> Arc<Pod> {
        Arc::new(serde_json::from_value(self.0).expect("the fixture is a Pod"))
    }

    pub fn info(self) -> Arc<PodInfo> {
        Arc::new(PodInfo::new(self.build()))
    }
}
