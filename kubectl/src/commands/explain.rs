//! `kubectl explain`: fields of resources, from the server's OpenAPI v3 documents.

use clap::Args;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::output::print;
use crate::session::{Call, Session};

/// Get documentation for a resource
#[derive(Args, Debug)]
pub struct Explain {
    /// TYPE[.FIELD...]
    pub path: String,
    /// Print the names of all fields below
    #[arg(long)]
    pub recursive: bool,
    /// API version to use, such as apps/v1
    #[arg(long)]
    pub api_version: Option<String>,
}

impl Explain {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let mut parts = self.path.split('.');
        let name = parts.next().unwrap_or_default();
        let fields: Vec<&str> = parts.collect();
        let mut resource = session.resource(name).await?;
        if let Some(version) = &self.api_version {
            resource = session.resource_of_kind(version, &resource.kind).await?.ok_or_else(|| {
                Error::message(format!("couldn't find resource for {version:?}, Kind={}", resource.kind))
            })?;
        }
        let index = session.json(&Call::get("/openapi/v3")).await.map_err(|e| match e.is_not_found() {
            true => {
                Error::message("the server does not serve OpenAPI v3 documents, from which explain reads")
            }
            false => e,
        })?;
        let key = match resource.group.is_empty() {
            true => format!("api/{}", resource.version),
            false => format!("apis/{}/{}", resource.group, resource.version),
        };
        let url = index["paths"][&key]["serverRelativeURL"]
            .as_str()
            .map_or_else(|| format!("/openapi/v3/{key}"), str::to_owned);
        let document = session.json(&Call::get(url)).await?;
        let schemas = &document["components"]["schemas"];
        let root = find(schemas, &resource.group, &resource.version, &resource.kind).ok_or_else(|| {
            Error::message(format!("GVR ({}) not found in OpenAPI schema", resource.api_version()))
        })?;
        let mut head = String::new();
        if !resource.group.is_empty() {
            head.push_str(&format!("GROUP:      {}\n", resource.group));
        }
        head.push_str(&format!("KIND:       {}\nVERSION:    {}\n\n", resource.kind, resource.version));
        print(&(head + &page(schemas, root, &fields, self.recursive)?))
    }
}

fn find<'a>(schemas: &'a Value, group: &str, version: &str, kind: &str) -> Option<&'a Value> {
    schemas.as_object()?.values().find(|schema| {
        schema["x-kubernetes-group-version-kind"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|g| g["group"] == group && g["version"] == version && g["kind"] == kind)
    })
}

/// Follows references, and the single-member `allOf` that carries a description beside one.
fn resolved<'a>(schemas: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..16 {
        let reference = schema["$ref"].as_str().or(schema["allOf"][0]["$ref"].as_str());
        match reference.and_then(|r| schemas.get(r.rsplit('/').next().unwrap_or_default())) {
            Some(next) => schema = next,
            None => break,
        }
    }
    schema
}

/// What a list or a map holds, or the schema itself.
fn element<'a>(schemas: &'a Value, schema: &'a Value) -> &'a Value {
    let schema = resolved(schemas, schema);
    if schema["items"].is_object() {
        return element(schemas, &schema["items"]);
    }
    if schema["additionalProperties"].is_object() {
        return element(schemas, &schema["additionalProperties"]);
    }
    schema
}

fn type_name(schemas: &Value, schema: &Value) -> String {
    let reference = schema["$ref"].as_str().or(schema["allOf"][0]["$ref"].as_str());
    let target = resolved(schemas, schema);
    if target["items"].is_object() {
        return format!("[]{}", type_name(schemas, &target["items"]));
    }
    if target["additionalProperties"].is_object() {
        return format!("map[string]{}", type_name(schemas, &target["additionalProperties"]));
    }
    match (reference, target["properties"].is_object()) {
        (Some(reference), true) => reference.rsplit('.').next().unwrap_or_default().into(),
        (Some(reference), false) if reference.ends_with("Quantity") || reference.ends_with("IntOrString") => {
            reference.rsplit('.').next().unwrap_or_default().into()
        }
        _ => target["type"].as_str().unwrap_or("Object").replace("object", "Object"),
    }
}

fn page(schemas: &Value, root: &Value, fields: &[&str], recursive: bool) -> Result<String> {
    let mut schema = root;
    let mut typed = type_name(schemas, root);
    for (i, field) in fields.iter().enumerate() {
        let parent = element(schemas, schema);
        schema = parent["properties"]
            .get(field)
            .ok_or_else(|| Error::message(format!("field {:?} does not exist", fields[..=i].join("."))))?;
        typed = type_name(schemas, schema);
    }
    let mut out = String::new();
    if let Some(field) = fields.last() {
        out.push_str(&format!("FIELD: {field} <{typed}>\n\n"));
    }
    let inner = element(schemas, schema);
    let description = schema["description"].as_str().or(inner["description"].as_str()).unwrap_or("<empty>");
    out.push_str(&format!("DESCRIPTION:\n{}\n", wrapped(description, 4)));
    if inner["properties"].is_object() {
        out.push_str("\nFIELDS:\n");
        list(schemas, inner, recursive, 2, &mut out, &mut Vec::new());
    }
    out.push('\n');
    Ok(out)
}

fn list<'a>(
    schemas: &'a Value,
    schema: &'a Value,
    recursive: bool,
    depth: usize,
    out: &mut String,
    above: &mut Vec<&'a Value>,
) {
    // A schema that contains itself is shown once.
    if above.iter().any(|s| std::ptr::eq(*s, schema)) {
        return;
    }
    above.push(schema);
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let mark = if required.contains(&name.as_str()) { " -required-" } else { "" };
        let pad = " ".repeat(depth);
        out.push_str(&format!("{pad}{name}\t<{}>{mark}\n", type_name(schemas, field)));
        let inner = element(schemas, field);
        if recursive {
            list(schemas, inner, recursive, depth + 2, out, above);
        } else {
            let description =
                field["description"].as_str().or(inner["description"].as_str()).unwrap_or("<empty>");
            out.push_str(&format!("{}\n\n", wrapped(description, depth + 2)));
        }
    }
    above.pop();
}

fn wrapped(text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > 80 {
                lines.push(format!("{pad}{line}"));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(if line.is_empty() { String::new() } else { format!("{pad}{line}") });
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_found_through_references_and_lists() {
        let schemas = json!({
            "io.x.Pod": {"description": "A pod.", "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}],
                "properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/io.x.Spec"}], "description": "What is wanted."}}},
            "io.x.Spec": {"required": ["list"], "properties": {"list": {"type": "array", "items": {"$ref": "#/components/schemas/io.x.Item"}}}},
            "io.x.Item": {"description": "An item.", "properties": {"name": {"type": "string", "description": "Its name."}}}
        });
        let root = find(&schemas, "", "v1", "Pod").unwrap();
        let text = page(&schemas, root, &["spec"], false).unwrap();
        assert!(
            text.contains("FIELD: spec <Spec>") && text.contains("  list\t<[]Item> -required-"),
            "{text}"
        );
        let text = page(&schemas, root, &["spec", "list", "name"], false).unwrap();
        assert!(text.contains("FIELD: name <string>") && text.contains("    Its name."), "{text}");
        assert!(page(&schemas, root, &["nothing"], false).is_err());
    }
}
