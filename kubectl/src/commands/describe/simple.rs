//! Services, namespaces, config maps, secrets, service accounts, endpoints.

use base64::Engine;
use serde_json::Value;

use super::doc::{Doc, joined, text_of};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn comma(values: &Value) -> String {
    let texts: Vec<&str> = list(values).iter().map(text).collect();
    if texts.is_empty() { "<none>".into() } else { texts.join(",") }
}

/// Describes a service with its endpoints.
pub fn service(doc: &mut Doc, object: &Value, slices: &[Value]) {
    let spec = &object["spec"];
    doc.heading(object);
    doc.field(0, "Selector", joined(&spec["selector"]));
    doc.field(0, "Type", text(&spec["type"]));
    doc.optional(0, "IP Family Policy", &spec["ipFamilyPolicy"]);
    doc.field(0, "IP Families", comma(&spec["ipFamilies"]));
    doc.field(0, "IP", text(&spec["clusterIP"]));
    doc.field(0, "IPs", comma(&spec["clusterIPs"]));
    if !list(&spec["externalIPs"]).is_empty() {
        doc.field(0, "External IPs", comma(&spec["externalIPs"]));
    }
    doc.optional(0, "Desired LoadBalancer IP", &spec["loadBalancerIP"]);
    doc.optional(0, "External Name", &spec["externalName"]);
    let ingress: Vec<String> = list(&object["status"]["loadBalancer"]["ingress"])
        .iter()
        .filter_map(|i| text_of(&i["ip"]).or_else(|| text_of(&i["hostname"])))
        .collect();
    if !ingress.is_empty() {
        doc.field(0, "LoadBalancer Ingress", ingress.join(", "));
    }
    for port in list(&spec["ports"]) {
        let name = text_of(&port["name"]).unwrap_or_else(|| "<unset>".into());
        let protocol = text(&port["protocol"]);
        doc.line(0, format!("Port:\t{name}\t{}/{protocol}", text_of(&port["port"]).unwrap_or_default()));
        doc.field(
            0,
            "TargetPort",
            format!("{}/{protocol}", text_of(&port["targetPort"]).unwrap_or_default()),
        );
        if let Some(number) = port["nodePort"].as_i64().filter(|n| *n != 0) {
            doc.line(0, format!("NodePort:\t{name}\t{number}/{protocol}"));
        }
        doc.field(0, "Endpoints", endpoints_of(slices, text(&port["name"])));
    }
    doc.field(0, "Session Affinity", text(&spec["sessionAffinity"]));
    doc.optional(0, "External Traffic Policy", &spec["externalTrafficPolicy"]);
    doc.optional(0, "Internal Traffic Policy", &spec["internalTrafficPolicy"]);
    if let Some(port) = spec["healthCheckNodePort"].as_i64().filter(|p| *p != 0) {
        doc.field(0, "HealthCheck NodePort", port);
    }
    if !list(&spec["loadBalancerSourceRanges"]).is_empty() {
        doc.field(0, "LoadBalancer Source Ranges", comma(&spec["loadBalancerSourceRanges"]));
    }
}

/// The ready addresses behind a port, three of them and how many more.
fn endpoints_of(slices: &[Value], port: &str) -> String {
    let mut found = Vec::new();
    for slice in slices {
        let ports = list(&slice["ports"]).iter().filter(|p| p["name"].as_str().unwrap_or_default() == port);
        for number in ports.filter_map(|p| p["port"].as_i64()) {
            let ready = list(&slice["endpoints"]).iter().filter(|e| e["conditions"]["ready"] != false);
            for address in ready.flat_map(|e| list(&e["addresses"])).map(text) {
                found.push(match address.contains(':') {
                    true => format!("[{address}]:{number}"),
                    false => format!("{address}:{number}"),
                });
            }
        }
    }
    match found.len() {
        0 => "<none>".into(),
        1..=3 => found.join(","),
        n => format!("{} + {} more...", found[..3].join(","), n - 3),
    }
}

/// Describes a namespace with its quotas; `None` where the server has no such kind.
pub fn namespace(doc: &mut Doc, object: &Value, quotas: Option<&[Value]>, limits: Option<&[Value]>) {
    doc.heading(object);
    doc.field(0, "Status", text(&object["status"]["phase"]));
    let conditions = list(&object["status"]["conditions"]);
    if !conditions.is_empty() {
        doc.line(0, "Conditions:");
        doc.line(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
        doc.line(1, "----\t------\t------------------\t------\t-------");
        for c in conditions {
            doc.line(
                1,
                format!(
                    "{}\t{}\t{}\t{}\t{}",
                    text(&c["type"]),
                    text(&c["status"]),
                    crate::age::long(&c["lastTransitionTime"]),
                    text(&c["reason"]),
                    text(&c["message"])
                ),
            );
        }
    }
    match quotas {
        None => {}
        Some([]) => doc.line(0, "\nNo resource quota."),
        Some(quotas) => resource_quotas(doc, quotas),
    }
    match limits {
        None => {}
        Some([]) => doc.line(0, "\nNo LimitRange resource."),
        Some(limits) => limit_ranges(doc, limits),
    }
}

fn resource_quotas(doc: &mut Doc, quotas: &[Value]) {
    doc.line(0, "\nResource Quotas");
    for quota in quotas {
        doc.line(1, format!("Name:\t{}", text(&quota["metadata"]["name"])));
        doc.line(1, "Resource\tUsed\tHard");
        doc.line(1, "--------\t---\t---");
        for (name, hard) in sorted(&quota["status"]["hard"]) {
            let used = text_of(&quota["status"]["used"][name]).unwrap_or_else(|| "0".into());
            doc.line(1, format!("{name}\t{used}\t{}", text_of(hard).unwrap_or_default()));
        }
    }
}

fn limit_ranges(doc: &mut Doc, ranges: &[Value]) {
    doc.line(0, "\nResource Limits");
    doc.line(1, "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
    doc.line(1, "----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
    for item in ranges.iter().flat_map(|r| list(&r["spec"]["limits"])) {
        let fields = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
        let mut names: Vec<&String> =
            fields.iter().flat_map(|f| sorted(&item[*f])).map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        for name in names {
            let cells: Vec<String> =
                fields.iter().map(|f| text_of(&item[*f][name]).unwrap_or_else(|| "-".into())).collect();
            doc.line(1, format!("{}\t{name}\t{}", text(&item["type"]), cells.join("\t")));
        }
    }
}

fn sorted(map: &Value) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.as_object().into_iter().flatten().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

fn decoded_length(value: &Value) -> usize {
    base64::engine::general_purpose::STANDARD.decode(text(value)).map_or(0, |b| b.len())
}

/// Describes a config map.
pub fn config_map(doc: &mut Doc, object: &Value) {
    doc.heading(object);
    doc.line(0, "\nData\n====");
    for (key, value) in sorted(&object["data"]) {
        doc.line(0, format!("{key}:\n----\n{}\n", text(value)));
    }
    doc.line(0, "\nBinaryData\n====");
    for (key, value) in sorted(&object["binaryData"]) {
        doc.line(0, format!("{key}: {} bytes", decoded_length(value)));
    }
    doc.line(0, "");
}

/// Describes a secret: how long its values are, and not what they are.
pub fn secret(doc: &mut Doc, object: &Value) {
    doc.heading(object);
    doc.line(0, format!("\nType:\t{}", text(&object["type"])));
    doc.line(0, "\nData\n====");
    for (key, value) in sorted(&object["data"]) {
        let token = object["type"] == "kubernetes.io/service-account-token" && key == "token";
        match base64::engine::general_purpose::STANDARD.decode(text(value)) {
            Ok(bytes) if token => doc.field(0, key, String::from_utf8_lossy(&bytes)),
            _ => doc.field(0, key, format!("{} bytes", decoded_length(value))),
        }
    }
}

/// Describes a service account.
pub fn service_account(doc: &mut Doc, object: &Value) {
    doc.heading(object);
    let names = |field: &str| -> Vec<String> {
        list(&object[field]).iter().map(|s| text(&s["name"]).to_owned()).collect()
    };
    doc.several("Image pull secrets", &names("imagePullSecrets"));
    doc.several("Mountable secrets", &names("secrets"));
    doc.several("Tokens", &[]);
}

/// Describes endpoints.
pub fn endpoints(doc: &mut Doc, object: &Value) {
    doc.heading(object);
    doc.line(0, "Subsets:");
    for subset in list(&object["subsets"]) {
        for (title, field) in [("Addresses", "addresses"), ("NotReadyAddresses", "notReadyAddresses")] {
            let ips: Vec<&str> = list(&subset[field]).iter().map(|a| text(&a["ip"])).collect();
            doc.field(1, title, if ips.is_empty() { "<none>".into() } else { ips.join(",") });
        }
        if !list(&subset["ports"]).is_empty() {
            doc.line(1, "Ports:");
            doc.line(2, "Name\tPort\tProtocol");
            doc.line(2, "----\t----\t--------");
            for port in list(&subset["ports"]) {
                let name = text_of(&port["name"]).unwrap_or_else(|| "<unset>".into());
                doc.line(
                    2,
                    format!("{name}\t{}\t{}", port["port"].as_i64().unwrap_or(0), text(&port["protocol"])),
                );
            }
        }
        doc.line(0, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn three_endpoints_are_named() {
        let slice = |n: i64| {
            json!({"ports": [{"name": "", "port": 80}], "endpoints":
            (0..n).map(|i| json!({"addresses": [format!("10.0.0.{i}")], "conditions": {"ready": i != 1}})).collect::<Vec<_>>()})
        };
        assert_eq!(endpoints_of(&[slice(2)], ""), "10.0.0.0:80");
        assert_eq!(endpoints_of(&[slice(6)], ""), "10.0.0.0:80,10.0.0.2:80,10.0.0.3:80 + 2 more...");
        assert_eq!(endpoints_of(&[], ""), "<none>");
    }
}
