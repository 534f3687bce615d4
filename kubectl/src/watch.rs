//! Waits on one object: reads it, then follows its changes, resuming where the server breaks off.

use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::resource::targets::Target;
use crate::session::{Call, Session};

/// How long to wait before asking again after a failure that may pass.
const RETRY: Duration = Duration::from_millis(500);

/// Shows every state of an object to `see` (`None`: it does not exist) until that answers or the time
/// is up, which is `None`.
pub async fn until<T>(
    session: &Session,
    target: &Target,
    limit: Option<Duration>,
    see: impl FnMut(Option<&Value>) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let watching = follow(session, target, see);
    match limit {
        Some(limit) => tokio::time::timeout(limit, watching).await.unwrap_or(Ok(None)),
        None => watching.await,
    }
}

async fn follow<T>(
    session: &Session,
    target: &Target,
    mut see: impl FnMut(Option<&Value>) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let name = target.name.clone().unwrap_or_default();
    let selector = format!("metadata.name={name}");
    let collection =
        || Call::get(target.resource.path(&target.namespace)).query("fieldSelector", selector.clone());
    loop {
        let list = session.json(&collection()).await?;
        let listed = crate::resource::targets::items(&list);
        let object = listed.iter().find(|i| i["metadata"]["name"] == name.as_str());
        if let Some(done) = see(object)? {
            return Ok(Some(done));
        }
        let mut version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        loop {
            let call = collection().query("watch", "true").query("resourceVersion", version.clone());
            let mut events = match session.watch(&call).await {
                Ok(events) => events,
                Err(e) if e.is_expired() => break,
                Err(e) => return Err(e),
            };
            let mut seen = false;
            while let Some(event) = events.next().await? {
                let object = &event["object"];
                if event["type"] == "ERROR" {
                    let error = error_of(object);
                    if error.is_expired() {
                        version.clear();
                        break;
                    }
                    return Err(error);
                }
                seen = true;
                if let Some(v) = object["metadata"]["resourceVersion"].as_str() {
                    v.clone_into(&mut version);
                }
                if event["type"] == "BOOKMARK" || object["metadata"]["name"] != name.as_str() {
                    continue;
                }
                let state = (event["type"] != "DELETED").then_some(object);
                if let Some(done) = see(state)? {
                    return Ok(Some(done));
                }
            }
            if version.is_empty() {
                break;
            }
            if !seen {
                tokio::time::sleep(RETRY).await;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The error that an ERROR event carries.
pub fn error_of(status: &Value) -> Error {
    match serde_json::from_value(status.clone()) {
        Ok(status) => Error::Status(Box::new(status)),
        Err(_) => Error::message(format!("the watch failed: {status}")),
    }
}
