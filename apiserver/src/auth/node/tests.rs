use super::*;
use serde_json::json;

struct Fake;
impl OnNode for Fake {
    fn is_on(&self, _: &str, pod: &str, node: &str) -> bool {
        pod.starts_with(node)
    }
    fn refers(&self, node: &str, _: &str, reference: &Reference<'_>) -> bool {
        let (Reference::Secret(name)
        | Reference::ConfigMap(name)
        | Reference::ServiceAccount(name)
        | Reference::Claim(name)) = reference;
        name.starts_with(node)
    }
}

/// `verb group/Kind[/subresource] namespace/name [field selector]`
#[track_caller]
fn check(request: &str, wanted: bool) {
    let words: Vec<_> = request.split(' ').collect();
    let path: Vec<_> = words[1].split('/').collect();
    let kind = Kind::find(path[0], path[1]).expect("a kind");
    let (namespace, name) = words[2].split_once('/').expect("namespace/name");
    let subresource = path.get(2).map(|s| kind.subresource(s).expect("a subresource"));
    let field_selector = words.get(3).copied().unwrap_or_default();
    let resource = Resource::of(kind, namespace, name, subresource, field_selector);
    let rules = crate::auth::rbac::bootstrap::node_rules();
    let ask = Ask { node: "n1", rules: &rules, pods: &Fake };
    assert_eq!(authorize(&ask, &Request::Resource(words[0], resource)).is_ok(), wanted, "{request}");
}

#[test]
fn a_kubelet_may_do_what_concerns_its_node() {
    for allowed in [
        "get /Node /n1",
        "list /Node / metadata.name=n1",
        "create /Node /",
        "patch /Node/status /n1",
        "update /Node /n1",
        "create coordination.k8s.io/Lease kube-node-lease/",
        "update coordination.k8s.io/Lease kube-node-lease/n1",
        "list /Pod / spec.nodeName=n1",
        "watch /Pod / spec.nodeName=n1,status.phase!=Failed",
        "get /Pod d/n1-pod",
        "patch /Pod/status d/n1-pod",
        "delete /Pod d/n1-pod",
        "create /Event d/",
        "patch events.k8s.io/Event d/e",
        "list /Service /",
        "get /Secret d/n1-secret",
        "get /ServiceAccount d/n1-account",
        "watch /ConfigMap d/ metadata.name=n1-config",
    ] {
        check(allowed, true);
    }
}

#[test]
fn a_kubelet_may_not_touch_what_is_of_others() {
    for denied in [
        "update /Node /n2",
        "list /Node /",
        "get /Node /n2",
        "get /ServiceAccount d/other",
        "list /ServiceAccount d/",
        "patch /Node/status /n2",
        "delete /Node /n1",
        "create coordination.k8s.io/Lease default/",
        "update coordination.k8s.io/Lease kube-node-lease/n2",
        "list coordination.k8s.io/Lease kube-node-lease/",
        "list /Pod /",
        "list /Pod / spec.nodeName=n2",
        "list /Pod / spec.nodeName!=n1",
        "get /Pod d/n2-pod",
        "update /Pod d/n1-pod",
        "patch /Pod/status d/n2-pod",
        "delete /Pod d/n2-pod",
        "deletecollection /Pod d/",
        "create /Pod/binding d/n1-pod",
        "create /Pod/exec d/n1-pod",
        "list /Secret d/",
        "get /Secret d/n2-secret",
        "create /Secret d/",
        "watch /ConfigMap d/ metadata.name=n2-config",
        "update /Service d/s",
        "watch discovery.k8s.io/EndpointSlice /",
        "get apps/Deployment d/x",
        "list /Namespace /",
        "list /Event d/",
    ] {
        check(denied, false);
    }
}

#[test]
fn references_are_found_wherever_a_pod_has_them() {
    let pod = Object::new(json!({"spec": {
        "serviceAccountName": "sa",
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [{"secret": {"secretName": "s1"}}, {"projected": {"sources": [{"configMap": {"name": "c1"}}]}}, {"configMap": {"name": "c2"}}],
        "containers": [{"envFrom": [{"secretRef": {"name": "s2"}}]}],
        "initContainers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "c3"}}}]}],
    }}))
    .expect("a map");
    let found = |r: Reference<'_>| pod_refers(&pod, &r);
    assert!(["pull", "s1", "s2"].iter().all(|n| found(Reference::Secret(n))));
    assert!(["c1", "c2", "c3"].iter().all(|n| found(Reference::ConfigMap(n))));
    assert!(found(Reference::ServiceAccount("sa")));
    assert!(
        !found(Reference::Secret("c1"))
            && !found(Reference::ConfigMap("s1"))
            && !found(Reference::Secret("x"))
    );
}
