//! SchedulingGates: a pod is not decided about until somebody has removed its gates (KEP-3521).

use api::openapi::api::core::v1::Pod;

/// Upstream's name.
pub const NAME: &str = "SchedulingGates";

/// What users are told.
pub const MESSAGE: &str = "Scheduling is blocked due to non-empty scheduling gates";

/// Whether the pod waits for its gates to be removed.
pub fn gated(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
    gates.is_some_and(|gates| !gates.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::json;

    #[test]
    fn a_single_gate_is_enough() {
        assert!(!gated(&pod("p").build()));
        assert!(!gated(&pod("p").set("schedulingGates", json!([])).build()));
        assert!(gated(&pod("p").set("schedulingGates", json!([{"name": "example.com/quota"}])).build()));
    }
}
