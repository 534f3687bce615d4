//! Encodings: the binary one, compression, HEAD, and what is said of fields that stand twice.

use std::io::Read;

use http::Method;
use serde_json::{Value, json};

use crate::samples::{collection, sample, settled, stored};
use crate::support::{Server, block_on, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What both encodings say alike: without what is as good as absent, and with times in one form.
fn plain(value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Number(number) if number.as_f64() == Some(0.0) => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(match text.parse::<jiff::Timestamp>() {
            Ok(time) => time.to_string().into(),
            Err(_) => text.into(),
        }),
        Value::Array(list) => Some(list.into_iter().filter_map(plain).collect::<Vec<_>>())
            .filter(|l| !l.is_empty())
            .map(Value::Array),
        Value::Object(map) => {
            let map: serde_json::Map<_, _> =
                map.into_iter().filter_map(|(key, value)| Some((key, plain(value)?))).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        other => Some(other),
    }
}

#[test]
fn every_kind_is_answered_in_the_binary_encoding() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let accept = [("accept", "application/vnd.kubernetes.protobuf,application/json")];
        for (i, kind) in stored().enumerate() {
            let path = collection(kind);
            let created = http.create(&path, sample(kind, &format!("binary{i}"))).await;
            let one = format!("{path}/{}", text(&created, "/metadata/name"));
            let wanted = settled(&http, kind, &one, created).await;
            let (code, body) = http.try_call(Method::GET, &one, "", "".into(), &accept).await.unwrap();
            assert_eq!(code, 200, "{one}");
            let decoded = api::protobuf::decode(&body).unwrap_or_else(|e| panic!("{one}: {e}"));
            assert_eq!(plain(decoded), plain(wanted), "{one}");
            let (code, list) = http.try_call(Method::GET, &path, "", "".into(), &accept).await.unwrap();
            assert!(code == 200 && list.starts_with(b"k8s\0"), "{path}");
        }
    });
}

#[test]
fn a_watch_speaks_the_binary_encoding() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(MAPS, json!({"metadata": {"name": "seen"}, "data": {"a": "b"}})).await;
        let path = format!("{MAPS}?watch=1&timeoutSeconds=1");
        let (_, body) =
            http.try_call(Method::GET, &path, "", "".into(), &[("accept", PROTOBUF)]).await.unwrap();
        let length = u32::from_be_bytes(body[..4].try_into().unwrap()) as usize;
        let frame = &body[4..4 + length];
        // The type, then an object within a message of its own.
        assert_eq!(&frame[..7], b"\x0a\x05ADDED");
        let at = frame.windows(4).position(|w| w == b"k8s\0").expect("an object");
        let decoded = api::protobuf::decode(&frame[at..]).expect("a config map");
        assert_eq!((text(&decoded, "/metadata/name"), &decoded["data"]), ("seen", &json!({"a": "b"})));
    });
}

#[test]
fn large_answers_are_compressed_and_small_ones_are_not() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        for i in 0..4 {
            let big = json!({"metadata": {"name": format!("big{i}")}, "data": {"a": "x".repeat(50_000)}});
            http.create(MAPS, big).await;
        }
        http.create(MAPS, json!({"metadata": {"name": "huge"}, "data": {"a": "y".repeat(200_000)}})).await;
        let gzip = [("accept-encoding", "gzip")];
        for path in [MAPS.to_owned(), format!("{MAPS}/huge")] {
            let (code, body) = http.try_call(Method::GET, &path, "", "".into(), &gzip).await.unwrap();
            assert!(code == 200 && body.starts_with(&[0x1f, 0x8b]), "{path}: {:?}", &body[..20]);
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut text).unwrap();
            let value: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(value, http.get(&path).await.1);
        }
        let (_, small) =
            http.try_call(Method::GET, &format!("{MAPS}?limit=1"), "", "".into(), &gzip).await.unwrap();
        assert!(small.starts_with(b"{"));
    });
}

#[test]
fn what_is_not_served_is_told() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let get = async |accept: &str| {
            http.try_call(Method::GET, MAPS, "", "".into(), &[("accept", accept)]).await.unwrap().0.as_u16()
        };
        assert_eq!(
            (get("text/html").await, get("application/json").await, get(PROTOBUF).await),
            (406, 200, 200)
        );
        assert_eq!(http.call(Method::POST, MAPS, "application/xml", "<a/>").await.0, 415);
        for path in ["/healthz", "/livez", "/readyz", "/version", "/readyz/etcd", "/livez/ping"] {
            let (code, body) = http.try_call(Method::HEAD, path, "", "".into(), &[]).await.unwrap();
            assert_eq!((code.as_u16(), body.len()), (200, 0), "{path}");
        }
        assert_eq!(http.try_call(Method::HEAD, MAPS, "", "".into(), &[]).await.unwrap().0.as_u16(), 405);
        assert_eq!(http.get("/readyz/none").await.0, 404);
    });
}

#[test]
fn fields_that_stand_twice_are_warned_of_or_refused() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let twice = |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"a":"1","a":"2"}}}}"#);
        let post = async |query: &str, media: &str, body: String| {
            http.call(Method::POST, &format!("{MAPS}{query}"), media, body).await
        };
        let (code, made) = post("", "application/json", twice("warned")).await;
        assert_eq!((code, text(&made, "/data/a")), (201, "2"));
        let (code, refused) = post("?fieldValidation=Strict", "application/json", twice("strict")).await;
        assert_eq!(code, 400);
        assert!(
            text(&refused, "/message").contains("strict decoding error: duplicate field \"data.a\""),
            "{refused}"
        );
        let yaml = |name: &str| format!("metadata:\n  name: {name}\ndata:\n  a: \"1\"\n  a: \"2\"\n");
        let (code, made) = post("", "application/yaml", yaml("yaml")).await;
        assert_eq!((code, text(&made, "/data/a")), (201, "2"), "{made}");
        let (code, refused) = post("?fieldValidation=Strict", "application/yaml", yaml("strict")).await;
        assert_eq!(code, 400);
        assert!(text(&refused, "/message").contains("line 5: key \"a\" already set in map"), "{refused}");
    });
}
