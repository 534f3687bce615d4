//! A container's environment: values, references, services and the expansion of `$(VAR)`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::meta::MetaExt;
use api::quantity::Amount;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, Pod, ResourceFieldSelector, Secret, Service,
};

use crate::resources::{all_containers, limit, request};

#[cfg(test)]
mod tests;

/// Why an environment could not be made; the message of `CreateContainerConfigError`.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum EnvError {
    /// The ConfigMap that a reference names is missing.
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    /// The Secret that a reference names is missing.
    #[error("secret {0:?} not found")]
    NoSecret(String),
    /// The object has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// The key.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// The object's name.
        name: String,
    },
    /// The path is none that can be asked for.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// The resource is none that can be asked for.
    #[error("unsupported container resource: {0}")]
    Resource(String),
    /// The container that a resource reference names is not in the pod.
    #[error("container {0} not found")]
    NoContainer(String),
    /// The object could not be read; to be tried again.
    #[error("{0}")]
    Fetch(String),
}

/// The objects of the pod's namespace that its containers refer to, as they were read.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// By name; absent ones are missing.
    pub config_maps: HashMap<String, Arc<ConfigMap>>,
    /// By name; absent ones are missing.
    pub secrets: HashMap<String, Arc<Secret>>,
}

/// The names of the ConfigMaps and Secrets that a container's environment refers to.
pub fn referenced(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    (maps, secrets)
}

/// What the node knows that a pod may ask for.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// What the node can allocate, by resource: the default for limits that are not set.
    pub allocatable: BTreeMap<String, Amount>,
}

/// Everything that an environment is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its container.
    pub container: &'a Container,
    /// What it refers to.
    pub references: &'a References,
    /// All Services that pods of its namespace may be told of.
    pub services: &'a [Arc<Service>],
    /// Addresses and sizes.
    pub facts: &'a Facts,
}

/// The environment in the order of its definition, later definitions of a name replacing earlier ones.
pub fn environment(input: Input<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Env::default();
    for from in input.container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(map) = &from.config_map_ref {
            match input.references.config_maps.get(&map.name) {
                Some(object) => {
                    for (key, value) in object.data.iter().flatten() {
                        env.set_valid(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if map.optional == Some(true) => {}
                None => return Err(EnvError::NoConfigMap(map.name.clone())),
            }
        }
        if let Some(secret) = &from.secret_ref {
            match input.references.secrets.get(&secret.name) {
                Some(object) => {
                    for (key, value) in object.data.iter().flatten() {
                        env.set_valid(format!("{prefix}{key}"), text(&value.0));
                    }
                }
                None if secret.optional == Some(true) => {}
                None => return Err(EnvError::NoSecret(secret.name.clone())),
            }
        }
    }
    let services = service_variables(input.pod, input.services);
    for var in input.container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, |name| {
                env.get(name).or_else(|| services.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()))
            })),
            (_, Some(source)) => from_source(input, source)?,
            (_, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.set(var.name.clone(), value);
        }
    }
    let taken: Vec<_> = services.into_iter().filter(|(name, _)| env.get(name).is_none()).collect();
    env.0.extend(taken);
    Ok(env.0)
}

#[derive(Default)]
struct Env(Vec<(String, String)>);

impl Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, present)) => *present = value,
            None => self.0.push((name, value)),
        }
    }

    /// Keys that are no names of variables are passed over.
    fn set_valid(&mut self, name: String, value: String) {
        if !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
            self.set(name, value);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The value that a source gives; none for an optional one that is missing.
fn from_source(input: Input<'_>, source: &EnvVarSource) -> Result<Option<String>, EnvError> {
    if let Some(field) = &source.field_ref {
        return pod_field(input.pod, input.facts, &field.field_path).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_field(input.pod, input.container, input.facts, resource).map(Some);
    }
    let no_key = |kind, name: &str, key: &str| EnvError::NoKey {
        key: key.to_owned(),
        kind,
        namespace: input.pod.namespace().to_owned(),
        name: name.to_owned(),
    };
    if let Some(select) = &source.config_map_key_ref {
        let optional = select.optional == Some(true);
        let Some(object) = input.references.config_maps.get(&select.name) else {
            return if optional { Ok(None) } else { Err(EnvError::NoConfigMap(select.name.clone())) };
        };
        return match object.data.as_ref().and_then(|d| d.get(&select.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(no_key("ConfigMap", &select.name, &select.key)),
        };
    }
    if let Some(select) = &source.secret_key_ref {
        let optional = select.optional == Some(true);
        let Some(object) = input.references.secrets.get(&select.name) else {
            return if optional { Ok(None) } else { Err(EnvError::NoSecret(select.name.clone())) };
        };
        return match object.data.as_ref().and_then(|d| d.get(&select.key)) {
            Some(value) => Ok(Some(text(&value.0))),
            None if optional => Ok(None),
            None => Err(no_key("Secret", &select.name, &select.key)),
        };
    }
    Ok(Some(String::new()))
}

fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")
}

/// All labels or annotations as a file shows them: `key="value"` a line, with Go's quoting.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
    lines.join("\n")
}

/// A field of the pod by its path, as the downward API offers it.
pub fn pod_field(pod: &Pod, facts: &Facts, path: &str) -> Result<String, EnvError> {
    let meta = &pod.metadata;
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(pod.label(key).unwrap_or_default().to_owned());
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(pod.annotation(key).unwrap_or_default().to_owned());
    }
    let spec = pod.spec.as_ref();
    let of_spec = |field: Option<&String>| field.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => of_spec(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => of_spec(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        other => return Err(EnvError::Field(other.to_owned())),
    })
}

/// A container's request or limit in units of the divisor, rounded up.
pub fn resource_field(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    field: &ResourceFieldSelector,
) -> Result<String, EnvError> {
    let named = field.container_name.as_deref().filter(|n| !n.is_empty());
    let container = match (named, pod.spec.as_ref()) {
        (Some(name), Some(spec)) => all_containers(spec)
            .find(|c| c.name == name)
            .ok_or_else(|| EnvError::NoContainer(name.to_owned()))?,
        (Some(_) | None, _) => container,
    };
    let unsupported = || EnvError::Resource(field.resource.clone());
    let (kind, resource) = field.resource.split_once('.').ok_or_else(unsupported)?;
    let amount = match kind {
        "limits" => limit(container, resource)
            .filter(|a| *a > Amount::ZERO)
            .or_else(|| facts.allocatable.get(resource).copied()),
        "requests" => request(container, resource),
        _ => return Err(unsupported()),
    };
    let divisor = field.divisor.as_ref().and_then(|d| Amount::try_from(d).ok()).filter(|d| *d > Amount::ZERO);
    let divisor = divisor.unwrap_or(Amount::units(1)).to_milli().max(1);
    let milli = amount.unwrap_or_default().to_milli();
    Ok((milli / divisor + i64::from(milli % divisor != 0)).to_string())
}

/// Expands `$(NAME)`; `$$` is a dollar sign, and what is not defined stays as it is.
pub fn expand<'a>(text: &str, get: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            result.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match get(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = tail;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

/// The variables that tell of the Services of the pod's namespace and of the API itself.
fn service_variables(pod: &Pod, services: &[Arc<Service>]) -> Vec<(String, String)> {
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let master = |s: &Service| s.namespace() == "default" && s.name() == "kubernetes";
    let told = |s: &&Arc<Service>| master(s) || (links && s.namespace() == pod.namespace());
    // A Service of the namespace hides the one of the API that has the same name.
    let mut chosen: Vec<_> = services.iter().filter(told).collect();
    chosen.sort_by_key(|s| (s.namespace() == pod.namespace(), s.name().to_owned()));
    let mut env = Env::default();
    for service in chosen {
        one_service(&mut env, service);
    }
    env.0
}

fn one_service(env: &mut Env, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let ip = match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => return,
        Some(ip) => ip,
    };
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let name = upper(service.name());
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    env.set(format!("{name}_SERVICE_HOST"), ip.to_owned());
    env.set(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            env.set(format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string());
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            env.set(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.set(format!("{prefix}_PROTO"), protocol.to_lowercase());
        env.set(format!("{prefix}_PORT"), port.port.to_string());
        env.set(format!("{prefix}_ADDR"), ip.to_owned());
        env.set(prefix, url);
    }
}
