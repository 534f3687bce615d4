//! Bodies as kubectl writes them, and bytes as nobody does.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::Definitions;

const DEPLOYMENT: &str = "\
        6b3873000a150a07617070732f7631120a4465706c6f796d656e7412ba010a1f0a0377656212001a0022002a00320038\
        0042005a0a0a0361707012037765621288010800120c0a0a0a0361707012037765621a6e0a1c0a0012001a0022002a00\
        3200380042005a0a0a036170701203776562124e12300a056e67696e7812076e67696e783a312a00320a0a0010001850\
        22002a0042006a007200800100880100900100a201001a00320042004a0052005800600068008201008a01009a0100c2\
        010022020a00280038001a0c0800100018002000280038001a002200";
const SERVICE: &str = "\
        6b3873000a0d0a02763112075365727669636512670a1b0a016112001a0022002a003200380042005a080a0361707012\
        016112440a200a0738302d6874747012035443501850220a080110001a04687474702887ed0112080a03617070120161\
        1a0022084e6f6465506f72743a00420052005a00600068001a020a001a002200";
const SECRET: &str = "\
        6b3873000a0c0a0276311206536563726574121d0a110a017312001a0022002a0032003800420012060a01611201621a\
        001a002200";
const NAMESPACE: &str = "\
        6b3873000a0f0a02763112094e616d65737061636512190a110a016e12001a0022002a0032003800420012001a020a00\
        1a002200";
const CONFIG_MAP: &str = "\
        6b3873000a0f0a0276311209436f6e6669674d6170121b0a110a016312001a0022002a0032003800420012060a016112\
        01621a002200";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

#[track_caller]
fn check(hex: &str, expected: Value) {
    assert_eq!(decode(&bytes(hex)), Ok(expected));
}

#[test]
fn every_field_of_every_type_has_a_number() {
    let mut definitions = Definitions::new();
    for kind in KINDS {
        crate::schema::add(&mut definitions, &(kind.type_name)());
    }
    for (name, fields) in &definitions {
        let line = TABLE.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in the table"));
        let known: Vec<&str> = line.split(' ').filter_map(|field| field.split('=').next()).collect();
        let root = fields.contains_key("metadata") && fields.contains_key("apiVersion");
        for field in fields.keys().filter(|field| !(root && matches!(**field, "apiVersion" | "kind"))) {
            assert!(known.contains(field), "{name}.{field}");
        }
    }
}

#[test]
fn kubectl_creates_in_this_encoding() {
    check(
        DEPLOYMENT,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "strategy": {},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                    {"name": "nginx", "image": "nginx:1", "ports": [{"containerPort": 80}], "resources": {}}]}}},
            "status": {"replicas": 0}}),
    );
    check(
        SERVICE,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {"app": "a"}},
            "spec": {"type": "NodePort", "selector": {"app": "a"},
                "ports": [{"name": "80-http", "protocol": "TCP", "port": 80, "targetPort": "http", "nodePort": 30343}]},
            "status": {"loadBalancer": {}}}),
    );
    check(
        SECRET,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "Yg=="}}),
    );
    check(
        CONFIG_MAP,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}),
    );
    check(
        NAMESPACE,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}, "spec": {}, "status": {}}),
    );
}

fn number(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
    out
}

/// A field of a message: its number, wire type 2, and its content.
fn field(tag: usize, content: &[u8]) -> Vec<u8> {
    [number(tag << 3 | 2), number(content.len()), content.to_vec()].concat()
}

fn body(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &meta), field(2, message)].concat()
}

#[test]
fn fields_that_stand_beside_others_in_json_are_messages_of_their_own() {
    // A volume's source, and the name in a reference to a key.
    let map = field(19, &field(1, &field(1, b"web")));
    let volume = [field(1, b"v"), field(2, &map)].concat();
    let pod = field(2, &field(1, &volume));
    let decoded = decode(&body("v1", "Pod", &pod)).unwrap();
    assert_eq!(decoded["spec"]["volumes"], json!([{"name": "v", "configMap": {"name": "web"}}]));
}

#[test]
fn times_amounts_and_numbers_have_their_json_forms() {
    let time = field(8, &[0x08, 0x80, 0x94, 0xeb, 0xdc, 0x03, 0x10, 0x00]);
    let meta = [field(1, b"p"), time].concat();
    let limits = field(1, &[field(1, b"cpu"), field(2, &field(1, b"100m"))].concat());
    let container = [field(1, b"c"), field(8, &limits)].concat();
    let spec = [field(2, &container), vec![4 << 3, 0]].concat();
    let pod = [field(1, &meta), field(2, &spec)].concat();
    let decoded = decode(&body("v1", "Pod", &pod)).unwrap();
    assert_eq!(decoded["metadata"]["creationTimestamp"], "2001-09-09T01:46:40Z");
    assert_eq!(decoded["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "100m"}}));
    assert_eq!(decoded["spec"]["terminationGracePeriodSeconds"], 0);
}

#[test]
fn options_of_a_deletion_belong_to_every_version() {
    let decoded = decode(&body("apps/v1", "DeleteOptions", &[0x08, 0x00, 0x22, 0x03, b'F', b'o', b'o']));
    let expected = json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Foo"});
    assert_eq!(decoded, Ok(expected));
}

#[test]
fn what_is_wrong_is_told() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
    assert_eq!(decode(b""), Err(ProtobufError::Magic));
    assert_eq!(decode(&body("v1", "Unicorn", b"")), Err(ProtobufError::Kind("v1".into(), "Unicorn".into())));
    assert_eq!(decode(&body("v1", "Pod", &[0x0a, 0x7f])), Err(ProtobufError::Malformed));
    assert_eq!(decode(&body("v1", "Pod", &[0x08, 0x01])), Err(ProtobufError::WireType("metadata".into())));
    assert_eq!(
        decode(&body("v1", "Pod", &field(1, &field(1, &[0xff])))),
        Err(ProtobufError::Utf8("name".into()))
    );
}

proptest! {
    #[test]
    fn decoding_never_panics(message in prop::collection::vec(any::<u8>(), 0..200), kind in prop::sample::select(vec!["Pod", "Service", "Secret"])) {
        let _ = decode(&body("v1", kind, &message));
        let _ = decode(&message);
    }

    #[test]
    fn a_damaged_body_never_panics(at in 0usize..300, to in any::<u8>()) {
        let mut damaged = bytes(DEPLOYMENT);
        let at = at % damaged.len();
        damaged[at] = to;
        let _ = decode(&damaged);
        let _ = decode(&damaged[..at]);
    }
}

#[test]
fn what_is_encoded_is_decoded_again() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}, "creationTimestamp": "2001-09-09T01:46:40Z", "generation": 3,
            "managedFields": [{"manager": "m", "operation": "Apply", "fieldsV1": {"f:spec": {}}}]},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "100m"}}, "securityContext": {"privileged": false},
                "livenessProbe": {"httpGet": {"port": 80, "path": "/"}, "periodSeconds": 5}, "args": ["a", "b"]}],
            "volumes": [{"name": "v", "configMap": {"name": "web", "optional": false}}],
            "tolerations": [{"key": "k", "tolerationSeconds": -1}], "terminationGracePeriodSeconds": 0, "hostNetwork": true}});
    assert_eq!(decode(&encode(&pod).unwrap()), Ok(pod));
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "AAEC", "b": ""}});
    assert_eq!(decode(&encode(&secret).unwrap()), Ok(secret));
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "d"},
        "spec": {"group": "g", "versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "list": {"type": "array", "items": {"type": "string", "default": "x"}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "open": {"type": "object", "additionalProperties": true}}}}}]}});
    assert_eq!(decode(&encode(&definition).unwrap()), Ok(definition));
    assert_eq!(encode(&json!({"apiVersion": "example.com/v1", "kind": "Unicorn"})), None);
    assert!(knows("apps/v1", "Deployment") && !knows("apps/v1", "Unicorn"));
}
