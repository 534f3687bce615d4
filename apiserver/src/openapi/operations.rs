//! The operations of a kind's paths.

use api::kinds::Nature;
use api::{Kind, Subresource};
use serde_json::{Map, Value, json};

use crate::discovery::verbs::of_subresource;

/// The versions of OpenAPI, which write parameters and bodies differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

const PATCHES: [&str; 4] = [
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];
/// Parameters of writes, of reads of many, and of deletions: name, type, what it does.
const WRITE: &[(&str, &str, &str)] = &[
    ("dryRun", "string", "All: check everything and write nothing."),
    ("fieldManager", "string", "Who makes the change."),
    ("fieldValidation", "string", "What to do about unknown fields: Ignore, Warn or Strict."),
];
const PATCH: &[(&str, &str, &str)] = &[
    WRITE[0],
    WRITE[1],
    WRITE[2],
    ("force", "boolean", "Of an apply: takes fields from those who own them."),
];
const LIST: &[(&str, &str, &str)] = &[
    ("allowWatchBookmarks", "boolean", "Whether a watch is told of versions without an event."),
    ("continue", "string", "Where the list before ended."),
    ("fieldSelector", "string", "Restricts by fields."),
    ("labelSelector", "string", "Restricts by labels."),
    ("limit", "integer", "The most objects in one answer."),
    ("resourceVersion", "string", "How fresh the answer must be, or where a watch begins."),
    ("resourceVersionMatch", "string", "NotOlderThan or Exact."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with the present objects."),
    ("timeoutSeconds", "integer", "When the answer ends at the latest."),
    ("watch", "boolean", "Changes as they happen rather than a list."),
];
const DELETE: &[(&str, &str, &str)] = &[
    ("dryRun", "string", "All: check everything and write nothing."),
    ("gracePeriodSeconds", "integer", "How long the object may take to end."),
    ("propagationPolicy", "string", "Orphan, Background or Foreground."),
];

/// The paths of a kind, each with its operations.
pub fn of(kind: &Kind, dialect: Dialect) -> Map<String, Value> {
    let root = super::base(kind);
    let mut paths = Map::new();
    let place = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{root}{place}/{}", kind.plural);
    let mut many = path_item(kind, dialect, false);
    if kind.nature == Nature::Review {
        many.insert("post".into(), operation(kind, dialect, "post", WRITE, Some(&["application/json"])));
        paths.insert(collection, Value::Object(many));
        return paths;
    }
    many.insert("get".into(), operation(kind, dialect, "list", LIST, None));
    many.insert("post".into(), operation(kind, dialect, "post", WRITE, Some(&["application/json"])));
    if kind.kind != "Namespace" {
        many.insert("delete".into(), operation(kind, dialect, "deletecollection", DELETE, None));
    }
    paths.insert(collection.clone(), Value::Object(many));
    if kind.namespaced {
        let get = operation(kind, dialect, "list", LIST, None);
        paths.insert(format!("/{root}/{}", kind.plural), json!({"get": get}));
    }
    // How a custom kind's lists merge strategically is said nowhere.
    let patches = if kind.custom.is_some() { &PATCHES[1..] } else { &PATCHES[..] };
    let mut one = path_item(kind, dialect, true);
    one.insert("get".into(), operation(kind, dialect, "get", &[], None));
    one.insert("put".into(), operation(kind, dialect, "put", WRITE, Some(&["application/json"])));
    one.insert("patch".into(), operation(kind, dialect, "patch", PATCH, Some(patches)));
    one.insert("delete".into(), operation(kind, dialect, "delete", DELETE, None));
    paths.insert(format!("{collection}/{{name}}"), Value::Object(one));
    for subresource in kind.subresources {
        let facet = of_subresource(kind, *subresource);
        let mut item = path_item(kind, dialect, true);
        for verb in facet.verbs {
            let (method, body): (&str, Option<&[&str]>) = match *verb {
                "create" => ("post", Some(&["application/json"])),
                "update" => ("put", Some(&["application/json"])),
                "patch" => ("patch", Some(patches)),
                "delete" => ("delete", None),
                _ => ("get", None),
            };
            // What is sent and answered there is anybody's.
            let body = body.filter(|_| *subresource != Subresource::Proxy);
            let parameters = match method {
                "patch" if body.is_some() => PATCH,
                _ if body.is_some() => WRITE,
                _ => &[],
            };
            let mut operation = operation(kind, dialect, method, parameters, body);
            if let Some((group, version, kind)) = facet.kind {
                operation["x-kubernetes-group-version-kind"] =
                    json!({"group": group, "version": version, "kind": kind});
            }
            item.insert(method.into(), operation);
        }
        paths.insert(format!("{collection}/{{name}}/{}", subresource.path()), Value::Object(item));
    }
    paths
}

/// What all operations of a path share: the parameters in the path itself.
fn path_item(kind: &Kind, dialect: Dialect, named: bool) -> Map<String, Value> {
    let mut parameters = Vec::new();
    if named {
        parameters.push(parameter(dialect, "path", "name", "string", "The name of the object."));
    }
    if kind.namespaced {
        parameters.push(parameter(dialect, "path", "namespace", "string", "The namespace of the object."));
    }
    let mut item = Map::new();
    if !parameters.is_empty() {
        item.insert("parameters".into(), Value::Array(parameters));
    }
    item
}

fn parameter(dialect: Dialect, place: &str, name: &str, type_: &str, description: &str) -> Value {
    let mut parameter = json!({"name": name, "in": place, "description": description});
    match dialect {
        Dialect::V2 => {
            parameter["type"] = type_.into();
            parameter["uniqueItems"] = true.into();
        }
        Dialect::V3 => parameter["schema"] = json!({"type": type_, "uniqueItems": true}),
    }
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

fn operation(
    kind: &Kind,
    dialect: Dialect,
    action: &str,
    parameters: &[(&str, &str, &str)],
    body: Option<&[&str]>,
) -> Value {
    let mut list: Vec<Value> =
        parameters.iter().map(|(name, type_, text)| parameter(dialect, "query", name, type_, text)).collect();
    let mut operation = json!({
        "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
    });
    match (dialect, body) {
        (Dialect::V3, Some(types)) => {
            let content: Map<String, Value> =
                types.iter().map(|t| ((*t).to_owned(), json!({"schema": {"type": "object"}}))).collect();
            operation["requestBody"] = json!({"required": true, "content": content});
        }
        (Dialect::V2, Some(types)) => {
            operation["consumes"] = json!(types);
            operation["produces"] = json!(["application/json"]);
            list.push(json!({"name": "body", "in": "body", "required": true, "schema": {"type": "object"}}));
        }
        (_, None) => {}
    }
    if !list.is_empty() {
        operation["parameters"] = Value::Array(list);
    }
    operation
}
