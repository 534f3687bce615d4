//! Which container of a pod is meant.

use api::StatusError;
use api::openapi::api::core::v1::{Pod, PodSpec};

/// A container of a pod, as a client needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The container's name.
    pub container: String,
    /// Whether its process has a terminal.
    pub tty: bool,
}

/// The container that a client named, or the only one.
pub(super) fn container(pod: &Pod, named: &str) -> Result<Target, StatusError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let all = pod.spec.as_ref().map(containers).unwrap_or_default();
    let regular = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
    let wanted = match (named, regular) {
        ("", [only]) => only.name.as_str(),
        ("", []) => {
            let message = format!("a container name must be specified for pod {name}");
            return Err(StatusError::bad_request(message));
        }
        ("", _) => {
            let names: Vec<_> = all.iter().map(|target| target.container.as_str()).collect();
            let message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                names.join(" ")
            );
            return Err(StatusError::bad_request(message));
        }
        (named, _) => named,
    };
    let found = all.into_iter().find(|target| target.container == wanted);
    found.ok_or_else(|| StatusError::bad_request(format!("container {wanted} is not valid for pod {name}")))
}

/// Every container, in the order in which upstream names them.
fn containers(spec: &PodSpec) -> Vec<Target> {
    let init = spec.init_containers.iter().flatten().map(|c| (&c.name, c.tty));
    let regular = spec.containers.iter().map(|c| (&c.name, c.tty));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| (&c.name, c.tty));
    let target =
        |(name, tty): (&String, Option<bool>)| Target { container: name.clone(), tty: tty == Some(true) };
    init.chain(regular).chain(ephemeral).map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(spec: serde_json::Value, named: &str, expected: Result<&str, &str>) {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let found = container(&pod, named).map(|t| t.container).map_err(|e| e.to_string());
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn the_only_container_needs_no_name_and_others_do() {
        let one = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]});
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
        check(one.clone(), "", Ok("a"));
        check(one.clone(), "i", Ok("i"));
        check(one, "x", Err("container x is not valid for pod p"));
        check(two, "", Err("a container name must be specified for pod p, choose one of: [i a b]"));
        check(json!({"containers": []}), "", Err("a container name must be specified for pod p"));
    }
}
