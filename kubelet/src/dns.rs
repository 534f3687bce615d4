//! Name resolution inside pods: resolv.conf by DNS policy, and the hosts file.

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{HostAlias, PodSpec};

/// What a resolv.conf says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolv {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options, such as `ndots:5`.
    pub options: Vec<String>,
}

impl Resolv {
    /// Reads the lines that matter; what is no such line is passed over.
    pub fn parse(text: &str) -> Self {
        let mut resolv = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let rest = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect::<Vec<_>>();
            match words.next() {
                Some("nameserver") => resolv.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => resolv.searches = rest(words),
                Some("options") => resolv.options = rest(words),
                Some(_) | None => {}
            }
        }
        resolv
    }
}

/// The cluster's name service, as the kubelet's flags say.
#[derive(Clone, Debug, Default)]
pub struct ClusterDns {
    /// `--cluster-dns`.
    pub servers: Vec<String>,
    /// `--cluster-domain`.
    pub domain: String,
}

/// A pod's resolv.conf by its `dnsPolicy` and `dnsConfig`. `host` is the node's own, if it has one.
pub fn config(
    spec: &PodSpec,
    namespace: &str,
    cluster: &ClusterDns,
    host: Option<&Resolv>,
) -> cri::DnsConfig {
    let host_network = spec.host_network == Some(true);
    let mut resolv = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => Resolv::default(),
        "ClusterFirstWithHostNet" => cluster_first(namespace, cluster, host),
        "ClusterFirst" if !host_network => cluster_first(namespace, cluster, host),
        _ => node_default(host),
    };
    if let Some(own) = &spec.dns_config {
        resolv.servers.extend(own.nameservers.iter().flatten().cloned());
        resolv.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            resolv.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            resolv.options.push(match option.value.as_deref().filter(|v| !v.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    cri::DnsConfig {
        servers: unique(resolv.servers),
        searches: unique(resolv.searches),
        options: resolv.options,
    }
}

fn unique(list: Vec<String>) -> Vec<String> {
    let mut kept = Vec::with_capacity(list.len());
    for item in list {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

fn node_default(host: Option<&Resolv>) -> Resolv {
    // A node without a resolver of its own gives its pods one that answers nothing.
    let nothing =
        || Resolv { servers: vec!["127.0.0.1".into()], searches: vec![".".into()], options: Vec::new() };
    host.cloned().unwrap_or_else(nothing)
}

fn cluster_first(namespace: &str, cluster: &ClusterDns, host: Option<&Resolv>) -> Resolv {
    if cluster.servers.is_empty() {
        return node_default(host);
    }
    let domain = cluster.domain.trim_matches('.');
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    }
    searches.extend(host.iter().flat_map(|h| h.searches.clone()).filter(|s| s != "."));
    Resolv { servers: cluster.servers.clone(), searches, options: vec!["ndots:5".into()] }
}

/// A pod's host name: of at most 63 bytes; the node's with the host's network.
pub fn hostname(spec: &PodSpec, pod_name: &str, node_name: &str) -> String {
    let given = spec.hostname_override.as_deref().or(spec.hostname.as_deref()).filter(|h| !h.is_empty());
    let name = match given {
        Some(name) => name,
        None if spec.host_network == Some(true) => node_name,
        None => pod_name,
    };
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// The name by which other pods find this one, if it has a subdomain.
pub fn fqdn(spec: &PodSpec, hostname: &str, namespace: &str, domain: &str) -> Option<String> {
    let subdomain = spec.subdomain.as_deref().filter(|s| !s.is_empty())?;
    Some(format!("{hostname}.{subdomain}.{namespace}.svc.{domain}"))
}

/// The hosts file of a pod with a network of its own.
pub fn hosts_file(ips: &[String], hostname: &str, fqdn: Option<&str>, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        match fqdn {
            Some(fqdn) => text.push_str(&format!("{ip}\t{fqdn}\t{hostname}\n")),
            None => text.push_str(&format!("{ip}\t{hostname}\n")),
        }
    }
    text.push_str(&alias_lines(aliases));
    text
}

/// The hosts file of a pod with the host's network: the node's own, and the pod's aliases.
pub fn host_network_hosts_file(node: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{node}{}", alias_lines(aliases))
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let line = |a: &HostAlias| {
        format!("{}\t{}\n", a.ip, a.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t"))
    };
    format!("\n# Entries added by HostAliases.\n{}", aliases.iter().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> (Vec<String>, Vec<String>, Vec<String>) {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let cluster = ClusterDns { servers: vec!["10.96.0.10".into()], domain: "cluster.local".into() };
        let host =
            Resolv::parse("nameserver 192.0.2.1 # ours\nsearch corp.example .\n; no\noptions rotate\n");
        let made = config(&spec, "default", &cluster, Some(&host));
        (made.servers, made.searches, made.options)
    }

    #[test]
    fn policies_choose_the_resolver() {
        let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let cluster = (
            text(&["10.96.0.10"]),
            text(&["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]),
            text(&["ndots:5"]),
        );
        let node = (text(&["192.0.2.1"]), text(&["corp.example", "."]), text(&["rotate"]));
        assert_eq!(of(json!({"containers": []})), cluster);
        assert_eq!(of(json!({"containers": [], "hostNetwork": true})), node);
        assert_eq!(of(json!({"containers": [], "dnsPolicy": "Default"})), node);
        let with_host =
            json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"});
        assert_eq!(of(with_host), cluster);
        let none = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.2.3.4"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(of(none), (text(&["1.2.3.4"]), vec![], text(&["ndots:2", "edns0"])));
        let over = json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}});
        assert_eq!(of(over).2, ["ndots:2"]);
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let alias = HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["a".into(), "b".into()]) };
        let text =
            hosts_file(&["10.0.0.1".into()], "web", Some("web.sub.default.svc.cluster.local"), &[alias]);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("\n10.0.0.1\tweb.sub.default.svc.cluster.local\tweb\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
    }

    #[test]
    fn host_names_are_short() {
        let spec = PodSpec::default();
        assert_eq!(hostname(&spec, &"a".repeat(80), "node").len(), 63);
        let on_host = PodSpec { host_network: Some(true), ..PodSpec::default() };
        assert_eq!(hostname(&on_host, "web", "node-1"), "node-1");
    }
}
