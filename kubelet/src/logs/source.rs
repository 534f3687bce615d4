//! Which container's log is meant, and what to say when there is none.

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// Why there is no log to read; the text is what `kubectl logs` prints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLog {
    /// There is no container that ended before the present one.
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious {
        /// The container's name.
        container: String,
        /// The pod's name.
        pod: String,
    },
    /// The container has not started yet.
    #[error("container {container:?} in pod {pod:?} is waiting to start: {why}")]
    Waiting {
        /// The container's name.
        container: String,
        /// The pod's name.
        pod: String,
        /// The reason in its status.
        why: String,
    },
}

/// The container whose log is wanted, of all those that had this name in this pod.
pub fn choose<'a>(
    containers: &'a [cri::Container],
    pod: &Pod,
    container: &str,
    previous: bool,
) -> Result<&'a cri::Container, NoLog> {
    let mut started: Vec<_> =
        containers.iter().filter(|c| c.state() != cri::ContainerState::ContainerCreated).collect();
    started.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.metadata.as_ref().map_or(0, |m| m.attempt))));
    let status = status(pod, container);
    let waiting = status.and_then(|s| s.state.as_ref()?.waiting.as_ref()).and_then(|w| w.reason.as_deref());
    let newest_ended = started.first().is_some_and(|c| c.state() == cri::ContainerState::ContainerExited);
    // A container that waits for its restart is the previous one already.
    let skipped = usize::from(previous && !(newest_ended && waiting.is_some()));
    let name = || (container.to_owned(), pod.metadata.name.clone().unwrap_or_default());
    match started.get(skipped) {
        Some(found) => Ok(found),
        None if previous => {
            let (container, pod) = name();
            Err(NoLog::NoPrevious { container, pod })
        }
        None => {
            let (container, pod_name) = name();
            Err(NoLog::Waiting { container, pod: pod_name, why: why(waiting, pod) })
        }
    }
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == container)
}

fn why(waiting: Option<&str>, pod: &Pod) -> String {
    let initialising =
        pod.spec.as_ref().is_some_and(|s| s.init_containers.as_ref().is_some_and(|i| !i.is_empty()));
    match waiting {
        Some("ErrImagePull") => "image can't be pulled".to_owned(),
        Some("ImagePullBackOff") => "trying and failing to pull image".to_owned(),
        Some(reason) => reason.to_owned(),
        None if initialising => "PodInitializing".to_owned(),
        None => "ContainerCreating".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::ContainerState::{
        ContainerCreated as Created, ContainerExited as Exited, ContainerRunning as Running,
    };

    #[track_caller]
    fn check(
        states: &[cri::ContainerState],
        waiting: Option<&str>,
        previous: bool,
        expected: Result<i64, &str>,
    ) {
        let containers: Vec<_> = states
            .iter()
            .enumerate()
            .map(|(at, state)| cri::Container {
                created_at: at as i64,
                state: *state as i32,
                ..Default::default()
            })
            .collect();
        let state =
            waiting.map(|reason| serde_json::json!({"waiting": {"reason": reason}})).unwrap_or_default();
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p"},
            "status": {"containerStatuses": [
                {"name": "c", "state": state, "image": "", "imageID": "", "ready": false, "restartCount": 0}]},
        }))
        .unwrap();
        let found = choose(&containers, &pod, "c", previous).map(|c| c.created_at).map_err(|e| e.to_string());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn the_newest_container_that_has_started_is_read() {
        check(&[Running], None, false, Ok(0));
        check(&[Exited, Running], None, false, Ok(1));
        check(&[Exited, Created], Some("CrashLoopBackOff"), false, Ok(0));
        check(&[Exited, Exited], None, false, Ok(1));
    }

    #[test]
    fn the_previous_one_ended_before_it() {
        check(&[Exited, Running], None, true, Ok(0));
        check(&[Exited, Exited], None, true, Ok(0));
        check(&[Exited, Exited], Some("CrashLoopBackOff"), true, Ok(1));
        check(&[Exited], Some("CrashLoopBackOff"), true, Ok(0));
        check(&[Running], None, true, Err("previous terminated container \"c\" in pod \"p\" not found"));
    }

    #[test]
    fn a_container_that_has_not_started_says_why() {
        let text = |why: &str| format!("container \"c\" in pod \"p\" is waiting to start: {why}");
        check(&[], None, false, Err(&text("ContainerCreating")));
        check(&[Created], None, false, Err(&text("ContainerCreating")));
        check(&[], Some("CreateContainerConfigError"), false, Err(&text("CreateContainerConfigError")));
        check(&[], Some("ImagePullBackOff"), false, Err(&text("trying and failing to pull image")));
    }
}
