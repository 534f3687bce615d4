//! What a command is about: `pods`, `pod/web`, `deploy web db`, `pods,services`, `all`, or files.

use serde_json::Value;

use super::Resource;
use crate::error::{Error, Result};
use crate::manifest::{self, Document, FileArgs};
use crate::session::{Call, Session};

/// One thing that a command is about.
#[derive(Debug, Clone)]
pub struct Target {
    /// The resource.
    pub resource: Resource,
    /// The object, or none for all of them.
    pub name: Option<String>,
    /// Where it is; empty for cluster-scoped objects and for all namespaces.
    pub namespace: String,
    /// The manifest that named it, if one did.
    pub document: Option<Document>,
}

impl Target {
    /// The path of the object or the collection.
    pub fn path(&self) -> String {
        match &self.name {
            Some(name) => self.resource.object_path(&self.namespace, name),
            None => self.resource.path(&self.namespace),
        }
    }
}

/// A name as it was typed, before the server is asked what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    resource: String,
    name: Option<String>,
}

/// Splits arguments into resources and names.
pub fn parse(args: &[String]) -> Result<Vec<Wanted>> {
    let Some(first) = args.first() else { return Ok(Vec::new()) };
    if args.iter().any(|a| a.contains('/')) {
        return args.iter().map(|a| parse_slashed(a, args)).collect();
    }
    let resources: Vec<&str> = first.split(',').map(str::trim).filter(|r| !r.is_empty()).collect();
    if resources.is_empty() {
        return Err(Error::message("you must specify the type of resource"));
    }
    let names = &args[1..];
    let mut wanted = Vec::new();
    for resource in resources {
        if names.is_empty() {
            wanted.push(Wanted { resource: resource.into(), name: None });
        }
        wanted.extend(names.iter().map(|n| Wanted { resource: resource.into(), name: Some(n.clone()) }));
    }
    Ok(wanted)
}

fn parse_slashed(arg: &str, args: &[String]) -> Result<Wanted> {
    let mut parts = arg.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(resource), Some(name), None) if !resource.is_empty() && !name.is_empty() => {
            Ok(Wanted { resource: resource.into(), name: Some(name.into()) })
        }
        (Some(_), Some(_), None) => Err(Error::message(
            "arguments in resource/name form may not have more than one slash or be empty",
        )),
        (Some(_), None, _) => Err(Error::message(format!(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'\nargument {arg:?} of {} arguments has no slash",
            args.len()
        ))),
        _ => Err(Error::message("arguments in resource/name form may not have more than one slash")),
    }
}

/// Finds out what the arguments and the files mean. What is wrong with single documents comes back
/// beside the good ones.
pub async fn resolve(
    session: &Session,
    args: &[String],
    files: &FileArgs,
    all_namespaces: bool,
) -> Result<(Vec<Target>, Vec<Error>)> {
    if !args.is_empty() && !files.is_empty() {
        return Err(Error::message(
            "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
        ));
    }
    if !files.is_empty() {
        let loaded = manifest::load(session, files).await?;
        let mut errors = loaded.errors;
        let mut targets = Vec::new();
        for document in loaded.documents {
            match of_document(session, document).await {
                Ok(target) => targets.push(target),
                Err(e) => errors.push(e),
            }
        }
        return Ok((targets, errors));
    }
    let mut targets = Vec::new();
    let namespace = if all_namespaces { "" } else { session.namespace().await? };
    for wanted in parse(args)? {
        for resource in meaning(session, &wanted).await? {
            if all_namespaces && wanted.name.is_some() && resource.namespaced {
                return Err(Error::message("a resource cannot be retrieved by name across all namespaces"));
            }
            let namespace = if resource.namespaced { namespace.to_owned() } else { String::new() };
            targets.push(Target { resource, name: wanted.name.clone(), namespace, document: None });
        }
    }
    Ok((targets, Vec::new()))
}

async fn meaning(session: &Session, wanted: &Wanted) -> Result<Vec<Resource>> {
    let catalog = session.catalog().await?;
    if catalog.find(&wanted.resource).is_none() {
        let category = catalog.category(&wanted.resource);
        if !category.is_empty() {
            return Ok(category.into_iter().cloned().collect());
        }
    }
    match session.resource(&wanted.resource).await {
        Ok(resource) => Ok(vec![resource]),
        Err(e) => {
            let fresh = session.fresh_catalog().await?;
            let category = fresh.category(&wanted.resource);
            if category.is_empty() { Err(e) } else { Ok(category.into_iter().cloned().collect()) }
        }
    }
}

/// The target of a manifest; its namespace is filled in and must agree with -n.
pub async fn of_document(session: &Session, mut document: Document) -> Result<Target> {
    let (api_version, kind) = (document.api_version().to_owned(), document.kind().to_owned());
    let Some(resource) = session.resource_of_kind(&api_version, &kind).await? else {
        return Err(Error::message(format!(
            "resource mapping not found for name: {:?} namespace: {:?} from {:?}: no matches for kind {kind:?} in version {api_version:?}\nensure CRDs are installed first",
            document.name(),
            document.namespace(),
            document.source
        )));
    };
    let mut namespace = String::new();
    if resource.namespaced {
        let ours = session.namespace().await?;
        let theirs = document.namespace();
        if session.enforces_namespace() && !theirs.is_empty() && theirs != ours {
            return Err(Error::message(format!(
                "the namespace from the provided object {theirs:?} does not match the namespace {ours:?}. You must pass '--namespace={theirs}' to perform this operation."
            )));
        }
        namespace = if theirs.is_empty() { ours.to_owned() } else { theirs.to_owned() };
        if !document.value["metadata"].is_object() {
            document.value["metadata"] = serde_json::json!({});
        }
        document.value["metadata"]["namespace"] = Value::String(namespace.clone());
    }
    let name = Some(document.name().to_owned()).filter(|n| !n.is_empty());
    Ok(Target { resource, name, namespace, document: Some(document) })
}

/// Which objects of a collection.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// `-l`.
    pub labels: String,
    /// `--field-selector`.
    pub fields: String,
}

/// An object with the target by which it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its resource, name and namespace.
    pub target: Target,
    /// The object.
    pub object: Value,
}

/// Reads everything that the targets mean, one object each; failures are collected.
pub async fn fetch(session: &Session, targets: &[Target], filter: &Filter) -> (Vec<Found>, Vec<Error>) {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for target in targets {
        let outcome = match target.name {
            Some(_) => session.json(&Call::get(target.path())).await.map(|object| vec![object]),
            None if target.document.is_some() => Err(Error::message("resource name may not be empty")),
            None => list(session, target, filter).await.map(|list| items(&list)),
        };
        match outcome {
            Ok(objects) => found.extend(
                objects.into_iter().map(|object| Found { target: narrowed(target, &object), object }),
            ),
            Err(e) => errors.push(e),
        }
    }
    (found, errors)
}

/// The target of one object out of a collection.
pub fn narrowed(target: &Target, object: &Value) -> Target {
    let meta = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    Target {
        name: Some(meta("name")),
        namespace: if target.resource.namespaced { meta("namespace") } else { String::new() },
        ..target.clone()
    }
}

/// A whole collection, page by page.
pub async fn list(session: &Session, target: &Target, filter: &Filter) -> Result<Value> {
    pages(session, &collection(target, filter), 500).await
}

/// The request for a collection.
pub fn collection(target: &Target, filter: &Filter) -> Call {
    Call::get(target.resource.path(&target.namespace))
        .query("labelSelector", filter.labels.clone())
        .query("fieldSelector", filter.fields.clone())
}

/// Follows `metadata.continue` to the end; rows or items come back as one document.
pub async fn pages(session: &Session, call: &Call, limit: u64) -> Result<Value> {
    let limited = |call: &Call| match limit {
        0 => call.clone(),
        n => call.clone().query("limit", n.to_string()),
    };
    let mut whole = session.json(&limited(call)).await?;
    loop {
        let token = whole["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            return Ok(whole);
        }
        let page = match session.json(&limited(call).query("continue", token)).await {
            Err(e) if e.is_expired() => return session.json(call).await,
            other => other?,
        };
        for field in ["items", "rows"] {
            if let (Some(have), Some(more)) = (whole[field].as_array_mut(), page[field].as_array()) {
                have.extend(more.iter().cloned());
            }
        }
        whole["metadata"] = page["metadata"].clone();
    }
}

/// The items of a list, each with the `apiVersion` and `kind` that lists leave out.
pub fn items(list: &Value) -> Vec<Value> {
    let kind = list["kind"].as_str().unwrap_or_default();
    let kind = kind.strip_suffix("List").unwrap_or(kind);
    let mut items: Vec<Value> = list["items"].as_array().cloned().unwrap_or_default();
    for item in &mut items {
        if item["kind"].is_null() {
            item["kind"] = Value::String(kind.into());
        }
        if item["apiVersion"].is_null() {
            item["apiVersion"] = list["apiVersion"].clone();
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(args: &[&str], want: &str) {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let found = match parse(&args) {
            Ok(wanted) => {
                let shown: Vec<String> = wanted
                    .into_iter()
                    .map(|w| format!("{}/{}", w.resource, w.name.unwrap_or_default()))
                    .collect();
                shown.join(" ")
            }
            Err(e) => e.report().lines().next().unwrap_or_default().to_owned(),
        };
        assert_eq!(found, want);
    }

    #[test]
    fn arguments_name_types_and_objects() {
        check(&["pods"], "pods/");
        check(&["pods,svc"], "pods/ svc/");
        check(&["pods", "a", "b"], "pods/a pods/b");
        check(&["po,svc", "a"], "po/a svc/a");
        check(&["pod/a", "svc/b"], "pod/a svc/b");
        check(&["pod/a/b"], "error: arguments in resource/name form may not have more than one slash");
        check(&[","], "error: you must specify the type of resource");
        assert!(parse(&["pods".into(), "pod/a".into()]).is_err());
    }
}
