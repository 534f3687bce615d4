//! `kubectl describe`: an object with what belongs to it and its events.

use clap::Args;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::output::{print, warn};
use crate::resource::targets::{self, Filter, Found, Target};
use crate::session::{Call, Session};

mod doc;
mod generic;
mod node;
pub mod pod;
mod simple;
mod workload;

use doc::Doc;

/// Show details of a specific resource or group of resources
#[derive(Args, Debug)]
pub struct Describe {
    /// TYPE [NAME_PREFIX...] or TYPE/NAME...
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// Across all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    pub selector: String,
    /// If true, display events related to the described object
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub show_events: bool,
}

impl Describe {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        if self.args.is_empty() && self.files.is_empty() {
            return Err(Error::message(
                "You must specify the type of resource to describe. Use \"kubectl api-resources\" for a complete list of supported resources.",
            ));
        }
        let (wanted, mut errors) =
            targets::resolve(session, &self.args, &self.files, self.all_namespaces).await?;
        let filter = Filter { labels: self.selector.clone(), ..Filter::default() };
        // What a prefix has found is followed by an empty line, as upstream has it.
        let mut found: Vec<(Found, bool)> = Vec::new();
        for target in &wanted {
            let (objects, failed) = targets::fetch(session, std::slice::from_ref(target), &filter).await;
            found.extend(objects.into_iter().map(|o| (o, false)));
            for error in failed {
                match error.is_not_found() && target.document.is_none() {
                    true => match by_prefix(session, target, &filter).await {
                        Ok(similar) if similar.is_empty() => errors.push(error),
                        Ok(similar) => found.extend(similar.into_iter().map(|o| (o, true))),
                        Err(_) => errors.push(error),
                    },
                    false => errors.push(error),
                }
            }
        }
        if found.is_empty() && errors.is_empty() {
            let namespaced = wanted.iter().any(|t| t.resource.namespaced);
            warn(match self.all_namespaces || !namespaced {
                true => "No resources found".to_owned(),
                false => format!("No resources found in {} namespace.", session.namespace().await?),
            });
        }
        for (i, (one, similar)) in found.iter().enumerate() {
            let between = if i > 0 && !similar { "\n\n" } else { "" };
            let after = if *similar { "\n" } else { "" };
            match self.describe(session, one).await {
                Ok(text) => print(&format!("{between}{text}{after}"))?,
                Err(e) => errors.push(e),
            }
        }
        Error::from_list(errors)
    }

    async fn describe(&self, session: &Session, found: &Found) -> Result<String> {
        let object = &found.object;
        let resource = &found.target.resource;
        let now = session.clock.now();
        let events = match self.show_events {
            true => Some(events_of(session, object).await),
            false => None,
        };
        let mut doc = Doc::default();
        match (resource.group.as_str(), resource.kind.as_str()) {
            ("", "Pod") => pod::describe(&mut doc, object, now),
            ("apps", "Deployment") => {
                let sets = related(session, "replicasets.apps", found).await;
                workload::deployment(&mut doc, object, &sets);
            }
            ("apps", "ReplicaSet") => {
                let pods = related(session, "pods", found).await;
                workload::replica_set(&mut doc, object, &pods);
            }
            ("", "Service") => {
                let slices = endpoint_slices(session, found).await;
                simple::service(&mut doc, object, &slices);
            }
            ("", "Node") => {
                let (pods, lease) = node_parts(session, found).await?;
                node::describe(&mut doc, object, &pods, &lease, now);
            }
            ("", "Namespace") => {
                let name = found.target.name.as_deref().unwrap_or_default();
                let quotas = all_of(session, "resourcequotas", name).await;
                let limits = all_of(session, "limitranges", name).await;
                simple::namespace(&mut doc, object, quotas.as_deref(), limits.as_deref());
            }
            ("", "ConfigMap") => simple::config_map(&mut doc, object),
            ("", "Secret") => simple::secret(&mut doc, object),
            ("", "ServiceAccount") => simple::service_account(&mut doc, object),
            ("", "Endpoints") => simple::endpoints(&mut doc, object),
            _ => generic::describe(&mut doc, object),
        }
        let silent =
            matches!((resource.group.as_str(), resource.kind.as_str()), ("", "Namespace" | "Secret"));
        if let Some(events) = events.filter(|_| !silent) {
            doc.events(&events, now);
        }
        Ok(doc.finish())
    }
}

/// Objects whose names begin with what was asked for.
async fn by_prefix(session: &Session, target: &Target, filter: &Filter) -> Result<Vec<Found>> {
    let prefix = target.name.clone().unwrap_or_default();
    let all = Target { name: None, ..target.clone() };
    let list = targets::list(session, &all, filter).await?;
    let begins = |o: &Value| o["metadata"]["name"].as_str().is_some_and(|n| n.starts_with(&prefix));
    let found = targets::items(&list).into_iter().filter(begins);
    Ok(found.map(|object| Found { target: targets::narrowed(&all, &object), object }).collect())
}

/// The events of an object; a description without them is better than none.
async fn events_of(session: &Session, object: &Value) -> Vec<Value> {
    let meta = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let mut fields = vec![
        format!("involvedObject.name={}", meta("name")),
        format!("involvedObject.kind={}", object["kind"].as_str().unwrap_or_default()),
    ];
    if !meta("namespace").is_empty() {
        fields.push(format!("involvedObject.namespace={}", meta("namespace")));
    }
    // Events of a node carry its name where others carry a uid.
    if object["kind"] != "Node" {
        fields.push(format!("involvedObject.uid={}", meta("uid")));
    }
    let namespace = if meta("namespace").is_empty() { "" } else { meta("namespace") };
    let Ok(resource) = session.resource("events").await else { return Vec::new() };
    let target = Target { resource, name: None, namespace: namespace.into(), document: None };
    match targets::list(session, &target, &Filter { fields: fields.join(","), ..Filter::default() }).await {
        Ok(list) => targets::items(&list),
        Err(_) => Vec::new(),
    }
}

/// The objects of a resource that the object selects and owns.
async fn related(session: &Session, resource: &str, found: &Found) -> Vec<Value> {
    let Ok(resource) = session.resource(resource).await else { return Vec::new() };
    let target = Target { resource, name: None, namespace: found.target.namespace.clone(), document: None };
    let Some(labels) = crate::pods::selector_of(&found.object) else { return Vec::new() };
    let list = targets::list(session, &target, &Filter { labels, ..Filter::default() }).await;
    let uid = &found.object["metadata"]["uid"];
    let owned = |o: &Value| {
        let mut owners = o["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.any(|owner| owner["controller"] == true && &owner["uid"] == uid)
    };
    list.map(|l| targets::items(&l).into_iter().filter(owned).collect()).unwrap_or_default()
}

async fn endpoint_slices(session: &Session, found: &Found) -> Vec<Value> {
    let Ok(resource) = session.resource("endpointslices.discovery.k8s.io").await else { return Vec::new() };
    let target = Target { resource, name: None, namespace: found.target.namespace.clone(), document: None };
    let name = found.target.name.as_deref().unwrap_or_default();
    let filter = Filter { labels: format!("kubernetes.io/service-name={name}"), ..Filter::default() };
    targets::list(session, &target, &filter).await.map(|l| targets::items(&l)).unwrap_or_default()
}

/// Everything of a resource in a namespace; `None` where the server has no such kind.
async fn all_of(session: &Session, resource: &str, namespace: &str) -> Option<Vec<Value>> {
    let resource = session.catalog().await.ok()?.find(resource)?.clone();
    let target = Target { resource, name: None, namespace: namespace.into(), document: None };
    targets::list(session, &target, &Filter::default()).await.ok().map(|l| targets::items(&l))
}

/// The pods of a node that have not ended, and the node's lease or why there is none.
async fn node_parts(session: &Session, found: &Found) -> Result<(Vec<Value>, Result<Value, String>)> {
    let name = found.target.name.as_deref().unwrap_or_default();
    let pods = Target {
        resource: session.resource("pods").await?,
        name: None,
        namespace: String::new(),
        document: None,
    };
    let fields = format!("spec.nodeName={name},status.phase!=Succeeded,status.phase!=Failed");
    let pods = targets::list(session, &pods, &Filter { fields, ..Filter::default() }).await?;
    let lease = match session.resource("leases.coordination.k8s.io").await {
        Ok(resource) => session.json(&Call::get(resource.object_path("kube-node-lease", name))).await,
        Err(e) => Err(e),
    };
    let lease = lease.map_err(|e| match e {
        Error::Status(status) => status.message.unwrap_or_default(),
        other => other.report(),
    });
    Ok((targets::items(&pods), lease))
}
