//! Bad input gets a clear error and changes nothing.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use api::Kind;

use crate::samples::sample;
use crate::support::{Http, Server, block_on, text};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A sample with one value replaced (or removed, by null).
fn with(group: &str, kind: &str, pointer: &str, value: Value) -> String {
    let mut object = sample(Kind::find(group, kind).unwrap(), "bad");
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} is not there"));
    match (parent, value) {
        (Value::Object(map), Value::Null) => {
            map.remove(field);
        }
        (Value::Object(map), value) => {
            map.insert(field.into(), value);
        }
        (parent, _) => panic!("{parent} is no map"),
    }
    object.to_string()
}

struct Case<'a> {
    what: &'a str,
    path: &'a str,
    media: &'a str,
    body: String,
    code: u16,
    reason: &'a str,
    says: &'a str,
}

async fn check(http: &Http, case: Case<'_>) {
    let began = Instant::now();
    let (code, error) = http.call(Method::POST, case.path, case.media, case.body).await;
    assert_eq!((code, text(&error, "/reason")), (case.code, case.reason), "{}: {error}", case.what);
    assert_eq!((text(&error, "/kind"), text(&error, "/status")), ("Status", "Failure"), "{}", case.what);
    assert_eq!(error["code"], json!(case.code), "{}", case.what);
    let causes = error.pointer("/details/causes").map(Value::to_string).unwrap_or_default();
    let message = text(&error, "/message");
    assert!(
        message.contains(case.says) || causes.contains(case.says),
        "{}: {:?} is not in {error}",
        case.what,
        case.says
    );
    assert!(began.elapsed() < Duration::from_secs(2), "{} took {:?}", case.what, began.elapsed());
}

#[test]
fn bad_documents_are_refused_in_words_that_name_the_field() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let json_type = "application/json";
        let case = |what, path, body: String, code, reason, says| Case {
            what,
            path,
            media: json_type,
            body,
            code,
            reason,
            says,
        };
        let bomb = {
            let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
            for i in 1..12 {
                text += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(","));
            }
            text
        };
        let invalid = "Invalid";
        let bad = "BadRequest";
        for case in [
            case("malformed JSON", MAPS, "{\"a\":\n x}".into(), 400, bad, "line 2 column"),
            Case {
                media: "application/yaml",
                ..case("malformed YAML", MAPS, "a: b\n  c: [d".into(), 400, bad, "line 2")
            },
            Case { media: "application/yaml", ..case("an alias bomb", MAPS, bomb, 400, bad, "") },
            case("deep JSON", MAPS, "[".repeat(200_000), 400, bad, "recursion limit"),
            Case { media: "application/yaml", ..case("deep YAML", MAPS, "[".repeat(200_000), 400, bad, "") },
            case(
                "a large body",
                MAPS,
                format!("\"{}\"", "x".repeat(3 << 20)),
                413,
                "RequestEntityTooLarge",
                "limit is 3145728",
            ),
            Case {
                media: "text/html",
                ..case("another type", MAPS, "{}".into(), 415, "UnsupportedMediaType", "application/json")
            },
            case(
                "an unknown kind",
                "/api/v1/namespaces/default/unicorns",
                "{}".into(),
                404,
                "NotFound",
                "could not find the requested resource",
            ),
            case(
                "another kind",
                MAPS,
                json!({"apiVersion": "v1", "kind": "Unicorn"}).to_string(),
                400,
                bad,
                "Unicorn",
            ),
            case(
                "another version",
                MAPS,
                json!({"apiVersion": "v2", "kind": "ConfigMap"}).to_string(),
                400,
                bad,
                "v2",
            ),
            case("no map", MAPS, "[]".into(), 400, bad, "not a JSON object"),
            case("no name", MAPS, "{}".into(), 422, invalid, "metadata.name"),
            case(
                "a wrong name",
                MAPS,
                with("", "ConfigMap", "/metadata/name", json!("No_Label")),
                422,
                invalid,
                "metadata.name",
            ),
            case(
                "a wrong label",
                MAPS,
                with("", "ConfigMap", "/metadata/labels/sample", json!("a b")),
                422,
                invalid,
                "metadata.labels",
            ),
            case(
                "another namespace",
                MAPS,
                with("", "ConfigMap", "/metadata/namespace", json!("x")),
                400,
                bad,
                "does not match the namespace",
            ),
            case(
                "a missing namespace",
                "/api/v1/namespaces/absent/configmaps",
                with("", "ConfigMap", "/metadata/uid", Value::Null),
                404,
                "NotFound",
                "namespaces \"absent\" not found",
            ),
            case(
                "a wrong type",
                DEPLOYMENTS,
                with("apps", "Deployment", "/spec/replicas", json!("three")),
                400,
                bad,
                "spec.replicas",
            ),
            case(
                "a wrong type deep inside",
                PODS,
                with("", "Pod", "/spec/containers/0/ports", json!([{"containerPort": "x"}])),
                400,
                bad,
                "spec.containers[0].ports[0].containerPort",
            ),
            case(
                "a missing field",
                PODS,
                with("", "Pod", "/spec/containers", Value::Null),
                422,
                invalid,
                "spec.containers",
            ),
            case(
                "a missing image",
                DEPLOYMENTS,
                with("apps", "Deployment", "/spec/template/spec/containers/0/image", Value::Null),
                422,
                invalid,
                "spec.template.spec.containers[0].image",
            ),
            case(
                "negative replicas",
                DEPLOYMENTS,
                with("apps", "Deployment", "/spec/replicas", json!(-1)),
                422,
                invalid,
                "spec.replicas",
            ),
            case(
                "a selector of others",
                DEPLOYMENTS,
                with("apps", "Deployment", "/spec/selector/matchLabels", json!({"app": "other"})),
                422,
                invalid,
                "spec.template.metadata.labels",
            ),
            case(
                "duplicate ports",
                SERVICES,
                with(
                    "",
                    "Service",
                    "/spec/ports",
                    json!([{"name": "a", "port": 80}, {"name": "b", "port": 80}]),
                ),
                422,
                invalid,
                "spec.ports[1]",
            ),
            case(
                "a wrong Service name",
                SERVICES,
                with("", "Service", "/metadata/name", json!("1web")),
                422,
                invalid,
                "metadata.name",
            ),
            case(
                "a version in a new object",
                MAPS,
                with("", "ConfigMap", "/metadata/resourceVersion", json!("5")),
                400,
                bad,
                "resourceVersion",
            ),
        ] {
            check(&http, case).await;
        }
        let (_, list) = http.get(&format!("{MAPS}?limit=1")).await;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(0));
    });
}

#[test]
fn bad_requests_get_the_right_code() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(DEPLOYMENTS, sample(Kind::find("apps", "Deployment").unwrap(), "web")).await;
        let one = format!("{DEPLOYMENTS}/web");
        let other = json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}}}}});
        let (code, error) = http.patch(&one, "merge", &other).await;
        assert_eq!((code, text(&error, "/details/causes/0/field")), (422, "spec.selector"), "{error}");
        assert!(text(&error, "/message").contains("field is immutable"), "{error}");
        for (method, path, media, body, wanted) in [
            ("PUT", DEPLOYMENTS, "application/json", "{}", 405),
            ("POST", one.as_str(), "application/json", "{}", 405),
            ("POST", "/apis/apps/v1/deployments", "application/json", "{}", 405),
            ("BREW", one.as_str(), "", "", 405),
            ("GET", "/apis/apps/v1/namespaces/default/deployments/web/log", "", "", 404),
            ("GET", "/nonsense", "", "", 404),
            ("PATCH", one.as_str(), "application/json", "{}", 415),
            ("PATCH", one.as_str(), "application/json-patch+json", "{}", 400),
            (
                "PATCH",
                one.as_str(),
                "application/json-patch+json",
                r#"[{"op":"remove","path":"/absent"}]"#,
                422,
            ),
            ("PATCH", one.as_str(), "application/merge-patch+json", "[]", 400),
            ("PATCH", one.as_str(), "application/merge-patch+json", r#"{"metadata":{"name":"x"}}"#, 422),
            ("PATCH", one.as_str(), "application/merge-patch+json", r#"{"metadata":{"uid":"x"}}"#, 409),
            (
                "PATCH",
                one.as_str(),
                "application/merge-patch+json",
                r#"{"metadata":{"resourceVersion":"1"}}"#,
                409,
            ),
            ("PATCH", one.as_str(), "application/merge-patch+json", r#"{"kind":"Pod"}"#, 400),
            ("PUT", one.as_str(), "application/json", r#"{"metadata":{"name":"other"}}"#, 400),
            ("PUT", one.as_str(), "application/json", r#"{"metadata":{}}"#, 400),
            ("DELETE", one.as_str(), "application/json", r#"{"gracePeriodSeconds":"x"}"#, 400),
            ("GET", "/api/v1/namespaces/default/pods/absent", "", "", 404),
        ] {
            let (code, error) = http.call(method.parse().unwrap(), path, media, body).await;
            assert_eq!(code, wanted, "{method} {path} {body}: {error}");
            assert_eq!(text(&error, "/kind"), "Status", "{error}");
        }
    });
}
