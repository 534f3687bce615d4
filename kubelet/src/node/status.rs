//! The node's status: from what was observed of the machine and the runtime.

use std::collections::BTreeMap;

use api::conditions;
use api::quantity::Amount;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{ContainerImage, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::machine::{Machine, Pressure};

/// How many images a node's status names: the largest ones.
const IMAGES: usize = 50;
/// How many names of an image are given.
const NAMES: usize = 5;

/// The version that this kubelet is faithful to.
pub const VERSION: &str = "v1.35.0";

/// What was seen of the node.
#[derive(Debug)]
pub struct Observed {
    /// The runtime's conditions, or why it does not answer.
    pub runtime: Result<cri::RuntimeStatus, String>,
    /// Such as `containerd://1.6.20`; none when it does not answer.
    pub runtime_version: Option<String>,
    /// What is short.
    pub pressure: Pressure,
    /// The images.
    pub images: Vec<cri::Image>,
}

/// Why the node is not ready; nothing when it is.
fn unready(runtime: &Result<cri::RuntimeStatus, String>) -> Option<String> {
    let status = match runtime {
        Ok(status) => status,
        Err(why) => return Some(format!("container runtime is down: {why}")),
    };
    let condition = |type_: &str, what: &str| {
        let found = status.conditions.iter().find(|c| c.r#type == type_);
        match found {
            Some(c) if c.status => None,
            Some(c) => {
                Some(format!("{what} not ready: {type_}=false reason:{} message:{}", c.reason, c.message))
            }
            None => Some(format!("{what} not ready: condition {type_} is not reported")),
        }
    };
    let problems: Vec<_> = [
        condition("RuntimeReady", "container runtime"),
        condition("NetworkReady", "container runtime network"),
    ]
    .into_iter()
    .flatten()
    .collect();
    match problems.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

fn quantities(amounts: &BTreeMap<String, Amount>) -> BTreeMap<String, Quantity> {
    let text = |name: &str, amount: Amount| match name {
        "memory" => format!("{}Ki", amount.to_units() / 1024),
        _ => amount.to_units().to_string(),
    };
    amounts.iter().map(|(k, v)| (k.clone(), Quantity(text(k, *v)))).collect()
}

fn images(list: &[cri::Image]) -> Vec<ContainerImage> {
    let mut list: Vec<_> = list.iter().collect();
    list.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let image = |i: &cri::Image| ContainerImage {
        names: Some(i.repo_digests.iter().chain(&i.repo_tags).take(NAMES).cloned().collect()),
        size_bytes: i64::try_from(i.size).ok(),
    };
    list.into_iter().take(IMAGES).map(image).collect()
}

fn condition(
    before: Option<&NodeStatus>,
    type_: &str,
    on: bool,
    reason: &str,
    message: &str,
    now: &Time,
) -> NodeCondition {
    let status = if on { "True" } else { "False" };
    let old = before.and_then(|b| conditions::find(&b.conditions, type_));
    let since = old.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: since.or_else(|| Some(now.clone())),
    }
}

/// Makes the node's status; what others wrote in `before` is kept.
pub fn status(
    machine: &Machine,
    name: &str,
    before: Option<&NodeStatus>,
    seen: &Observed,
    now: Time,
) -> NodeStatus {
    let mut status = before.cloned().unwrap_or_default();
    let pressure = |type_: &str, on: bool, yes: (&str, &str), no: (&str, &str)| {
        let (reason, message) = if on { yes } else { no };
        condition(before, type_, on, reason, message, &now)
    };
    let why = unready(&seen.runtime);
    let ready = match &why {
        None => ("KubeletReady", "kubelet is posting ready status"),
        Some(why) => ("KubeletNotReady", why.as_str()),
    };
    let made = [
        pressure(
            "MemoryPressure",
            seen.pressure.memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            seen.pressure.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            seen.pressure.pid,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        condition(before, "Ready", why.is_none(), ready.0, ready.1, &now),
    ];
    made.into_iter().for_each(|c| conditions::set(&mut status.conditions, c));
    let address = |type_: &str, address: String| NodeAddress { type_: type_.into(), address };
    let internal = machine.addresses.iter().map(|ip| address("InternalIP", ip.to_string()));
    status.addresses = Some(internal.chain([address("Hostname", name.to_owned())]).collect());
    status.capacity = Some(quantities(&machine.capacity()));
    status.allocatable = Some(quantities(&machine.allocatable()));
    if !seen.images.is_empty() {
        status.images = Some(images(&seen.images));
    }
    let known = before.and_then(|b| b.node_info.as_ref()).map(|i| i.container_runtime_version.clone());
    status.node_info = Some(NodeSystemInfo {
        architecture: machine.architecture.clone(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: seen.runtime_version.clone().or(known).unwrap_or_default(),
        kernel_version: machine.kernel.clone(),
        kubelet_version: VERSION.into(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".into(),
        os_image: machine.os_image.clone(),
        system_uuid: machine.system_uuid.clone(),
        ..NodeSystemInfo::default()
    });
    status
}

/// Whether a status says that the node is ready.
pub fn is_ready(status: &NodeStatus) -> bool {
    conditions::is_true(&status.conditions, "Ready")
}

/// Whether two statuses differ in their heartbeats alone.
pub fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        status.conditions.iter_mut().flatten().for_each(|c| c.last_heartbeat_time = None);
        serde_json::to_value(status).unwrap_or_default()
    };
    still(a) == still(b)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn seen(runtime: bool, network: bool) -> Observed {
        let condition = |type_: &str, status| cri::RuntimeCondition {
            r#type: type_.into(),
            status,
            reason: "NetworkPluginNotReady".into(),
            message: "cni plugin not initialized".into(),
        };
        let conditions = vec![condition("RuntimeReady", runtime), condition("NetworkReady", network)];
        Observed {
            runtime: Ok(cri::RuntimeStatus { conditions }),
            runtime_version: Some("containerd://1.6.20".into()),
            pressure: Pressure::default(),
            images: Vec::new(),
        }
    }

    fn make(before: Option<&NodeStatus>, seen: &Observed, at: i64) -> NodeStatus {
        let machine = Machine { cpus: 2, memory: 1 << 30, ..Machine::default() };
        status(&machine, "n", before, seen, Time(Timestamp::from_second(at).unwrap()))
    }

    fn ready(status: &NodeStatus) -> (String, String) {
        let found = conditions::find(&status.conditions, "Ready").unwrap();
        (found.reason.clone().unwrap(), found.message.clone().unwrap())
    }

    #[test]
    fn ready_needs_the_runtime_and_its_network() {
        let status = make(None, &seen(true, true), 1);
        assert!(is_ready(&status));
        assert_eq!(ready(&status), ("KubeletReady".into(), "kubelet is posting ready status".into()));
        let status = make(None, &seen(true, false), 1);
        let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized";
        assert_eq!(ready(&status), ("KubeletNotReady".into(), message.into()));
        let down = Observed { runtime: Err("no answer".into()), ..seen(true, true) };
        assert!(!is_ready(&make(None, &down, 1)));
    }

    #[test]
    fn a_heartbeat_alone_is_no_change_and_transitions_keep_their_time() {
        let first = make(None, &seen(true, true), 1);
        let second = make(Some(&first), &seen(true, true), 2);
        assert!(same(&first, &second));
        let since =
            |s: &NodeStatus| conditions::find(&s.conditions, "Ready").unwrap().last_transition_time.clone();
        assert_eq!(since(&first), since(&second));
        let third = make(Some(&second), &seen(true, false), 3);
        assert!(!same(&second, &third));
        assert_ne!(since(&second), since(&third));
    }
}
