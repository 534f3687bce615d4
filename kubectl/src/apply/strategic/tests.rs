use super::*;
use api::kinds::Kind;
use proptest::prelude::*;

fn deployment(spec: Value) -> Value {
    json!({"spec": spec})
}

#[track_caller]
fn check(original: Value, modified: Value, current: Value, want: Value) {
    let of = Type::of("apps", "Deployment");
    let patch = three_way(of, &deployment(original), &deployment(modified), &deployment(current));
    assert_eq!(patch, if want == json!({}) { json!({}) } else { deployment(want) });
}

fn pod(containers: Value) -> Value {
    json!({"template": {"spec": {"containers": containers}}})
}

#[test]
fn an_image_changes_in_its_container_only() {
    check(
        pod(json!([{"name": "a", "image": "x:1"}])),
        pod(json!([{"name": "a", "image": "x:2"}])),
        pod(
            json!([{"name": "a", "image": "x:1", "imagePullPolicy": "Always"}, {"name": "injected", "image": "y"}]),
        ),
        json!({"template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "image": "x:2"}]}}}),
    );
}

#[test]
fn a_container_that_was_dropped_is_deleted() {
    check(
        pod(json!([{"name": "a"}, {"name": "b"}])),
        pod(json!([{"name": "a"}])),
        pod(json!([{"name": "a"}, {"name": "b"}])),
        json!({"template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"$patch": "delete", "name": "b"}]}}}),
    );
}

#[test]
fn what_the_server_filled_in_is_no_change() {
    check(
        json!({"replicas": 1}),
        json!({"replicas": 1}),
        json!({"replicas": 1, "strategy": {"type": "RollingUpdate"}}),
        json!({}),
    );
}

#[test]
fn a_changed_strategy_names_the_keys_that_stay() {
    check(
        json!({}),
        json!({"strategy": {"type": "Recreate"}}),
        json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}),
        json!({"strategy": {"type": "Recreate", "$retainKeys": ["type"]}}),
    );
}

#[test]
fn a_field_that_was_dropped_is_null_if_it_is_still_there() {
    check(json!({"paused": true, "gone": 1}), json!({}), json!({"paused": true}), json!({"paused": null}));
}

#[test]
fn finalizers_merge_as_a_set() {
    let of = Type::of("", "Pod");
    let with = |list: Value| json!({"metadata": {"finalizers": list}});
    let patch =
        three_way(of, &with(json!(["a", "b"])), &with(json!(["a", "c"])), &with(json!(["theirs", "a", "b"])));
    assert_eq!(
        patch,
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["a", "c"], "finalizers": ["c"]}})
    );
}

fn containers() -> impl Strategy<Value = Value> {
    let env = prop::collection::btree_map("[A-C]", "[xy]", 0..3).prop_map(|m| {
        m.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>()
    });
    let container = (prop::option::of("[ij]"), prop::option::of(env), prop::option::of("[pq]"));
    prop::collection::btree_map("[a-d]", container, 1..4).prop_shuffle_map()
}

trait ShuffleMap: Strategy {
    fn prop_shuffle_map(self) -> BoxedStrategy<Value>;
}

type Container = (Option<String>, Option<Vec<Value>>, Option<String>);

impl<S: Strategy<Value = std::collections::BTreeMap<String, Container>> + 'static> ShuffleMap for S {
    fn prop_shuffle_map(self) -> BoxedStrategy<Value> {
        self.prop_map(|m| m.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
            .prop_map(|list| {
                let items = list.into_iter().map(|(name, (image, env, policy))| {
                    let mut item = json!({"name": name});
                    for (key, value) in [
                        ("image", image.map(Value::from)),
                        ("env", env.map(Value::from)),
                        ("imagePullPolicy", policy.map(Value::from)),
                    ] {
                        if let Some(value) = value {
                            item[key] = value;
                        }
                    }
                    item
                });
                items.collect()
            })
            .boxed()
    }
}

/// Whether everything that is wanted is there; lists of named elements are compared by name.
fn holds(have: &Value, want: &Value) -> bool {
    match (have, want) {
        (Value::Object(have), Value::Object(want)) => {
            // A list that has lost its last element is as good as none.
            let mut wanted = want.iter().filter(|(_, v)| v.as_array().is_none_or(|list| !list.is_empty()));
            wanted.all(|(k, v)| have.get(k).is_some_and(|h| holds(h, v)))
        }
        (Value::Array(have), Value::Array(want)) => {
            want.iter().all(|w| by(have, "name", &w["name"]).is_some_and(|h| holds(h, w)))
        }
        (have, want) => have == want,
    }
}

proptest! {
    #[test]
    fn applying_the_patch_brings_what_is_wanted_and_a_second_apply_is_empty(
        original in containers(), modified in containers(), current in containers(),
    ) {
        let (original, modified, current) = (deployment(pod(original)), deployment(pod(modified)), deployment(pod(current)));
        let of = Type::of("apps", "Deployment");
        let patch = three_way(of, &original, &modified, &current);
        let kind = Kind::find("apps", "Deployment").unwrap();
        let merged = api::patch::strategic_merge(kind, &current, &patch).unwrap();
        prop_assert!(holds(&merged, &modified), "{merged} lacks some of {modified}; patch {patch}");
        prop_assert_eq!(three_way(of, &modified, &modified, &merged), json!({}), "after {}", patch);
    }

    #[test]
    fn a_two_way_patch_leads_from_one_state_to_the_other(before in containers(), after in containers()) {
        let (before, after) = (deployment(pod(before)), deployment(pod(after)));
        let of = Type::of("apps", "Deployment");
        let patch = three_way(of, &before, &after, &before);
        let kind = Kind::find("apps", "Deployment").unwrap();
        let merged = api::patch::strategic_merge(kind, &before, &patch).unwrap();
        prop_assert_eq!(three_way(of, &after, &after, &merged), json!({}));
        prop_assert!(holds(&after, &merged) && holds(&merged, &after), "{}", merged);
    }
}
