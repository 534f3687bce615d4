//! Pods and pod templates.

use jiff::Timestamp;
use serde_json::Value;

use super::doc::{Doc, text_of};
use crate::age;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Describes a pod.
pub fn describe(doc: &mut Doc, pod: &Value, now: Timestamp) {
    let (meta, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    doc.field(0, "Name", text(&meta["name"]));
    doc.field(0, "Namespace", text(&meta["namespace"]));
    doc.optional(0, "Priority", &spec["priority"]);
    doc.optional(0, "Priority Class Name", &spec["priorityClassName"]);
    doc.optional(0, "Runtime Class Name", &spec["runtimeClassName"]);
    doc.optional(0, "Service Account", &spec["serviceAccountName"]);
    doc.field(
        0,
        "Node",
        match text(&spec["nodeName"]) {
            "" => "<none>".to_owned(),
            node => format!("{node}/{}", text(&status["hostIP"])),
        },
    );
    if status["startTime"].is_string() {
        doc.field(0, "Start Time", age::long(&status["startTime"]));
    }
    doc.pairs("Labels", &meta["labels"]);
    doc.annotations("Annotations", &meta["annotations"]);
    let ended = matches!(text(&status["phase"]), "Failed" | "Succeeded");
    if meta["deletionTimestamp"].is_string() && !ended {
        doc.field(
            0,
            "Status",
            format!("Terminating (lasts {})", age::since(&meta["deletionTimestamp"], now)),
        );
        let grace = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        doc.field(0, "Termination Grace Period", format!("{grace}s"));
    } else {
        doc.field(0, "Status", text(&status["phase"]));
    }
    doc.optional(0, "Reason", &status["reason"]);
    doc.optional(0, "Message", &status["message"]);
    if let Some(profile) = spec["securityContext"].get("seccompProfile") {
        doc.field(0, "SeccompProfile", text(&profile["type"]));
        doc.optional(0, "LocalhostProfile", &profile["localhostProfile"]);
    }
    doc.field(0, "IP", text(&status["podIP"]));
    match list(&status["podIPs"]) {
        [] => doc.field(0, "IPs", "<none>"),
        ips => {
            doc.line(0, "IPs:");
            ips.iter().for_each(|ip| doc.field(1, "IP", text(&ip["ip"])));
        }
    }
    doc.controller(pod);
    doc.optional(0, "NominatedNodeName", &status["nominatedNodeName"]);
    if !list(&spec["initContainers"]).is_empty() {
        containers(
            doc,
            "Init Containers",
            &spec["initContainers"],
            &status["initContainerStatuses"],
            Some(pod),
            "",
        );
    }
    containers(doc, "Containers", &spec["containers"], &status["containerStatuses"], Some(pod), "");
    if !list(&spec["ephemeralContainers"]).is_empty() {
        let statuses = &status["ephemeralContainerStatuses"];
        containers(doc, "Ephemeral Containers", &spec["ephemeralContainers"], statuses, Some(pod), "");
    }
    if !list(&spec["readinessGates"]).is_empty() {
        doc.line(0, "Readiness Gates:");
        doc.line(1, "Type\tStatus");
        for gate in list(&spec["readinessGates"]) {
            let condition = crate::pods::condition(&status["conditions"], text(&gate["conditionType"]));
            doc.line(
                1,
                format!(
                    "{} \t{} ",
                    text(&gate["conditionType"]),
                    condition.map_or("<none>", |c| text(&c["status"]))
                ),
            );
        }
    }
    if !list(&status["conditions"]).is_empty() {
        doc.line(0, "Conditions:");
        doc.line(1, "Type\tStatus");
        for condition in list(&status["conditions"]) {
            doc.line(1, format!("{} \t{} ", text(&condition["type"]), text(&condition["status"])));
        }
    }
    volumes(doc, &spec["volumes"], "");
    doc.optional(0, "QoS Class", &status["qosClass"]);
    doc.pairs("Node-Selectors", &spec["nodeSelector"]);
    tolerations(doc, "Tolerations", &spec["tolerations"]);
    spread(doc, &spec["topologySpreadConstraints"], "");
}

/// A pod template by itself, not aligned.
pub fn template(template: &Value) -> String {
    let mut doc = Doc::unaligned();
    pod_template(&mut doc, template);
    doc.finish()
}

/// Describes a pod template.
pub fn pod_template(doc: &mut Doc, template: &Value) {
    let spec = &template["spec"];
    doc.line(0, "Pod Template:");
    doc.pairs("  Labels", &template["metadata"]["labels"]);
    if template["metadata"]["annotations"].as_object().is_some_and(|a| !a.is_empty()) {
        doc.annotations("  Annotations", &template["metadata"]["annotations"]);
    }
    doc.optional(1, "Service Account", &spec["serviceAccountName"]);
    if !list(&spec["initContainers"]).is_empty() {
        containers(doc, "Init Containers", &spec["initContainers"], &Value::Null, None, "  ");
    }
    containers(doc, "Containers", &spec["containers"], &Value::Null, None, "  ");
    volumes(doc, &spec["volumes"], "  ");
    spread(doc, &spec["topologySpreadConstraints"], "  ");
    doc.optional(1, "Priority Class Name", &spec["priorityClassName"]);
    doc.pairs("  Node-Selectors", &spec["nodeSelector"]);
    tolerations(doc, "  Tolerations", &spec["tolerations"]);
}

fn containers(doc: &mut Doc, label: &str, all: &Value, statuses: &Value, pod: Option<&Value>, space: &str) {
    let none = if list(all).is_empty() { " <none>" } else { "" };
    doc.line(0, format!("{space}{label}:{none}"));
    for container in list(all) {
        let status = list(statuses).iter().find(|s| s["name"] == container["name"]);
        let name_indent = if space.is_empty() { "" } else { " " };
        doc.line(1, format!("{name_indent}{}:", text(&container["name"])));
        basics(doc, container, status);
        for (title, field) in [("Command", "command"), ("Args", "args")] {
            words(doc, title, &container[field]);
        }
        if let Some(status) = status {
            container_state(doc, status);
        }
        for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
            amounts(doc, 2, title, &container["resources"][field]);
        }
        for (title, field) in
            [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
        {
            if container[field].is_object() {
                doc.field(2, title, probe(&container[field]));
            }
        }
        environment(doc, container, pod);
        mounts(doc, container);
    }
}

fn basics(doc: &mut Doc, container: &Value, status: Option<&Value>) {
    if let Some(status) = status {
        doc.field(2, "Container ID", text(&status["containerID"]));
    }
    doc.field(2, "Image", text(&container["image"]));
    if let Some(status) = status {
        doc.field(2, "Image ID", text(&status["imageID"]));
    }
    for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        let ports: Vec<String> = list(&container["ports"])
            .iter()
            .map(|p| {
                format!("{}/{}", p[field].as_i64().unwrap_or(0), p["protocol"].as_str().unwrap_or("TCP"))
            })
            .collect();
        match ports.as_slice() {
            [] => doc.field(2, title, "<none>"),
            [one] => doc.field(2, title, one),
            many => doc.field(2, &format!("{title}s"), many.join(", ")),
        }
    }
    if let Some(profile) = container["securityContext"].get("seccompProfile") {
        doc.field(2, "SeccompProfile", text(&profile["type"]));
        doc.optional(3, "LocalhostProfile", &profile["localhostProfile"]);
    }
}

fn words(doc: &mut Doc, title: &str, all: &Value) {
    if list(all).is_empty() {
        return;
    }
    doc.line(2, format!("{title}:"));
    for word in list(all) {
        text(word).split('\n').for_each(|line| doc.line(3, line));
    }
}

fn container_state(doc: &mut Doc, status: &Value) {
    state(doc, "State", &status["state"]);
    if status["lastState"]["terminated"].is_object() {
        state(doc, "Last State", &status["lastState"]);
    }
    doc.field(2, "Ready", if status["ready"] == true { "True" } else { "False" });
    doc.field(2, "Restart Count", status["restartCount"].as_i64().unwrap_or(0));
}

fn state(doc: &mut Doc, title: &str, state: &Value) {
    if let Some(running) = state.get("running") {
        doc.field(2, title, "Running");
        doc.field(3, "Started", age::long(&running["startedAt"]));
    } else if let Some(ended) = state.get("terminated") {
        doc.field(2, title, "Terminated");
        doc.optional(3, "Reason", &ended["reason"]);
        doc.optional(3, "Message", &ended["message"]);
        doc.field(3, "Exit Code", ended["exitCode"].as_i64().unwrap_or(0));
        if let Some(signal) = ended["signal"].as_i64().filter(|s| *s > 0) {
            doc.field(3, "Signal", signal);
        }
        doc.field(3, "Started", age::long(&ended["startedAt"]));
        doc.field(3, "Finished", age::long(&ended["finishedAt"]));
    } else {
        doc.field(2, title, "Waiting");
        doc.optional(3, "Reason", &state["waiting"]["reason"]);
    }
}

fn amounts(doc: &mut Doc, level: usize, title: &str, amounts: &Value) {
    let mut all: Vec<_> = amounts.as_object().into_iter().flatten().collect();
    if all.is_empty() {
        return;
    }
    all.sort_by_key(|(name, _)| *name);
    doc.line(level, format!("{title}:"));
    all.into_iter()
        .for_each(|(name, amount)| doc.field(level + 1, name, text_of(amount).unwrap_or_default()));
}

fn probe(probe: &Value) -> String {
    let number = |field: &str, otherwise: i64| probe[field].as_i64().unwrap_or(otherwise);
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    );
    let port = |holder: &Value| text_of(&holder["port"]).unwrap_or_default();
    let what = if probe["exec"].is_object() {
        let words: Vec<&str> = list(&probe["exec"]["command"]).iter().map(text).collect();
        format!("exec [{}]", words.join(" "))
    } else if probe["httpGet"].is_object() {
        let get = &probe["httpGet"];
        let scheme = get["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
        let path = get["path"].as_str().unwrap_or_default();
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        format!("http-get {scheme}://{}:{}{slash}{path}", text(&get["host"]), port(get))
    } else if probe["tcpSocket"].is_object() {
        format!("tcp-socket {}:{}", text(&probe["tcpSocket"]["host"]), port(&probe["tcpSocket"]))
    } else if probe["grpc"].is_object() {
        format!("grpc <pod>:{} {}", port(&probe["grpc"]), text(&probe["grpc"]["service"]))
    } else {
        "unknown".into()
    };
    format!("{what} {attributes}")
}

fn is_optional(reference: &Value) -> bool {
    reference["optional"] == true
}

fn environment(doc: &mut Doc, container: &Value, pod: Option<&Value>) {
    if !list(&container["envFrom"]).is_empty() {
        doc.line(2, "Environment Variables from:");
        for source in list(&container["envFrom"]) {
            let (kind, reference) = match source.get("configMapRef") {
                Some(reference) => ("ConfigMap", reference),
                None => ("Secret", &source["secretRef"]),
            };
            let prefix =
                text_of(&source["prefix"]).map(|p| format!(" with prefix '{p}'")).unwrap_or_default();
            doc.line(
                3,
                format!("{}\t{kind}{prefix}\tOptional: {}", text(&reference["name"]), is_optional(reference)),
            );
        }
    }
    let variables = list(&container["env"]);
    doc.line(2, format!("Environment:{}", if variables.is_empty() { "\t<none>" } else { "" }));
    for variable in variables {
        let name = text(&variable["name"]);
        let from = &variable["valueFrom"];
        if !from.is_object() {
            for (i, line) in text(&variable["value"]).split('\n').enumerate() {
                let title = if i == 0 { format!("{name}:") } else { String::new() };
                doc.line(3, format!("{title}\t{line}"));
            }
        } else if let Some(field) = from.get("fieldRef") {
            let path = text(&field["fieldPath"]);
            let value = pod.map(|p| field_value(p, path)).unwrap_or_default();
            doc.line(
                3,
                format!("{name}:\t{value} ({}:{path})", field["apiVersion"].as_str().unwrap_or("v1")),
            );
        } else if let Some(field) = from.get("resourceFieldRef") {
            let resource = text(&field["resource"]);
            let pointer = format!("/{}", resource.replace('.', "/"));
            let value =
                container["resources"].pointer(&pointer).and_then(text_of).unwrap_or_else(|| "0".into());
            let value = if resource.starts_with("limits.") && value == "0" {
                "node allocatable".into()
            } else {
                value
            };
            doc.line(3, format!("{name}:\t{value} ({resource})"));
        } else if let Some(key) = from.get("secretKeyRef") {
            doc.line(
                3,
                format!(
                    "{name}:\t<set to the key '{}' in secret '{}'>\tOptional: {}",
                    text(&key["key"]),
                    text(&key["name"]),
                    is_optional(key)
                ),
            );
        } else if let Some(key) = from.get("configMapKeyRef") {
            doc.line(
                3,
                format!(
                    "{name}:\t<set to the key '{}' of config map '{}'>\tOptional: {}",
                    text(&key["key"]),
                    text(&key["name"]),
                    is_optional(key)
                ),
            );
        }
    }
}

/// A field of a pod that a variable refers to, as far as the pod says it.
fn field_value(pod: &Value, path: &str) -> String {
    if let Some((start, rest)) = path.split_once("['") {
        let key = rest.trim_end_matches("']");
        let pointer = format!("/{}", start.replace('.', "/"));
        return pod.pointer(&pointer).and_then(|m| text_of(&m[key])).unwrap_or_default();
    }
    pod.pointer(&format!("/{}", path.replace('.', "/"))).and_then(text_of).unwrap_or_default()
}

fn mounts(doc: &mut Doc, container: &Value) {
    let mut all: Vec<&Value> = list(&container["volumeMounts"]).iter().collect();
    all.sort_by_key(|m| text(&m["mountPath"]).to_owned());
    doc.line(2, format!("Mounts:{}", if all.is_empty() { "\t<none>" } else { "" }));
    for mount in all {
        let mut flags = vec![if mount["readOnly"] == true { "ro".to_owned() } else { "rw".into() }];
        if let Some(path) = text_of(&mount["subPath"]) {
            flags.push(format!("path={path:?}"));
        }
        doc.line(
            3,
            format!("{} from {} ({})", text(&mount["mountPath"]), text(&mount["name"]), flags.join(",")),
        );
    }
    let devices = list(&container["volumeDevices"]);
    if !devices.is_empty() {
        doc.line(2, "Devices:");
        devices
            .iter()
            .for_each(|d| doc.line(3, format!("{} from {}", text(&d["devicePath"]), text(&d["name"]))));
    }
}

fn volumes(doc: &mut Doc, all: &Value, space: &str) {
    if list(all).is_empty() {
        return doc.line(0, format!("{space}Volumes:\t<none>"));
    }
    doc.line(0, format!("{space}Volumes:"));
    for volume in list(all) {
        let name_indent = if space.is_empty() { "" } else { " " };
        doc.line(1, format!("{name_indent}{}:", text(&volume["name"])));
        volume_source(doc, volume);
    }
}

fn volume_source(doc: &mut Doc, volume: &Value) {
    let or = |value: &Value, otherwise: &str| text_of(value).unwrap_or_else(|| otherwise.into());
    if let Some(source) = volume.get("hostPath") {
        doc.field(2, "Type", "HostPath (bare host directory volume)");
        doc.field(2, "Path", text(&source["path"]));
        doc.field(2, "HostPathType", text(&source["type"]));
    } else if let Some(source) = volume.get("emptyDir") {
        doc.field(2, "Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
        doc.field(2, "Medium", text(&source["medium"]));
        doc.field(2, "SizeLimit", or(&source["sizeLimit"], "<unset>"));
    } else if let Some(source) = volume.get("configMap") {
        doc.field(2, "Type", "ConfigMap (a volume populated by a ConfigMap)");
        doc.field(2, "Name", text(&source["name"]));
        doc.field(2, "Optional", is_optional(source));
    } else if let Some(source) = volume.get("secret") {
        doc.field(2, "Type", "Secret (a volume populated by a Secret)");
        doc.field(2, "SecretName", text(&source["secretName"]));
        doc.field(2, "Optional", is_optional(source));
    } else if let Some(source) = volume.get("persistentVolumeClaim") {
        doc.field(
            2,
            "Type",
            "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        );
        doc.field(2, "ClaimName", text(&source["claimName"]));
        doc.field(2, "ReadOnly", source["readOnly"] == true);
    } else if let Some(source) = volume.get("downwardAPI") {
        doc.field(2, "Type", "DownwardAPI (a volume populated by information about the pod)");
        doc.line(2, "Items:");
        downward(doc, source);
    } else if let Some(source) = volume.get("projected") {
        doc.field(2, "Type", "Projected (a volume that contains injected data from multiple sources)");
        list(&source["sources"]).iter().for_each(|part| projected(doc, part));
    } else {
        doc.line(2, "<unknown>");
    }
}

fn downward(doc: &mut Doc, source: &Value) {
    for item in list(&source["items"]) {
        let from = text_of(&item["fieldRef"]["fieldPath"])
            .or_else(|| text_of(&item["resourceFieldRef"]["resource"]));
        doc.line(3, format!("{} -> {}", from.unwrap_or_default(), text(&item["path"])));
    }
}

fn projected(doc: &mut Doc, part: &Value) {
    if let Some(source) = part.get("secret") {
        doc.field(2, "SecretName", text(&source["name"]));
        doc.field(2, "SecretOptionalName", text_of(&source["optional"]).unwrap_or_else(|| "<nil>".into()));
    } else if part.get("downwardAPI").is_some() {
        doc.field(2, "DownwardAPI", true);
    } else if let Some(source) = part.get("configMap") {
        doc.field(2, "ConfigMapName", text(&source["name"]));
        doc.field(2, "Optional", is_optional(source));
    } else if let Some(source) = part.get("serviceAccountToken") {
        doc.field(2, "TokenExpirationSeconds", source["expirationSeconds"].as_i64().unwrap_or(3600));
    }
}

fn tolerations(doc: &mut Doc, title: &str, all: &Value) {
    let mut all: Vec<&Value> = list(all).iter().collect();
    all.sort_by_key(|t| text(&t["key"]).to_owned());
    let line = |toleration: &&Value| {
        let mut line = text(&toleration["key"]).to_owned();
        if let Some(value) = text_of(&toleration["value"]) {
            line.push_str(&format!("={value}"));
        }
        if let Some(effect) = text_of(&toleration["effect"]) {
            line.push_str(&format!(":{effect}"));
        }
        if toleration["operator"] == "Exists" && text(&toleration["value"]).is_empty() {
            line.push_str(if line.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
            line.push_str(&format!(" for {seconds}s"));
        }
        line
    };
    doc.several(title, &all.iter().map(line).collect::<Vec<_>>());
}

fn spread(doc: &mut Doc, all: &Value, space: &str) {
    let line = |c: &Value| {
        let mut line = format!(
            "{}:{} when max skew {} is exceeded",
            text(&c["topologyKey"]),
            text(&c["whenUnsatisfiable"]),
            c["maxSkew"].as_i64().unwrap_or(0)
        );
        if c["labelSelector"].is_object() {
            let holder = serde_json::json!({"spec": {"selector": c["labelSelector"]}});
            line.push_str(&format!(
                " for selector {}",
                crate::pods::selector_of(&holder).unwrap_or_default()
            ));
        }
        line
    };
    if !list(all).is_empty() {
        doc.several(
            &format!("{space}Topology Spread Constraints"),
            &list(all).iter().map(line).collect::<Vec<_>>(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn probes_are_one_line() {
        assert_eq!(
            probe(&json!({"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5})),
            "http-get http://:http/ delay=0s timeout=1s period=5s #success=1 #failure=3"
        );
        assert_eq!(
            probe(&json!({"exec": {"command": ["cat", "/x"]}, "initialDelaySeconds": 2})),
            "exec [cat /x] delay=2s timeout=1s period=10s #success=1 #failure=3"
        );
    }

    #[test]
    fn a_template_has_its_layout() {
        let text = template(
            &json!({"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        );
        assert_eq!(
            text,
            "Pod Template:\n  Labels:\tapp=w\n  Containers:\n   c:\n    Image:\ti\n    Port:\t<none>\n    Host Port:\t<none>\n    Environment:\t<none>\n    Mounts:\t<none>\n  Volumes:\t<none>\n  Node-Selectors:\t<none>\n  Tolerations:\t<none>\n"
        );
    }
}
