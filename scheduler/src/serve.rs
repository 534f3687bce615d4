//! The secure port: health, metrics, and `/debug/decisions/NAMESPACE/NAME`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use component::health::Peer;

use crate::run::Shared;

/// The last decision about a pod, for administrators.
pub fn router(shared: Shared) -> Router {
    Router::new().route("/debug/decisions/{namespace}/{name}", get(decision)).with_state(shared)
}

async fn decision(
    State(shared): State<Shared>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(peer): Extension<Peer>,
) -> Response {
    if let Err(refusal) = allowed(&peer) {
        return refusal.into_response();
    }
    let key = api::meta::key_of(&namespace, &name);
    match shared.lock().explain(&key) {
        Some(decision) => Json(decision).into_response(),
        None => {
            (StatusCode::NOT_FOUND, format!("no decision about pod {key:?} is kept here\n")).into_response()
        }
    }
}

/// Pods' names and nodes' states are for administrators. Without TLS the port is on loopback alone.
fn allowed(peer: &Peer) -> Result<(), (StatusCode, &'static str)> {
    match peer {
        Peer::Plain => Ok(()),
        Peer::Known(identity) if identity.groups.iter().any(|group| group == "system:masters") => Ok(()),
        Peer::Known(_) => Err((StatusCode::FORBIDDEN, "Forbidden\n")),
        Peer::Anonymous => Err((StatusCode::UNAUTHORIZED, "Unauthorized\n")),
    }
}

#[cfg(test)]
mod tests {
    use component::tls::Identity;

    use super::*;

    #[test]
    fn decisions_are_shown_to_administrators_alone() {
        let known = |group: &str| Peer::Known(Identity { user: "u".into(), groups: vec![group.into()] });
        let code = |peer: Peer| allowed(&peer).err().map(|(code, _)| code.as_u16());
        assert_eq!(code(known("system:masters")), None);
        assert_eq!(code(known("system:nodes")), Some(403));
        assert_eq!(code(Peer::Anonymous), Some(401));
    }
}
