//! Nodes, with what their pods ask for.

use api::quantity::Amount;
use jiff::Timestamp;
use serde_json::Value;

use super::doc::{Doc, text_of};
use crate::age;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Describes a node.
pub fn describe(doc: &mut Doc, node: &Value, pods: &[Value], lease: &Result<Value, String>, now: Timestamp) {
    let (meta, spec, status) = (&node["metadata"], &node["spec"], &node["status"]);
    doc.field(0, "Name", text(&meta["name"]));
    doc.field(0, "Roles", roles(&meta["labels"]));
    doc.pairs("Labels", &meta["labels"]);
    doc.annotations("Annotations", &meta["annotations"]);
    doc.field(0, "CreationTimestamp", age::long(&meta["creationTimestamp"]));
    taints(doc, &spec["taints"]);
    doc.field(0, "Unschedulable", spec["unschedulable"] == true);
    leased(doc, lease);
    conditions(doc, &status["conditions"]);
    doc.line(0, "Addresses:");
    for address in status["addresses"].as_array().into_iter().flatten() {
        doc.field(1, text(&address["type"]), text(&address["address"]));
    }
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        let mut all: Vec<_> = status[field].as_object().into_iter().flatten().collect();
        all.sort_by_key(|(name, _)| *name);
        if !all.is_empty() {
            doc.line(0, format!("{title}:"));
            all.into_iter()
                .for_each(|(name, amount)| doc.field(1, name, text_of(amount).unwrap_or_default()));
        }
    }
    system(doc, &status["nodeInfo"]);
    doc.optional(0, "PodCIDR", &spec["podCIDR"]);
    let ranges: Vec<&str> = spec["podCIDRs"].as_array().into_iter().flatten().map(text).collect();
    if !ranges.is_empty() {
        doc.field(0, "PodCIDRs", ranges.join(","));
    }
    doc.optional(0, "ProviderID", &spec["providerID"]);
    let allocatable =
        if status["allocatable"].is_object() { &status["allocatable"] } else { &status["capacity"] };
    resources(doc, pods, allocatable, now);
}

fn roles(labels: &Value) -> String {
    let mut roles: Vec<&str> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| match k.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ if k == "kubernetes.io/role" => v.as_str(),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn taints(doc: &mut Doc, all: &Value) {
    let mut lines: Vec<(String, String)> = all
        .as_array()
        .into_iter()
        .flatten()
        .map(|t| {
            let value = text_of(&t["value"]).map(|v| format!("={v}")).unwrap_or_default();
            (text(&t["effect"]).to_owned(), format!("{}{value}:{}", text(&t["key"]), text(&t["effect"])))
        })
        .collect();
    // NoExecute before NoSchedule before PreferNoSchedule, which is the order of their names.
    lines.sort();
    doc.several("Taints", &lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>());
}

fn leased(doc: &mut Doc, lease: &Result<Value, String>) {
    let lease = match lease {
        Ok(lease) => lease,
        Err(why) => return doc.field(0, "Lease", format!("Failed to get lease: {why}")),
    };
    let spec = &lease["spec"];
    let time = |field: &str| match spec[field].is_string() {
        true => age::long(&spec[field]),
        false => "<unset>".into(),
    };
    doc.line(0, "Lease:");
    doc.field(1, "HolderIdentity", text_of(&spec["holderIdentity"]).unwrap_or_else(|| "<unset>".into()));
    doc.field(1, "AcquireTime", time("acquireTime"));
    doc.field(1, "RenewTime", time("renewTime"));
}

fn conditions(doc: &mut Doc, all: &Value) {
    let Some(all) = all.as_array().filter(|a| !a.is_empty()) else { return };
    doc.line(0, "Conditions:");
    doc.line(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    doc.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for c in all {
        doc.line(
            1,
            format!(
                "{} \t{} \t{} \t{} \t{} \t{}",
                text(&c["type"]),
                text(&c["status"]),
                age::long(&c["lastHeartbeatTime"]),
                age::long(&c["lastTransitionTime"]),
                text(&c["reason"]),
                text(&c["message"])
            ),
        );
    }
}

fn system(doc: &mut Doc, info: &Value) {
    doc.line(0, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
        ("Kube-Proxy Version", "kubeProxyVersion"),
    ] {
        doc.field(1, title, text(&info[field]));
    }
}

/// What a pod's containers ask for, as the scheduler counts it: the sum of the containers, or the
/// largest init container together with the sidecars that run beside it.
fn demand(pod: &Value, side: &str, name: &str) -> Amount {
    let spec = &pod["spec"];
    let of = |container: &Value| {
        let text = text_of(&container["resources"][side][name]).unwrap_or_default();
        Amount::parse(&text).unwrap_or(Amount::ZERO)
    };
    let mut sum = add_all(spec["containers"].as_array().into_iter().flatten().map(of));
    let (mut sidecars, mut largest) = (Amount::ZERO, Amount::ZERO);
    for init in spec["initContainers"].as_array().into_iter().flatten() {
        if init["restartPolicy"] == "Always" {
            sidecars = add(sidecars, of(init));
            largest = largest.max(sidecars);
        } else {
            largest = largest.max(add(sidecars, of(init)));
        }
    }
    sum = add(sum, sidecars).max(largest);
    let overhead =
        Amount::parse(&text_of(&spec["overhead"][name]).unwrap_or_default()).unwrap_or(Amount::ZERO);
    if sum == Amount::ZERO && side == "limits" { sum } else { add(sum, overhead) }
}

fn add(a: Amount, b: Amount) -> Amount {
    a + b
}

fn add_all(all: impl Iterator<Item = Amount>) -> Amount {
    all.fold(Amount::ZERO, add)
}

fn percent(part: Amount, whole: Amount) -> i64 {
    let (part, whole) = (part.to_milli(), whole.to_milli());
    if whole == 0 { 0 } else { (part as f64 / whole as f64 * 100.0) as i64 }
}

/// CPU in cores or thousandths; memory in the largest binary unit that holds it exactly.
fn shown(name: &str, amount: Amount) -> String {
    if name == "cpu" {
        let milli = amount.to_milli();
        return if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") };
    }
    let bytes = amount.to_units();
    if bytes == 0 {
        return "0".into();
    }
    let units = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let (mut value, mut unit) = (bytes, 0);
    while value % 1024 == 0 && unit + 1 < units.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value}{}", units[unit])
}

fn resources(doc: &mut Doc, pods: &[Value], allocatable: &Value, now: Timestamp) {
    let whole =
        |name: &str| Amount::parse(&text_of(&allocatable[name]).unwrap_or_default()).unwrap_or(Amount::ZERO);
    doc.field(0, "Non-terminated Pods", format!("({} in total)", pods.len()));
    doc.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    doc.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    let cell = |pod: &Value, side: &str, name: &str| {
        let amount = demand(pod, side, name);
        format!("{} ({}%)", shown(name, amount), percent(amount, whole(name)))
    };
    for pod in pods {
        doc.line(
            1,
            format!(
                "{}\t{}\t\t{}\t{}\t{}\t{}\t{}",
                text(&pod["metadata"]["namespace"]),
                text(&pod["metadata"]["name"]),
                cell(pod, "requests", "cpu"),
                cell(pod, "limits", "cpu"),
                cell(pod, "requests", "memory"),
                cell(pod, "limits", "memory"),
                age::since(&pod["metadata"]["creationTimestamp"], now)
            ),
        );
    }
    doc.line(0, "Allocated resources:");
    doc.line(0, "  (Total limits may be over 100 percent, i.e., overcommitted.)");
    doc.line(1, "Resource\tRequests\tLimits");
    doc.line(1, "--------\t--------\t------");
    let mut names = vec!["cpu".to_owned(), "memory".into(), "ephemeral-storage".into()];
    let known = ["cpu", "memory", "ephemeral-storage", "pods"];
    let mut others: Vec<String> = allocatable
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k.clone())
        .filter(|k| !known.contains(&k.as_str()))
        .collect();
    others.sort();
    names.extend(others);
    for name in names {
        let sum = |side: &str| add_all(pods.iter().map(|p| demand(p, side, &name)));
        let (requests, limits) = (sum("requests"), sum("limits"));
        if known.contains(&name.as_str()) || name.starts_with("hugepages-") {
            let part = |amount| format!("{} ({}%)", shown(&name, amount), percent(amount, whole(&name)));
            doc.line(1, format!("{name}\t{}\t{}", part(requests), part(limits)));
        } else {
            doc.line(1, format!("{name}\t{}\t{}", shown(&name, requests), shown(&name, limits)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_asks_for_its_containers_or_its_largest_init_container() {
        let with = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let pod =
            json!({"spec": {"containers": [with("100m"), with("200m")], "initContainers": [with("1")]}});
        assert_eq!(shown("cpu", demand(&pod, "requests", "cpu")), "1");
        let pod = json!({"spec": {"containers": [with("100m"), with("1400m")]}});
        assert_eq!(shown("cpu", demand(&pod, "requests", "cpu")), "1500m");
        assert_eq!(percent(Amount::milli(1500), Amount::units(2)), 75);
        assert_eq!(shown("memory", Amount::parse("64Mi").unwrap()), "64Mi");
    }

    #[test]
    fn roles_come_from_labels() {
        assert_eq!(
            roles(&json!({"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"})),
            "control-plane,x"
        );
        assert_eq!(roles(&Value::Null), "<none>");
    }
}
