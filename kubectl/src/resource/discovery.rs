//! Asks the server what it serves: aggregated discovery, revalidated by ETag and kept on disk for six
//! hours as upstream keeps it; servers without it are asked group by group.

use std::path::PathBuf;

use futures::future::{join, join_all};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Catalog, Resource};
use crate::error::{Error, Result};
use crate::session::{Call, Session};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
const FRESH_FOR_SECONDS: i64 = 6 * 60 * 60;

/// What is kept on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Cached {
    /// Seconds since the epoch.
    fetched: i64,
    /// Answers to `/api` and `/apis`.
    parts: [Part; 2],
}

/// One answer, with the ETag by which it is revalidated.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Part {
    etag: String,
    catalog: Catalog,
}

/// Loads the catalog; `refresh` asks the server even if the cache is young.
pub async fn load(session: &Session, refresh: bool) -> Result<Catalog> {
    let file = cache_file(session).await?;
    let cached: Option<Cached> =
        std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let now = session.clock.now().as_second();
    if let Some(cached) = &cached
        && !refresh
        && (0..FRESH_FOR_SECONDS).contains(&(now - cached.fetched))
    {
        return Ok(joined(cached.parts.clone(), false));
    }
    let old = cached.map(|c| c.parts).unwrap_or_default();
    let (core, groups) = join(ask(session, "/api", &old[0]), ask(session, "/apis", &old[1])).await;
    let parts = [core?, groups?];
    // A cache that cannot be written costs time and nothing else.
    let _ = store(&file, &Cached { fetched: now, parts: parts.clone() });
    Ok(joined(parts, true))
}

fn joined(parts: [Part; 2], fresh: bool) -> Catalog {
    let [mut core, groups] = parts.map(|p| p.catalog);
    core.resources.extend(groups.resources);
    core.versions.extend(groups.versions);
    core.stale.extend(groups.stale);
    core.fresh = fresh;
    core
}

async fn cache_file(session: &Session) -> Result<PathBuf> {
    let root = match (&session.globals.cache_dir, std::env::var_os("KUBECACHEDIR")) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Some(dir)) if !dir.is_empty() => PathBuf::from(dir),
        _ => crate::kubeconfig::home().join(".kube/cache"),
    };
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let server: String = session.server().await?.chars().map(keep).collect();
    Ok(root.join("discovery").join(server).join("aggregated.json"))
}

fn store(file: &std::path::Path, cached: &Cached) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(std::path::Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut temporary, cached)?;
    temporary.persist(file).map_err(|e| e.error)?;
    Ok(())
}

async fn ask(session: &Session, path: &str, old: &Part) -> Result<Part> {
    let mut call = Call::get(path).accept(AGGREGATED);
    if !old.etag.is_empty() {
        call = call.header("If-None-Match", old.etag.clone());
    }
    let answer = match session.respond(&call).await {
        Ok(answer) => answer,
        Err(e) if e.is_not_found() => return Ok(Part::default()),
        Err(e) => return Err(e),
    };
    if answer.status() == http::StatusCode::NOT_MODIFIED {
        return Ok(old.clone());
    }
    let etag = answer.headers().get("etag").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let body = answer.into_body().collect().await.map_err(|e| Error::message(format!("read {path}: {e}")))?;
    let document: Value = serde_json::from_slice(&body.to_bytes())
        .map_err(|e| Error::message(format!("the server's answer to {path} is not JSON: {e}")))?;
    let catalog = match document["kind"].as_str() {
        Some("APIGroupDiscoveryList") => aggregated(&document),
        _ => legacy(session, path, &document).await?,
    };
    Ok(Part { etag, catalog })
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Reads an `APIGroupDiscoveryList`.
fn aggregated(document: &Value) -> Catalog {
    let mut catalog = Catalog::default();
    for item in document["items"].as_array().into_iter().flatten() {
        let group = text(&item["metadata"]["name"]);
        for entry in item["versions"].as_array().into_iter().flatten() {
            let version = text(&entry["version"]);
            let name = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
            if entry["freshness"] == "Stale" {
                catalog.stale.push(name.clone());
            }
            catalog.versions.push(name);
            for found in entry["resources"].as_array().into_iter().flatten() {
                catalog.resources.push(aggregated_resource(&group, &version, found));
            }
        }
    }
    catalog
}

fn aggregated_resource(group: &str, version: &str, found: &Value) -> Resource {
    let kind = text(&found["responseKind"]["kind"]);
    let singular = text(&found["singularResource"]);
    let subresources = found["subresources"].as_array().into_iter().flatten();
    Resource {
        group: group.into(),
        version: version.into(),
        plural: text(&found["resource"]),
        singular: if singular.is_empty() { kind.to_lowercase() } else { singular },
        kind,
        short_names: strings(&found["shortNames"]),
        categories: strings(&found["categories"]),
        namespaced: found["scope"] == "Namespaced",
        verbs: strings(&found["verbs"]),
        subresources: subresources.map(|s| text(&s["subresource"])).collect(),
    }
}

/// Asks for each group's resources in turn, as servers before 1.26 want it.
async fn legacy(session: &Session, path: &str, document: &Value) -> Result<Catalog> {
    let mut versions = Vec::new();
    if path == "/api" {
        versions.extend(strings(&document["versions"]).into_iter().map(|v| (String::new(), v)));
    }
    for group in document["groups"].as_array().into_iter().flatten() {
        let name = text(&group["name"]);
        let preferred = text(&group["preferredVersion"]["version"]);
        let all = group["versions"].as_array().into_iter().flatten().map(|v| text(&v["version"]));
        let mut all: Vec<String> = all.collect();
        all.sort_by_key(|v| *v != preferred);
        versions.extend(all.into_iter().map(|v| (name.clone(), v)));
    }
    let asked = versions.iter().map(|(group, version)| async move {
        let path =
            if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        session.json(&Call::get(path)).await
    });
    let mut catalog = Catalog::default();
    for ((group, version), answer) in versions.iter().zip(join_all(asked).await) {
        let name = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
        match answer {
            Ok(list) => catalog.resources.extend(legacy_resources(group, version, &list)),
            Err(_) => catalog.stale.push(name.clone()),
        }
        catalog.versions.push(name);
    }
    Ok(catalog)
}

fn legacy_resources(group: &str, version: &str, list: &Value) -> Vec<Resource> {
    let mut found: Vec<Resource> = Vec::new();
    for item in list["resources"].as_array().into_iter().flatten() {
        let name = text(&item["name"]);
        if let Some((parent, subresource)) = name.split_once('/') {
            if let Some(parent) = found.iter_mut().find(|r| r.plural == parent) {
                parent.subresources.push(subresource.to_owned());
            }
            continue;
        }
        let kind = text(&item["kind"]);
        let singular = text(&item["singularName"]);
        found.push(Resource {
            group: group.into(),
            version: version.into(),
            plural: name,
            singular: if singular.is_empty() { kind.to_lowercase() } else { singular },
            kind,
            short_names: strings(&item["shortNames"]),
            categories: strings(&item["categories"]),
            namespaced: item["namespaced"] == true,
            verbs: strings(&item["verbs"]),
            subresources: Vec::new(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn aggregated_discovery_is_read() {
        let catalog = aggregated(&json!({"items": [
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "freshness": "Current", "resources": [
                {"resource": "deployments", "responseKind": {"group": "", "version": "", "kind": "Deployment"},
                 "scope": "Namespaced", "singularResource": "deployment", "shortNames": ["deploy"], "verbs": ["get"],
                 "subresources": [{"subresource": "scale", "verbs": ["get"]}]}]}]}]}));
        assert_eq!(catalog.versions, ["apps/v1"]);
        let found = catalog.find("deploy").unwrap();
        assert!(found.namespaced && found.has("scale") && found.can("get"));
        assert_eq!(found.slashed("web"), "deployment.apps/web");
    }

    #[test]
    fn legacy_lists_are_read() {
        let found = legacy_resources(
            "",
            "v1",
            &json!({"resources": [
                {"name": "pods", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": ["list"], "shortNames": ["po"]},
                {"name": "pods/log", "kind": "Pod", "verbs": ["get"]}]}),
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].has("log"));
        assert_eq!(found[0].singular, "pod");
    }
}
