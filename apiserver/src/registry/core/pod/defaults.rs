//! What a pod's client may leave out.

use api::openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe,
    ResourceRequirements, Volume,
};

use crate::registry::fields::{canonicalize, canonicalize_one};

/// Fills in the spec of a pod or of a pod template.
pub fn template(spec: &mut PodSpec) {
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".into());
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".into());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.security_context.get_or_insert_default();
    same_service_account(spec);
    let host_network = spec.host_network == Some(true);
    spec.volumes.iter_mut().flatten().for_each(volume);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        default_container(container, host_network);
    }
    canonicalize(&mut spec.overhead);
    spec.resources.iter_mut().for_each(resources);
}

/// Fills in what pods have beyond their templates.
pub fn pod(spec: &mut PodSpec) {
    template(spec);
    spec.enable_service_links.get_or_insert(true);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        requests_from_limits(container.resources.get_or_insert_default());
    }
    spec.resources.iter_mut().for_each(requests_from_limits);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both say the same.
fn same_service_account(spec: &mut PodSpec) {
    let name = spec.service_account_name.as_ref().filter(|name| !name.is_empty());
    let name = name.or(spec.service_account.as_ref()).cloned();
    spec.service_account_name.clone_from(&name);
    spec.service_account = name;
}

fn requests_from_limits(resources: &mut ResourceRequirements) {
    let Some(limits) = &resources.limits else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

fn resources(resources: &mut ResourceRequirements) {
    canonicalize(&mut resources.limits);
    canonicalize(&mut resources.requests);
}

fn default_container(container: &mut Container, host_network: bool) {
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
    container.termination_message_policy.get_or_insert_with(|| "File".into());
    let image = container.image.as_deref().unwrap_or_default();
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    container.image_pull_policy.get_or_insert_with(|| policy.into());
    resources(container.resources.get_or_insert_default());
    container.ports.iter_mut().flatten().for_each(|port| default_port(port, host_network));
    container.env.iter_mut().flatten().for_each(env);
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(probe);
    container.lifecycle.iter_mut().for_each(lifecycle);
}

/// Whether an image reference names the tag `latest`, or neither tag nor digest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn default_port(port: &mut ContainerPort, host_network: bool) {
    port.protocol.get_or_insert_with(|| "TCP".into());
    if host_network && port.host_port.unwrap_or(0) == 0 {
        port.host_port = Some(port.container_port);
    }
}

fn env(env: &mut EnvVar) {
    if let Some(source) = &mut env.value_from {
        if let Some(field) = &mut source.field_ref {
            field.api_version.get_or_insert_with(|| "v1".into());
        }
        if let Some(resource) = &mut source.resource_field_ref {
            canonicalize_one(
                resource.divisor.get_or_insert_with(|| {
                    api::openapi::apimachinery::pkg::api::resource::Quantity("0".into())
                }),
            );
        }
    }
}

fn probe(probe: &mut Probe) {
    let positive = |value: &mut Option<i32>, default| {
        if value.unwrap_or(0) == 0 {
            *value = Some(default);
        }
    };
    positive(&mut probe.timeout_seconds, 1);
    positive(&mut probe.period_seconds, 10);
    positive(&mut probe.success_threshold, 1);
    positive(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(http_get);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn http_get(action: &mut HTTPGetAction) {
    action.path.get_or_insert_with(|| "/".into());
    action.scheme.get_or_insert_with(|| "HTTP".into());
}

fn lifecycle(lifecycle: &mut Lifecycle) {
    let handlers = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
    let default = |handler: &mut LifecycleHandler| handler.http_get.iter_mut().for_each(http_get);
    handlers.into_iter().flatten().for_each(default);
}

/// 0644, the mode of projected files.
const MODE: i32 = 0o644;

fn volume(volume: &mut Volume) {
    if !super::volume::has_source(volume) {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(MODE);
        for item in source.items.iter_mut().flatten() {
            item.field_ref.iter_mut().for_each(|f| _ = f.api_version.get_or_insert_with(|| "v1".into()));
        }
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(MODE);
        for projection in source.sources.iter_mut().flatten() {
            if let Some(token) = &mut projection.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            for item in projection.downward_api.iter_mut().flat_map(|d| d.items.iter_mut().flatten()) {
                item.field_ref.iter_mut().for_each(|f| _ = f.api_version.get_or_insert_with(|| "v1".into()));
            }
        }
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(limit) = volume.empty_dir.as_mut().and_then(|source| source.size_limit.as_mut()) {
        canonicalize_one(limit);
    }
}

#[cfg(test)]
mod tests {
    use super::is_latest;

    #[test]
    fn only_an_image_without_tag_and_digest_or_with_latest_is_latest() {
        for image in ["busybox", "busybox:latest", "host:5000/a/busybox"] {
            assert!(is_latest(image), "{image}");
        }
        for image in ["busybox:1", "host:5000/busybox:v1", "busybox@sha256:ab", "busybox:latest@sha256:ab"] {
            assert!(!is_latest(image), "{image}");
        }
    }
}
