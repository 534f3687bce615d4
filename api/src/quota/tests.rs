use super::*;
use serde_json::json;

fn kind(group: &str, kind: &str) -> &'static Kind {
    Kind::find(group, kind).expect("a kind")
}

fn pod(requests: Value, limits: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}})
}

#[track_caller]
fn used(of: &Kind, object: &Value, wanted: &str) {
    assert_eq!(usage(of, object, Timestamp::UNIX_EPOCH).to_string(), wanted);
}

#[test]
fn every_kind_takes_what_upstream_counts() {
    let pods = kind("", "Pod");
    let both = pod(json!({"cpu": "500m", "memory": "1Gi", "x.y/z": 2}), json!({"cpu": 1}));
    used(
        pods,
        &both,
        "count/pods=1,cpu=500m,limits.cpu=1,memory=1Gi,pods=1,requests.cpu=500m,requests.memory=1Gi,requests.x.y/z=2",
    );
    let mut ended = both.clone();
    ended["status"] = json!({"phase": "Failed"});
    used(pods, &ended, "count/pods=1");
    let mut gone = both;
    gone["metadata"] = json!({"deletionTimestamp": "1969-12-31T00:00:00Z", "deletionGracePeriodSeconds": 30});
    used(pods, &gone, "count/pods=1");
    let service = |spec: Value| json!({"spec": spec});
    let services = kind("", "Service");
    let counted = |balancers: u8, ports: u8| {
        format!("count/services=1,services=1,services.loadbalancers={balancers},services.nodeports={ports}")
    };
    used(services, &service(json!({"ports": [{}]})), &counted(0, 0));
    used(services, &service(json!({"type": "NodePort", "ports": [{}, {}]})), &counted(0, 2));
    used(services, &service(json!({"type": "LoadBalancer", "ports": [{}]})), &counted(1, 1));
    let none = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{}]});
    used(services, &service(none), &counted(1, 0));
    let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "5Gi"}}}});
    used(
        kind("", "PersistentVolumeClaim"),
        &claim,
        "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         fast.storageclass.storage.k8s.io/requests.storage=5Gi,persistentvolumeclaims=1,requests.storage=5Gi",
    );
    used(kind("", "ConfigMap"), &json!({}), "configmaps=1,count/configmaps=1");
    used(kind("apps", "Deployment"), &json!({}), "count/deployments.apps=1");
}

#[test]
fn containers_of_a_pod_add_up_and_initial_ones_do_not() {
    let of = |memory: &str| json!({"resources": {"requests": {"memory": memory}}});
    let mut sidecar = of("1Gi");
    sidecar["restartPolicy"] = "Always".into();
    let spec = json!({"containers": [of("1Gi"), of("2Gi")], "initContainers": [of("2Gi"), sidecar, of("4Gi")],
        "overhead": {"memory": "1Gi"}});
    let all = usage(kind("", "Pod"), &json!({"spec": spec}), Timestamp::UNIX_EPOCH);
    assert_eq!(all.0["requests.memory"].to_string(), "6Gi");
    let mut whole = spec;
    whole["resources"] = json!({"requests": {"memory": "9Gi"}});
    let all = usage(kind("", "Pod"), &json!({"spec": whole}), Timestamp::UNIX_EPOCH);
    assert_eq!(all.0["requests.memory"].to_string(), "10Gi");
}

#[track_caller]
fn charge(quota: Value, of: &Kind, new: &Value, old: Option<&Value>, wanted: Result<Option<&str>, &str>) {
    let mut quota = quota;
    quota["metadata"] = json!({"name": "q"});
    let charge = Charge { kind: of, new, old, now: Timestamp::UNIX_EPOCH };
    let seen = charge.apply(&quota).map(|used| used.map(|u| u.to_string())).map_err(|e| e.to_string());
    assert_eq!(seen, wanted.map(|w| w.map(str::to_owned)).map_err(str::to_owned));
}

fn quota(hard: Value, used: Value) -> Value {
    json!({"status": {"hard": hard, "used": used}})
}

#[test]
fn a_charge_is_refused_in_upstreams_words() {
    let pods = kind("", "Pod");
    let one = pod(json!({"cpu": "500m"}), json!({}));
    let some = |used: &str| {
        quota(json!({"pods": "2", "requests.cpu": "1"}), json!({"pods": "1", "requests.cpu": used}))
    };
    charge(some("100m"), pods, &one, None, Ok(Some("pods=2,requests.cpu=600m")));
    let why =
        "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1";
    charge(some("600m"), pods, &one, None, Err(why));
    let none = pod(json!({}), json!({}));
    charge(some("0"), pods, &none, None, Err("failed quota: q: must specify requests.cpu for: c"));
    charge(
        quota(json!({"pods": "2"}), json!({})),
        pods,
        &one,
        None,
        Err("status unknown for quota: q, resources: pods"),
    );
    charge(quota(json!({"services": "2"}), json!({"services": "0"})), pods, &one, None, Ok(None));
    // Before the quota has a status it limits nothing.
    charge(json!({"spec": {"hard": {"pods": "0"}}}), pods, &one, None, Ok(None));
}

#[test]
fn a_change_is_charged_by_its_difference() {
    let services = kind("", "Service");
    let of = |type_: &str| json!({"spec": {"type": type_, "ports": [{}]}});
    let hard = |used: &str| quota(json!({"services.nodeports": "1"}), json!({"services.nodeports": used}));
    charge(hard("0"), services, &of("NodePort"), Some(&of("ClusterIP")), Ok(Some("services.nodeports=1")));
    charge(hard("1"), services, &of("NodePort"), Some(&of("NodePort")), Ok(None));
    let why = "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1";
    charge(hard("1"), services, &of("NodePort"), Some(&of("ClusterIP")), Err(why));
    charge(hard("5"), services, &of("ClusterIP"), Some(&of("NodePort")), Ok(Some("services.nodeports=4")));
}

#[test]
fn scopes_choose_pods() {
    let pods = kind("", "Pod");
    let best = pod(json!({}), json!({}));
    let mut ending = pod(json!({"cpu": 1}), json!({}));
    ending["spec"]["activeDeadlineSeconds"] = 5.into();
    ending["spec"]["priorityClassName"] = "high".into();
    let scoped = |scope: &str| json!({"spec": {"scopes": [scope]}});
    for (scope, of_best, of_ending) in [
        ("BestEffort", true, false),
        ("NotBestEffort", false, true),
        ("Terminating", false, true),
        ("NotTerminating", true, false),
        ("PriorityClass", false, true),
        ("CrossNamespacePodAffinity", false, false),
    ] {
        assert_eq!(is_in_scope(&scoped(scope), pods, &best), of_best, "{scope}");
        assert_eq!(is_in_scope(&scoped(scope), pods, &ending), of_ending, "{scope}");
    }
    let selected = |operator: &str, values: Value| {
        json!({"spec": {"scopeSelector": {"matchExpressions":
            [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}}})
    };
    assert!(is_in_scope(&selected("In", json!(["high"])), pods, &ending));
    assert!(!is_in_scope(&selected("In", json!(["low"])), pods, &ending));
    assert!(is_in_scope(&selected("NotIn", json!(["low"])), pods, &ending));
    assert!(is_in_scope(&selected("DoesNotExist", json!([])), pods, &best));
    // Scopes are about pods alone.
    assert!(!is_in_scope(&scoped("NotTerminating"), kind("", "Service"), &json!({})));
}

#[test]
fn a_recount_names_all_that_is_limited() {
    let quota = json!({"spec": {"hard": {"pods": "5", "requests.memory": "1Gi", "services": "1"}}});
    let two = [pod(json!({"memory": "100Mi"}), json!({})), pod(json!({"memory": "28Mi"}), json!({}))];
    let all = two.iter().map(|p| (kind("", "Pod"), p));
    let used = recount(&quota, all, Timestamp::UNIX_EPOCH);
    assert_eq!(used.to_string(), "pods=2,requests.memory=128Mi,services=0");
}
