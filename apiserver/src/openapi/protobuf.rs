//! The second version's definitions as protocol buffers, which upstream's kubectl takes alone.
//!
//! The messages are those of gnostic's `openapi.v2`, as far as clients read them: definitions, and of the paths which
//! query parameters an operation takes, by which kubectl before 1.27 finds out whether a kind may be written dryly.

use prost::Message;
use serde_json::Value;

/// The media types by which clients ask for it. The first is an old mistake: a media type holds no `@`.
pub const ASKED: [&str; 2] = ["application/com.github.proto-openapi.spec.v2@v1.0+protobuf", MEDIA_TYPE];
/// The media type under which it is answered.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Schemas>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    named: Vec<NamedPath>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPath {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, repeated, tag = "13")]
    extensions: Vec<NamedAny>,
}

/// A parameter lies within three messages that say of which sort it is.
#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "2")]
    without_body: Option<NonBodyParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    query: Option<QueryParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    kind: String,
}

/// `Definitions` and `Properties` alike.
#[derive(Clone, PartialEq, Message)]
struct Schemas {
    #[prost(message, repeated, tag = "1")]
    named: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, optional, boxed, tag = "21")]
    additional_properties: Option<Box<OneSchema>>,
    #[prost(message, optional, tag = "22")]
    kind: Option<Texts>,
    #[prost(message, optional, tag = "23")]
    items: Option<Items>,
    #[prost(message, optional, tag = "25")]
    properties: Option<Schemas>,
    #[prost(message, repeated, tag = "31")]
    extensions: Vec<NamedAny>,
}

/// `AdditionalPropertiesItem`.
#[derive(Clone, PartialEq, Message)]
struct OneSchema {
    #[prost(message, optional, boxed, tag = "1")]
    schema: Option<Box<Schema>>,
}

#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    schemas: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
}

/// Encodes a document of the second version.
pub fn encode(document: &Value) -> Vec<u8> {
    let info = Info { title: text(&document["info"]["title"]), version: text(&document["info"]["version"]) };
    let definitions = schemas(&document["definitions"]);
    let named = document["paths"].as_object().into_iter().flatten();
    let named = named.map(|(name, item)| NamedPath { name: name.clone(), value: Some(path_item(item)) });
    let paths = Some(Paths { named: named.collect() });
    Document { swagger: text(&document["swagger"]), info: Some(info), paths, definitions }.encode_to_vec()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn path_item(value: &Value) -> PathItem {
    let of = |method: &str| value.get(method).map(operation);
    PathItem { get: of("get"), put: of("put"), post: of("post"), delete: of("delete"), patch: of("patch") }
}

fn operation(value: &Value) -> Operation {
    let parameters = value["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query");
    let parameter = |value: &Value| {
        let query =
            QueryParameter { place: "query".into(), name: text(&value["name"]), kind: text(&value["type"]) };
        let without_body = Some(NonBodyParameter { query: Some(query) });
        ParametersItem { parameter: Some(Parameter { without_body }) }
    };
    Operation { parameters: parameters.map(parameter).collect(), extensions: extensions(value) }
}

fn schemas(value: &Value) -> Option<Schemas> {
    let named = value.as_object()?.iter();
    let named = named.map(|(name, value)| NamedSchema { name: name.clone(), value: Some(schema(value)) });
    Some(Schemas { named: named.collect() })
}

fn schema(value: &Value) -> Schema {
    // Here a reference may stand beside extensions, and clients expect it so.
    let reference = value.get("$ref").unwrap_or(&value["allOf"][0]["$ref"]);
    let one = |value: &Value| OneSchema { schema: Some(Box::new(schema(value))) };
    Schema {
        reference: text(reference),
        format: text(&value["format"]),
        description: text(&value["description"]),
        required: value["required"].as_array().into_iter().flatten().map(text).collect(),
        additional_properties: value.get("additionalProperties").map(|of| Box::new(one(of))),
        kind: value.get("type").map(|kind| Texts { values: vec![text(kind)] }),
        items: value.get("items").map(|of| Items { schemas: vec![schema(of)] }),
        properties: value.get("properties").and_then(schemas),
        extensions: extensions(value),
    }
}

/// What begins with `x-`. JSON is YAML.
fn extensions(value: &Value) -> Vec<NamedAny> {
    let named = value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
    named
        .map(|(name, value)| NamedAny { name: name.clone(), value: Some(Any { yaml: value.to_string() }) })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_clients_read_is_where_they_look_for_it() {
        let document = json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": "v1"},
            "paths": {"/a/{name}": {"patch": {
                "parameters": [{"name": "dryRun", "in": "query", "type": "string"}, {"name": "body", "in": "body"}],
                "x-kubernetes-group-version-kind": {"group": "", "kind": "B", "version": "v1"},
            }}},
            "definitions": {"a.B": {
                "type": "object",
                "properties": {
                    "list": {"type": "array", "items": {"$ref": "#/definitions/a.C"}, "x-kubernetes-patch-strategy": "merge"},
                    "map": {"type": "object", "additionalProperties": {"type": "string"}},
                    "strategy": {"allOf": [{"$ref": "#/definitions/a.C"}], "x-kubernetes-patch-strategy": "retainKeys"},
                },
                "x-kubernetes-group-version-kind": [{"group": "", "kind": "B", "version": "v1"}],
            }},
        });
        let back = Document::decode(encode(&document).as_slice()).unwrap();
        assert_eq!(back.swagger, "2.0");
        let path = back.paths.unwrap().named.remove(0);
        let patch = path.value.unwrap().patch.unwrap();
        let query = patch.parameters[0].parameter.clone().unwrap().without_body.unwrap().query.unwrap();
        assert_eq!(
            (path.name.as_str(), query.name.as_str(), patch.parameters.len()),
            ("/a/{name}", "dryRun", 1)
        );
        assert_eq!(patch.extensions[0].name, "x-kubernetes-group-version-kind");
        let definition = back.definitions.unwrap().named.remove(0);
        let schema = definition.value.unwrap();
        assert_eq!(
            (definition.name.as_str(), schema.kind.unwrap().values),
            ("a.B", vec!["object".to_owned()])
        );
        assert_eq!(schema.extensions[0].name, "x-kubernetes-group-version-kind");
        assert!(schema.extensions[0].value.as_ref().unwrap().yaml.contains("\"kind\":\"B\""));
        let properties = schema.properties.unwrap().named;
        let of = |name: &str| properties.iter().find(|p| p.name == name).unwrap().value.clone().unwrap();
        assert_eq!(of("list").items.unwrap().schemas[0].reference, "#/definitions/a.C");
        assert_eq!(of("map").additional_properties.unwrap().schema.unwrap().kind.unwrap().values, ["string"]);
        assert_eq!(of("strategy").reference, "#/definitions/a.C");
        assert_eq!(of("strategy").extensions[0].value.as_ref().unwrap().yaml, "\"retainKeys\"");
    }
}
