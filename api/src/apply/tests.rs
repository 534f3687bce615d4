//! Apply against its documented rules.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::kinds::Kind;

fn of(group: &str, kind: &str) -> DocumentType {
    DocumentType::of(Kind::find(group, kind).expect("a kind"))
}

fn writer<'a>(manager: &'a str, api_version: &'a str, time: &'a str) -> Writer<'a> {
    Writer { manager, api_version, subresource: "", time }
}

/// An object and who owns what, as a server keeps them.
#[derive(Clone, Debug, PartialEq)]
struct State {
    of: DocumentTypeId,
    object: Value,
    managed: Managed,
}

/// Compares document types by what they are of.
#[derive(Clone, Debug, PartialEq)]
struct DocumentTypeId(&'static str, &'static str);

impl State {
    fn new(group: &'static str, kind: &'static str) -> Self {
        let object = of(group, kind).root().empty();
        Self { of: DocumentTypeId(group, kind), object, managed: Managed::default() }
    }

    fn document_type(&self) -> DocumentType {
        of(self.of.0, self.of.1)
    }

    fn try_apply(&mut self, manager: &str, wanted: &Value, force: bool) -> Result<(), ApplyError> {
        let of = self.document_type();
        let writer = writer(manager, "v1", "2024-01-01T00:00:00Z");
        let applied = apply(of.root(), &self.object, wanted, self.managed.clone(), &writer, force)?;
        (self.object, self.managed) = (applied.document, applied.managed);
        Ok(())
    }

    #[track_caller]
    fn apply(&mut self, manager: &str, wanted: Value) -> &mut Self {
        self.try_apply(manager, &wanted, false).expect("no conflict");
        self
    }

    fn update(&mut self, manager: &str, object: Value) -> &mut Self {
        let of = self.document_type();
        let writer = writer(manager, "v1", "2024-01-01T00:00:01Z");
        self.managed = track(of.root(), &self.object, &object, self.managed.clone(), &writer, &[]);
        self.object = object;
        self
    }

    #[track_caller]
    fn conflicts(&mut self, manager: &str, wanted: Value, message: &str) -> &mut Self {
        let error = self.try_apply(manager, &wanted, false).expect_err("a conflict");
        assert_eq!(error.to_string(), message);
        self
    }

    #[track_caller]
    fn has(&mut self, pointer: &str, value: Value) -> &mut Self {
        assert_eq!(self.object.pointer(pointer).cloned().unwrap_or_default(), value, "{}", self.object);
        self
    }

    #[track_caller]
    fn owns(&mut self, manager: &str, fields: Value) -> &mut Self {
        let entries = self.managed.encode().unwrap_or_default();
        let own = entries.as_array().into_iter().flatten().find(|e| e["manager"] == manager);
        let own = own.map(|e| e["fieldsV1"].clone()).unwrap_or_default();
        assert_eq!(own, fields, "{manager}");
        self
    }
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

#[test]
fn managers_share_an_object_and_conflict_about_its_fields() {
    State::new("", "ConfigMap")
        .apply("one", map(json!({"a": "1", "b": "1"})))
        .owns("one", json!({"f:data": {"f:a": {}, "f:b": {}}}))
        .apply("two", map(json!({"b": "1", "c": "2"})))
        .conflicts("two", map(json!({"b": "2"})), "Apply failed with 1 conflict: conflict with \"one\": .data.b")
        .conflicts(
            "three",
            map(json!({"b": "2", "a": "3"})),
            "Apply failed with 3 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b\nconflicts with \"two\":\n- .data.b",
        )
        // What two managers want stays when one of them wants it no longer.
        .apply("one", map(json!({"a": "1"})))
        .has("/data", json!({"a": "1", "b": "1", "c": "2"}))
        .apply("two", map(json!({})))
        .has("/data", json!({"a": "1"}))
        .owns("two", json!({"f:data": {}}));
}

#[test]
fn an_update_takes_fields_and_an_apply_names_its_owner() {
    let mut state = State::new("apps", "Deployment");
    let wanted = |replicas: i64| json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": replicas}});
    state.apply("kubectl", wanted(1));
    let mut scaled = state.object.clone();
    scaled["spec"]["replicas"] = 5.into();
    state
        .update("scaler", scaled)
        .owns("kubectl", Value::Null)
        .conflicts(
            "kubectl",
            wanted(1),
            "Apply failed with 1 conflict: conflict with \"scaler\" using v1: .spec.replicas",
        )
        .apply("kubectl", wanted(5))
        .owns("scaler", json!({"f:spec": {"f:replicas": {}}}))
        .owns("kubectl", json!({"f:spec": {"f:replicas": {}}}));
    state.try_apply("kubectl", &wanted(2), true).expect("forced");
    state.has("/spec/replicas", json!(2)).owns("scaler", Value::Null);
}

#[test]
fn elements_of_lists_are_told_apart_by_their_keys() {
    let pod =
        |containers: Value| json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": containers}});
    State::new("", "Pod")
        .apply("one", pod(json!([{"name": "a", "image": "x", "ports": [{"containerPort": 80}]}])))
        .owns(
            "one",
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}),
        )
        .apply("two", pod(json!([{"name": "b", "image": "y"}, {"name": "a", "tty": true}])))
        .has(
            "/spec/containers",
            json!([{"name": "b", "image": "y"}, {"name": "a", "image": "x", "tty": true, "ports": [{"containerPort": 80}]}]),
        )
        .conflicts(
            "three",
            pod(json!([{"name": "a", "image": "z"}])),
            "Apply failed with 1 conflict: conflict with \"one\": .spec.containers[name=\"a\"].image",
        )
        .apply("two", pod(json!([{"name": "b", "image": "y"}])))
        .apply("one", pod(json!([{"name": "c"}])))
        .has("/spec/containers", json!([{"name": "b", "image": "y"}, {"name": "c"}]));
}

#[test]
fn configurations_that_do_not_fit_their_type_are_refused() {
    let mut state = State::new("", "Pod");
    let mut refused = |spec: Value, wanted: &str| {
        let error = state.try_apply("one", &json!({"spec": spec}), false).expect_err("it must be refused");
        assert_eq!(error.to_string(), wanted);
    };
    refused(json!({"foo": 1}), ".spec.foo: field not declared in schema");
    refused(
        json!({"containers": [{"image": "x"}]}),
        ".spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
    );
    refused(json!({"containers": {}}), ".spec.containers: expected list, got map");
    refused(
        json!({"containers": [{"name": "a"}, {"name": "a"}]}),
        ".spec.containers: duplicate entries for key [name=\"a\"]",
    );
}

#[test]
fn what_kubectl_applied_on_its_own_side_is_taken_over() {
    let mut state = State::new("", "ConfigMap");
    let mut object = map(json!({"a": "1", "b": "1"}));
    let applied = object.to_string();
    object["metadata"]["uid"] = "u".into();
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
    state.update("kubectl-client-side-apply", object.clone());
    state.clone().conflicts(
        "other",
        map(json!({"a": "2"})),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.a",
    );
    state.clone().apply("kubectl", map(json!({"a": "2"}))).has("/data", json!({"a": "2", "b": "1"}));
    // Somebody else changed it since.
    object["data"]["a"] = "3".into();
    state.update("editor", object).conflicts(
        "kubectl",
        map(json!({"a": "2"})),
        "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.a",
    );
}

#[test]
fn an_object_that_nobody_manages_has_an_owner_once_it_is_applied() {
    let mut state = State::new("", "ConfigMap");
    state.object = map(json!({"a": "1"}));
    state.object["metadata"]["uid"] = "u".into();
    state
        .conflicts(
            "one",
            map(json!({"a": "2"})),
            "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a",
        )
        .apply("one", map(json!({"b": "1"})))
        .owns("before-first-apply", json!({"f:data": {".": {}, "f:a": {}}}));
}

#[test]
fn many_updaters_become_one() {
    let mut state = State::new("", "ConfigMap");
    for i in 0..14 {
        let of = state.document_type();
        let mut object = if i == 0 { map(json!({})) } else { state.object.clone() };
        object["data"][format!("k{i}")] = "v".into();
        let (name, time) = (format!("m{i}"), format!("2024-01-01T00:00:{i:02}Z"));
        let writer = writer(&name, "v1", &time);
        state.managed = track(of.root(), &state.object, &object, state.managed.clone(), &writer, &[]);
        state.object = object;
    }
    let entries = state.managed.encode().expect("managers");
    let names: Vec<_> = entries.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    assert!(names.contains(&"ancient-changes") && names.contains(&"m13"), "{names:?}");
    assert_eq!(Managed::decode(&entries), Some(state.managed));
}

#[test]
fn managed_fields_are_read_and_reset() {
    let entry = json!({"manager": "m", "operation": "Apply", "apiVersion": "v1", "time": "2024-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}, "f:a": {}}}});
    let one = json!([entry]);
    let managed = Managed::of_request(None, Some(&one));
    assert_eq!(managed.encode(), Some(one.clone()));
    assert_eq!(Managed::of_request(Some(&json!([])), Some(&one)), managed);
    assert_eq!(Managed::of_request(Some(&json!([{"operation": "What"}])), Some(&one)), managed);
    assert!(Managed::of_request(Some(&json!([{}])), Some(&one)).is_empty());
    assert_eq!(manager_of_agent("kubectl/v1.32.0 (linux/amd64) kubernetes/1234"), "kubectl");
    assert_eq!(manager_of_agent(""), "unknown");
    assert_eq!(manager_of_agent(&"x".repeat(300)).len(), 128);
}

#[test]
fn a_custom_kind_merges_as_its_schema_says() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "rules": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": {"type": "object", "properties": {"port": {"type": "integer"}, "to": {"type": "string"},
                "protocol": {"type": "string", "default": "TCP"}}}},
        "names": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "plain": {"type": "array", "items": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}}});
    let of = DocumentType::custom(&schema);
    let document = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a", "labels": {"a": "b"}},
        "spec": {"rules": [{"port": 1, "to": "x"}], "names": ["n"], "plain": ["p"], "whole": {"a": "b"}, "free": {"a": {"b": [1]}}}});
    assert_eq!(
        field_set(of.root(), &document).to_value()["f:spec"],
        json!({"f:rules": {"k:{\"port\":1,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:to": {}}}, "f:names": {"v:\"n\"": {}},
            "f:plain": {}, "f:whole": {}, "f:free": {"f:a": {".": {}, "f:b": {}}}})
    );
    assert_eq!(field_set(of.root(), &document).to_value()["f:metadata"]["f:labels"], json!({"f:a": {}}));
}

/// Configurations of a pod that are valid and small, of some of its fields.
fn configuration() -> impl Strategy<Value = Value> {
    let text = || prop::sample::select(vec!["x", "y", "z"]);
    let strings = |names: &'static [&'static str]| {
        prop::collection::btree_map(
            prop::sample::select(names.to_vec()),
            prop::sample::select(vec!["1", "2"]),
            0..4,
        )
    };
    let env = || prop::collection::btree_map(text(), text(), 0..3);
    let container = (prop::option::of(text()), env(), prop::option::of(any::<bool>()));
    let containers = prop::collection::btree_map(text(), container, 0..3);
    let finalizers = prop::collection::btree_set(prop::sample::select(vec!["a/a", "b/b", "c/c"]), 0..3);
    (strings(&["l", "m", "n"]), containers, finalizers, prop::option::of(text())).prop_map(
        |(labels, containers, finalizers, node)| {
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, (image, env, tty))| {
                    let env: Vec<_> =
                        env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                    let mut container = json!({"name": name});
                    if !env.is_empty() {
                        container["env"] = env.into();
                    }
                    if let Some(image) = image {
                        container["image"] = image.into();
                    }
                    if let Some(tty) = tty {
                        container["tty"] = tty.into();
                    }
                    container
                })
                .collect();
            let mut document =
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}});
            if !labels.is_empty() {
                document["metadata"]["labels"] = json!(labels);
            }
            if !finalizers.is_empty() {
                document["metadata"]["finalizers"] = json!(finalizers);
            }
            if !containers.is_empty() {
                document["spec"]["containers"] = containers.into();
            }
            if let Some(node) = node {
                document["spec"]["nodeName"] = node.into();
            }
            document
        },
    )
}

/// The values of a document by path, without regard to the order of lists and to what holds nothing.
fn values(of: TypeRef<'_>, value: &Value) -> BTreeMap<String, Value> {
    fn walk(of: TypeRef<'_>, value: &Value, path: String, all: &mut BTreeMap<String, Value>) {
        match (of.get(), value) {
            (types::Type::Set | types::Type::Keyed { .. }, Value::Array(list)) => {
                for (element, found) in compare::indexed(of, list) {
                    found.into_iter().for_each(|v| walk(of.element(), v, format!("{path}/{element}"), all));
                }
            }
            (types::Type::Struct { .. } | types::Type::Map(_), Value::Object(map)) => {
                map.iter().for_each(|(name, v)| walk(of.field(name), v, format!("{path}/{name}"), all));
            }
            (_, Value::Null) => {}
            (_, value) => _ = all.insert(path, value.clone()),
        }
    }
    let mut all = BTreeMap::new();
    walk(of, value, String::new(), &mut all);
    all
}

proptest! {
    #[test]
    fn applying_again_changes_nothing(steps in prop::collection::vec((0..3_usize, configuration()), 1..5)) {
        let mut state = State::new("", "Pod");
        for (manager, wanted) in &steps {
            let manager = format!("m{manager}");
            state.try_apply(&manager, wanted, true).expect("forced");
            let once = state.clone();
            state.try_apply(&manager, wanted, true).expect("forced");
            let of = state.document_type();
            prop_assert_eq!(values(of.root(), &state.object), values(of.root(), &once.object));
            prop_assert_eq!(&state.managed, &once.managed);
        }
    }

    #[test]
    fn what_was_applied_is_there_and_owned(steps in prop::collection::vec((0..3_usize, configuration()), 1..5)) {
        let of = of("", "Pod");
        let mut state = State::new("", "Pod");
        for (manager, wanted) in &steps {
            state.try_apply(&format!("m{manager}"), wanted, true).expect("forced");
            let (there, wanted) = (values(of.root(), &state.object), values(of.root(), wanted));
            for (path, value) in wanted {
                prop_assert_eq!(there.get(&path), Some(&value), "{}", path);
            }
        }
    }

    #[test]
    fn managers_of_disjoint_fields_commute(a in configuration(), b in configuration()) {
        let of = of("", "Pod");
        let state = |first: (&str, &Value), second: (&str, &Value)| {
            let mut state = State::new("", "Pod");
            state.try_apply(first.0, first.1, false).ok()?;
            state.try_apply(second.0, second.1, false).ok()?;
            Some((values(of.root(), &state.object), state.managed))
        };
        let (ab, ba) = (state(("a", &a), ("b", &b)), state(("b", &b), ("a", &a)));
        // Those that conflict do so in either order.
        prop_assert_eq!(ab, ba);
    }

    #[test]
    fn what_only_i_own_goes_and_what_others_own_stays(mine in configuration(), next in configuration(), theirs in configuration()) {
        let of = of("", "Pod");
        let mut state = State::new("", "Pod");
        state.try_apply("they", &theirs, false).expect("the first");
        if state.try_apply("me", &mine, false).is_err() || state.try_apply("me", &next, false).is_err() {
            return Ok(());
        }
        let there = values(of.root(), &state.object);
        let (next, theirs, mine) = (values(of.root(), &next), values(of.root(), &theirs), values(of.root(), &mine));
        for (path, value) in &theirs {
            prop_assert_eq!(there.get(path), Some(value), "{} of others", path);
        }
        for path in mine.keys().filter(|p| !next.contains_key(*p) && !theirs.contains_key(*p)) {
            prop_assert!(!there.contains_key(path), "{} is left", path);
        }
    }

    #[test]
    fn sets_are_read_as_they_are_written(document in configuration()) {
        let set = field_set(of("", "Pod").root(), &document);
        prop_assert_eq!(FieldSet::from_value(&set.to_value()), Some(set));
    }

    #[test]
    fn whoever_changes_a_field_owns_it_alone(a in configuration(), b in configuration()) {
        let mut state = State::new("", "Pod");
        state.update("a", a).update("b", b.clone());
        let of = of("", "Pod");
        let all = field_set(of.root(), &b);
        let owned = state.managed.everything();
        for path in all.paths().into_iter().filter(|p| !matches!(p[..], ["f:apiVersion" | "f:kind" | "f:spec"] | ["f:metadata", "f:name"])) {
            prop_assert!(owned.contains(&path), "{:?} has no owner", path);
        }
    }
}
