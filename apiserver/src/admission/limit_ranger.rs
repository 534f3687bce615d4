//! LimitRanger: what a container of a namespace gets when it names no limits, and how little and how much it may name.

use std::collections::BTreeMap;

use api::Object;
use api::openapi::api::core::v1::{LimitRange, LimitRangeItem};
use api::openapi::apimachinery::pkg::api::resource::Quantity;
use api::quantity::Amount;
use serde_json::{Value, json};

type Amounts = BTreeMap<String, Amount>;

fn read(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    list.into_iter()
        .flatten()
        .filter_map(|(name, q)| Some((name.clone(), Amount::parse(&q.0).ok()?)))
        .collect()
}

fn read_json(value: Option<&Value>) -> Amounts {
    let text = |v: &Value| v.as_str().map(str::to_owned).unwrap_or_else(|| v.to_string());
    let map = value.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(name, v)| Some((name.clone(), Amount::parse(&text(v)).ok()?)))
        .collect()
}

fn items(ranges: &[LimitRange]) -> impl Iterator<Item = &LimitRangeItem> {
    ranges.iter().filter_map(|r| r.spec.as_ref()).flat_map(|spec| &spec.limits)
}

/// Fills in the defaults of a new pod's containers, and notes that it did.
pub fn mutate(pod: &mut Object, ranges: &[LimitRange]) {
    let mut notes = Vec::new();
    let Some(spec) = pod.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
    for (field, what) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = spec.get_mut(field).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let mut set = Vec::new();
            for item in items(ranges).filter(|item| item.type_ == "Container") {
                // A limit that the container names is also its request, unless that is named, too.
                for (part, defaults) in [("requests", &item.default_request), ("limits", &item.default)] {
                    let own_limits = container.get("resources").and_then(|r| r.get("limits")).cloned();
                    let resources = container.entry("resources").or_insert_with(|| json!({}));
                    if resources.is_null() {
                        *resources = json!({});
                    }
                    let Some(resources) = resources.as_object_mut() else { continue };
                    let Some(list) = resources.entry(part).or_insert_with(|| json!({})).as_object_mut()
                    else {
                        continue;
                    };
                    for (resource, quantity) in defaults.iter().flatten() {
                        let limited = part == "requests"
                            && own_limits.as_ref().is_some_and(|l| l.get(resource).is_some());
                        if !limited && !list.contains_key(resource) {
                            list.insert(resource.clone(), quantity.0.clone().into());
                            set.push((part, resource.clone()));
                        }
                    }
                    if list.is_empty() {
                        resources.remove(part);
                    }
                }
            }
            for part in ["requests", "limits"] {
                let names: Vec<_> = set.iter().filter(|(p, _)| *p == part).map(|(_, r)| r.as_str()).collect();
                if !names.is_empty() {
                    let word = part.trim_end_matches('s');
                    notes.push(format!("{} {word} for {what} {name}", names.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let annotations = pod.meta_mut().entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            let text = format!("LimitRanger plugin set: {}", notes.join("; "));
            annotations.insert("kubernetes.io/limit-ranger".into(), text.into());
        }
    }
}

/// What is wrong with a pod, one sentence per problem.
pub fn pod_problems(pod: &Object, ranges: &[LimitRange]) -> Vec<String> {
    let mut problems = Vec::new();
    let list = |field: &str| pod.pointer(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let (containers, init) = (list("/spec/containers"), list("/spec/initContainers"));
    let amounts = |c: &Value, part: &str| read_json(c.get("resources").and_then(|r| r.get(part)));
    for item in items(ranges) {
        let mut check =
            |requests: &Amounts, limits: &Amounts| problems.extend(violations(item, requests, limits));
        match item.type_.as_str() {
            "Container" => {
                for container in containers.iter().chain(&init) {
                    check(&amounts(container, "requests"), &amounts(container, "limits"));
                }
            }
            "Pod" => {
                let total = |part: &str| {
                    let mut sum = Amounts::new();
                    for container in &containers {
                        for (name, amount) in amounts(container, part) {
                            let entry = sum.entry(name).or_insert(Amount::ZERO);
                            *entry += amount;
                        }
                    }
                    for container in &init {
                        for (name, amount) in amounts(container, part) {
                            let entry = sum.entry(name).or_insert(Amount::ZERO);
                            *entry = (*entry).max(amount);
                        }
                    }
                    sum
                };
                check(&total("requests"), &total("limits"));
            }
            _ => {}
        }
    }
    problems
}

/// What is wrong with a claim, one sentence per problem.
pub fn claim_problems(claim: &Object, ranges: &[LimitRange]) -> Vec<String> {
    let requests = read_json(claim.pointer("/spec/resources/requests"));
    let of_claims = items(ranges).filter(|item| item.type_ == "PersistentVolumeClaim");
    of_claims.flat_map(|item| violations(item, &requests, &Amounts::new())).collect()
}

fn violations(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let type_ = &item.type_;
    let mut problems = Vec::new();
    let shown = |list: &Option<BTreeMap<String, Quantity>>, name: &str| {
        list.as_ref().and_then(|l| l.get(name)).map(|q| q.0.clone()).unwrap_or_default()
    };
    for (name, min) in read(item.min.as_ref()) {
        let text = shown(&item.min, &name);
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => {
                problems.push(format!("minimum {name} usage per {type_} is {text}.  No request is specified"))
            }
            (Some(request), _) if *request < min => problems.push(format!(
                "minimum {name} usage per {type_} is {text}, but request is {}",
                request.show_as(&text)
            )),
            (_, Some(limit)) if *limit < min => {
                problems.push(format!(
                    "minimum {name} usage per {type_} is {text}, but limit is {}",
                    limit.show_as(&text)
                ));
            }
            _ => {}
        }
    }
    for (name, max) in read(item.max.as_ref()) {
        let text = shown(&item.max, &name);
        // A claim has requests alone.
        let limits = if type_ == "PersistentVolumeClaim" { requests } else { limits };
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => {
                problems.push(format!("maximum {name} usage per {type_} is {text}.  No limit is specified"))
            }
            (Some(limit), _) if *limit > max => {
                problems.push(format!(
                    "maximum {name} usage per {type_} is {text}, but limit is {}",
                    limit.show_as(&text)
                ));
            }
            (_, Some(request)) if *request > max => problems.push(format!(
                "maximum {name} usage per {type_} is {text}, but request is {}",
                request.show_as(&text)
            )),
            _ => {}
        }
    }
    for (name, ratio) in read(item.max_limit_request_ratio.as_ref()) {
        let text = shown(&item.max_limit_request_ratio, &name);
        let what = format!("{name} max limit to request ratio per {type_} is {text}");
        match (requests.get(&name), limits.get(&name)) {
            (Some(request), Some(limit)) if *request > Amount::ZERO => {
                // Both in thousandths, so that the quotient is exact enough to compare.
                let (request, limit) = (request.to_milli() as f64, limit.to_milli() as f64);
                if limit / request > ratio.to_milli() as f64 / 1000.0 {
                    problems.push(format!("{what}, but provided ratio is {:.6}", limit / request));
                }
            }
            (None, _) => problems.push(format!("{what}, but no request is specified or request is 0")),
            (_, None) => problems.push(format!("{what}, but no limit is specified or limit is 0")),
            _ => {}
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(item: Value) -> Vec<LimitRange> {
        vec![serde_json::from_value(json!({"metadata": {}, "spec": {"limits": [item]}})).expect("a range")]
    }

    fn pod(resources: Value) -> Object {
        Object::new(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})).expect("a map")
    }

    #[test]
    fn a_container_gets_what_it_does_not_name() {
        let ranges = range(
            json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}),
        );
        let mut bare = pod(json!({}));
        mutate(&mut bare, &ranges);
        assert_eq!(
            bare.pointer("/spec/containers/0/resources"),
            Some(&json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "1Gi"}}))
        );
        assert_eq!(
            bare.annotations()["kubernetes.io/limit-ranger"],
            "LimitRanger plugin set: cpu request for container c; cpu, memory limit for container c"
        );
        let mut own = pod(json!({"limits": {"cpu": "2"}}));
        mutate(&mut own, &range(json!({"type": "Container", "defaultRequest": {"cpu": "100m"}})));
        assert_eq!(own.pointer("/spec/containers/0/resources"), Some(&json!({"limits": {"cpu": "2"}})));
    }

    #[track_caller]
    fn check(item: Value, resources: Value, wanted: &[&str]) {
        assert_eq!(pod_problems(&pod(resources), &range(item)), wanted);
    }

    #[test]
    fn what_is_too_little_or_too_much_is_refused() {
        let min = json!({"type": "Container", "min": {"cpu": "100m"}});
        check(min.clone(), json!({"requests": {"cpu": "100m"}}), &[]);
        check(
            min.clone(),
            json!({"requests": {"cpu": "50m"}}),
            &["minimum cpu usage per Container is 100m, but request is 50m"],
        );
        check(min, json!({}), &["minimum cpu usage per Container is 100m.  No request is specified"]);
        let max = json!({"type": "Pod", "max": {"memory": "1Gi"}});
        check(max.clone(), json!({"limits": {"memory": "1Gi"}}), &[]);
        check(
            max,
            json!({"limits": {"memory": "2Gi"}}),
            &["maximum memory usage per Pod is 1Gi, but limit is 2Gi"],
        );
        let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
        check(ratio.clone(), json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}), &[]);
        check(
            ratio,
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}),
            &["cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"],
        );
    }

    #[test]
    fn a_claim_stays_within_its_bounds() {
        let ranges = range(
            json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "10Gi"}}),
        );
        let problems = |size: &str| {
            let claim = json!({"spec": {"resources": {"requests": {"storage": size}}}});
            claim_problems(&Object::new(claim).expect("a map"), &ranges).len()
        };
        assert_eq!([problems("1Gi"), problems("5Gi"), problems("11Gi"), problems("1Mi")], [0, 0, 1, 1]);
    }
}
