//! What is wrong with a container.

use std::collections::HashSet;

use api::openapi::api::core::v1::{Container, ContainerPort, VolumeMount};
use api::validation::FieldError;

use super::{env, probe, resources, security};
use crate::registry::fields::{
    Errors, duplicates, local_path, names, one_of, optional_one_of, port, port_name, protocol,
    required_label, set,
};

/// Which of a pod's lists a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `containers`.
    Main,
    /// `initContainers`.
    Init,
}

const PULL: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE: &[&str] = &["FallbackToLogsOnError", "File"];

/// Checks one container; `volumes` are the names that it may mount.
pub fn container(
    errors: &mut Errors,
    field: &str,
    container: &Container,
    place: Place,
    volumes: &HashSet<&str>,
) {
    let at = |name: &str| format!("{field}.{name}");
    required_label(errors, &at("name"), &container.name);
    image(errors, &at("image"), container.image.as_deref());
    one_of(errors, &at("imagePullPolicy"), container.image_pull_policy.as_deref(), PULL);
    one_of(errors, &at("terminationMessagePolicy"), container.termination_message_policy.as_deref(), MESSAGE);
    restart_policy(errors, field, container, place);
    ports(errors, &at("ports"), container.ports.as_deref().unwrap_or_default());
    env::variables(errors, &at("env"), container.env.as_deref().unwrap_or_default());
    env::sources(errors, &at("envFrom"), container.env_from.as_deref().unwrap_or_default());
    mounts(errors, field, container, volumes);
    devices(errors, &at("volumeDevices"), container, volumes);
    if let Some(all) = &container.resources {
        resources::requirements(errors, &at("resources"), all);
    }
    for (i, policy) in container.resize_policy.iter().flatten().enumerate() {
        let field = format!("{field}.resizePolicy[{i}]");
        let policies = &["NotRequired", "RestartContainer"];
        one_of(errors, &format!("{field}.resourceName"), Some(&policy.resource_name), &["cpu", "memory"]);
        one_of(errors, &format!("{field}.restartPolicy"), Some(&policy.restart_policy), policies);
    }
    if let Some(context) = &container.security_context {
        security::container(errors, &at("securityContext"), context);
    }
    let sidecar = place == Place::Init && container.restart_policy.as_deref() == Some("Always");
    if place == Place::Main || sidecar {
        probe::probes_and_hooks(errors, field, container);
    } else {
        no_probes_or_hooks(errors, field, container);
    }
}

/// Checks an image reference as far as the API does: the runtime knows the rest.
pub fn image(errors: &mut Errors, field: &str, image: Option<&str>) {
    let image = image.unwrap_or_default();
    if image.trim().is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if image.trim() != image {
        errors.push(FieldError::invalid(field, image, "must not have leading or trailing whitespace"));
    }
}

fn restart_policy(errors: &mut Errors, field: &str, container: &Container, place: Place) {
    let field = format!("{field}.restartPolicy");
    match (place, container.restart_policy.as_deref()) {
        (Place::Main, Some(_)) => {
            errors.push(FieldError::forbidden(field, "may not be set for non-init containers"));
        }
        (Place::Init, policy) => optional_one_of(errors, &field, policy, &["Always"]),
        (Place::Main, None) => {}
    }
}

fn no_probes_or_hooks(errors: &mut Errors, field: &str, container: &Container) {
    let present = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (name, _) in present.iter().filter(|(_, present)| *present) {
        let detail = "may not be set for init containers without restartPolicy=Always";
        errors.push(FieldError::forbidden(format!("{field}.{name}"), detail));
    }
}

fn ports(errors: &mut Errors, field: &str, ports: &[ContainerPort]) {
    for (i, one) in ports.iter().enumerate() {
        let at = |name: &str| format!("{field}[{i}].{name}");
        if let Some(name) = set(one.name.as_deref()) {
            names(errors, &at("name"), name, port_name(name));
        }
        if one.container_port == 0 {
            errors.push(FieldError::required(at("containerPort"), ""));
        } else {
            port(errors, &at("containerPort"), one.container_port);
        }
        if let Some(host) = one.host_port.filter(|p| *p != 0) {
            port(errors, &at("hostPort"), host);
        }
        protocol(errors, &at("protocol"), one.protocol.as_deref());
        if let Some(address) = set(one.host_ip.as_deref()) {
            crate::registry::fields::ip(errors, &at("hostIP"), address);
        }
    }
    let named = ports.iter().enumerate();
    let named = named.filter_map(|(i, p)| Some((format!("{field}[{i}].name"), set(p.name.as_deref())?)));
    duplicates(errors, named);
}

/// Reports ports of the node that two of a pod's containers ask for.
pub fn ports_in_use(errors: &mut Errors, field: &str, containers: &[Container]) {
    let mut seen = HashSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let Some(host) = port.host_port.filter(|p| *p != 0) else { continue };
            let protocol = port.protocol.as_deref().unwrap_or_default();
            let key = format!("{protocol}/{}/{host}", port.host_ip.as_deref().unwrap_or_default());
            if !seen.insert(key.clone()) {
                errors.push(FieldError::duplicate(format!("{field}[{i}].ports[{j}].hostPort"), key));
            }
        }
    }
}

fn mounts(errors: &mut Errors, field: &str, container: &Container, volumes: &HashSet<&str>) {
    let privileged = container.security_context.as_ref().and_then(|c| c.privileged) == Some(true);
    let mut paths = HashSet::new();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let field = format!("{field}.volumeMounts[{i}]");
        if !mount.mount_path.is_empty() && !paths.insert(mount.mount_path.as_str()) {
            let field = format!("{field}.mountPath");
            errors.push(FieldError::invalid(field, mount.mount_path.as_str(), "must be unique"));
        }
        volume_mount(errors, &field, mount, volumes, privileged);
    }
}

fn volume_mount(
    errors: &mut Errors,
    field: &str,
    mount: &VolumeMount,
    volumes: &HashSet<&str>,
    privileged: bool,
) {
    let at = |name: &str| format!("{field}.{name}");
    if mount.name.is_empty() {
        errors.push(FieldError::required(at("name"), ""));
    } else if !volumes.contains(mount.name.as_str()) {
        errors.push(FieldError::not_found(at("name"), mount.name.as_str()));
    }
    if mount.mount_path.is_empty() {
        errors.push(FieldError::required(at("mountPath"), ""));
    }
    let (sub_path, expression) = (set(mount.sub_path.as_deref()), set(mount.sub_path_expr.as_deref()));
    if let Some(path) = sub_path {
        local_path(errors, &at("subPath"), path);
    }
    if let Some(path) = expression {
        if sub_path.is_some() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(at("subPathExpr"), path, detail));
        }
        local_path(errors, &at("subPathExpr"), path);
    }
    let propagation = mount.mount_propagation.as_deref();
    let modes = &["Bidirectional", "HostToContainer", "None"];
    optional_one_of(errors, &at("mountPropagation"), propagation, modes);
    if propagation == Some("Bidirectional") && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(at("mountPropagation"), detail));
    }
}

fn devices(errors: &mut Errors, field: &str, container: &Container, volumes: &HashSet<&str>) {
    for (i, device) in container.volume_devices.iter().flatten().enumerate() {
        let at = |name: &str| format!("{field}[{i}].{name}");
        if device.name.is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        } else if !volumes.contains(device.name.as_str()) {
            errors.push(FieldError::not_found(at("name"), device.name.as_str()));
        }
        if device.device_path.is_empty() {
            errors.push(FieldError::required(at("devicePath"), ""));
        }
    }
}
