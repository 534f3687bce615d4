use super::*;
use crate::auth::Resource;
use serde_json::json;

fn policy() -> Policy {
    let mut policy = Policy::default();
    let rules = |value: serde_json::Value| -> Arc<[PolicyRule]> {
        serde_json::from_value::<Vec<PolicyRule>>(value).expect("rules").into()
    };
    let read = rules(json!([
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
        {"verbs": ["get"], "apiGroups": ["apps"], "resources": ["*/scale"], "resourceNames": ["web"]},
        {"verbs": ["get"], "nonResourceURLs": ["/metrics", "/debug/*"]},
    ]));
    policy.add_role("", "reader", read);
    policy.add_role("ns", "writer", rules(json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])));
    let role =
        |kind: &str, name: &str| RoleRef { api_group: GROUP.into(), kind: kind.into(), name: name.into() };
    let subject = |kind: &str, namespace: Option<&str>, name: &str| Subject {
        kind: kind.into(),
        name: name.into(),
        namespace: namespace.map(str::to_owned),
        ..Subject::default()
    };
    policy.add_binding("", "all-read", &[subject("Group", None, "readers")], &role("ClusterRole", "reader"));
    let account = subject("ServiceAccount", Some("ns"), "robot");
    policy.add_binding("ns", "write", &[subject("User", None, "anna"), account], &role("Role", "writer"));
    policy.add_binding("ns", "broken", &[subject("User", None, "bob")], &role("Role", "gone"));
    policy
}

/// `user[:group] verb group/resource[/subresource] namespace/name`, or `user[:group] verb /path`.
#[track_caller]
fn check(request: &str, wanted: Result<&str, &str>) {
    let words: Vec<_> = request.split(' ').collect();
    let (name, group) = words[0].split_once('+').unwrap_or((words[0], ""));
    let user = User::of(name, &[group]);
    let decision = if words[2].starts_with('/') && words.len() == 3 {
        policy().allows(&user, &Request::Path(words[1], words[2]))
    } else {
        let parts: Vec<_> = words[2].split('/').collect();
        let (namespace, name) = words[3].split_once('/').expect("namespace/name");
        let subresource = parts.get(2).copied().unwrap_or_default();
        let resource = Resource {
            group: parts[0],
            resource: parts[1],
            subresource,
            namespace,
            name,
            ..Resource::default()
        };
        policy().allows(&user, &Request::Resource(words[1], resource))
    };
    match (decision, wanted) {
        (Ok(reason), Ok(text)) => assert!(reason.contains(text), "{request}: {reason}"),
        (Err(errors), Err(text)) => assert_eq!(errors.join(","), text, "{request}"),
        (decision, _) => panic!("{request}: {decision:?}"),
    }
}

#[test]
fn a_request_is_allowed_by_the_bindings_that_count_in_its_namespace() {
    let by_group = "ClusterRoleBinding \"all-read\" of ClusterRole \"reader\" to Group \"readers\"";
    check("x+readers get /pods ns/a", Ok(by_group));
    check("x+readers list /pods /", Ok(by_group));
    check("x+readers get /pods/log ns/a", Ok(by_group));
    check("x+readers get /pods/exec ns/a", Err(""));
    check("x+readers create /pods ns/", Err(""));
    check("x+readers get apps/deployments/scale ns/web", Ok(by_group));
    check("x+readers get apps/deployments/scale ns/other", Err(""));
    check("x+readers get apps/deployments ns/web", Err(""));
    check("x+readers get /metrics", Ok(by_group));
    check("x+readers get /debug/pprof", Ok(by_group));
    check("x+readers get /metrics/x", Err(""));
    let own = "RoleBinding \"write/ns\" of Role \"writer\" to User \"anna\"";
    check("anna delete apps/deployments ns/web", Ok(own));
    check("anna delete apps/deployments other/web", Err(""));
    check("anna list apps/deployments /", Err(""));
    check("anna get /metrics", Err(""));
    let account = "to ServiceAccount \"robot/ns\"";
    check("system:serviceaccount:ns:robot get /secrets ns/s", Ok(account));
    check("bob get /pods ns/a", Err("role.rbac.authorization.k8s.io \"gone\" not found"));
}

#[track_caller]
fn covered(owned: serde_json::Value, wanted: serde_json::Value, missing: &[&str]) {
    let rules = |value| serde_json::from_value::<Vec<PolicyRule>>(value).expect("rules");
    let left = rules::simplify(rules::uncovered(&rules(owned), &rules(wanted)));
    assert_eq!(left.iter().map(rules::compact).collect::<Vec<_>>(), missing);
}

#[test]
fn rules_cover_one_another_part_by_part() {
    let rule = |verbs: &[&str], resources: &[&str]| json!([{"verbs": verbs, "apiGroups": [""], "resources": resources}]);
    covered(rule(&["*"], &["pods"]), rule(&["get", "list"], &["pods"]), &[]);
    covered(
        rule(&["get"], &["pods"]),
        rule(&["get", "list", "watch"], &["pods"]),
        &["{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"watch\"]}"],
    );
    covered(rule(&["get"], &["*/scale"]), rule(&["get"], &["pods/scale"]), &[]);
    covered(rule(&["get"], &["*"]), rule(&["get"], &["*"]), &[]);
    covered(
        rule(&["get"], &["pods"]),
        rule(&["get"], &["*"]),
        &["{APIGroups:[\"\"], Resources:[\"*\"], Verbs:[\"get\"]}"],
    );
    let named = |names: &[&str]| json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": names}]);
    covered(rule(&["get"], &["pods"]), named(&["a"]), &[]);
    covered(named(&["a", "b"]), named(&["b", "a"]), &[]);
    covered(
        named(&["a"]),
        rule(&["get"], &["pods"]),
        &["{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}"],
    );
    let urls = |urls: &[&str]| json!([{"verbs": ["get"], "nonResourceURLs": urls}]);
    covered(urls(&["/a/*"]), urls(&["/a/b", "/b"]), &["{NonResourceURLs:[\"/b\"], Verbs:[\"get\"]}"]);
}

#[test]
fn nobody_grants_what_he_does_not_hold() {
    let kind = |name: &str| api::Kind::find(GROUP, name).expect("a kind");
    let object = |value| api::Object::new(value).expect("a map");
    let decide = |user: &User, name: &str, new: serde_json::Value| {
        escalation::decide(&policy(), user, kind(name), &object(new), None)
            .map_err(|e| (e.code(), e.to_string()))
    };
    let reader = User::of("x", &["readers"]);
    let small = json!({"metadata": {"name": "r", "namespace": "ns"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    assert_eq!(decide(&reader, "Role", small.clone()), Ok(()));
    let large = json!({"metadata": {"name": "r", "namespace": "ns"}, "rules": [{"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"]}]});
    let (code, text) = decide(&reader, "Role", large.clone()).expect_err("refused");
    assert_eq!(code, 403);
    assert_eq!(
        text,
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"x\" (groups=[\"readers\"]) is attempting to grant \
         RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
    );
    // Whoever may do everything in a namespace may also escalate there.
    assert_eq!(decide(&User::of("anna", &[]), "Role", large.clone()), Ok(()));
    assert_eq!(decide(&User::of("root", &["system:masters"]), "ClusterRole", large), Ok(()));
    let gathers = json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": []}});
    let (_, text) = decide(&reader, "ClusterRole", gathers).expect_err("refused");
    assert!(text.ends_with("must have cluster-admin privileges to use the aggregationRule"), "{text}");
    let binding = |name: &str| json!({"metadata": {"name": "b", "namespace": "ns"}, "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name}});
    assert_eq!(decide(&reader, "RoleBinding", binding("reader")), Ok(()));
    assert_eq!(decide(&reader, "RoleBinding", binding("none")).expect_err("refused").0, 404);
    let mut owned = object(small.clone());
    owned.meta_mut().insert("finalizers".into(), json!(["a/b"]));
    let nobody = User::of("nobody", &[]);
    assert!(
        escalation::decide(&policy(), &nobody, kind("Role"), &owned, Some(&object(small.clone()))).is_ok()
    );
    assert!(escalation::decide(&policy(), &nobody, kind("Role"), &owned, None).is_err());
}
