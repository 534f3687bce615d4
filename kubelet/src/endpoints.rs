//! What the kubelet shows of itself: health, metrics, and the pods that it knows of.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use component::health::Health;
use component::metrics::Metrics;
use http::{HeaderValue, header};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;

/// `/healthz`, `/livez`, `/readyz`, `/metrics` and `/pods`, a PodList of what `pods` gives.
pub fn router<F>(health: Health, metrics: Metrics, pods: F) -> Router
where
    F: Fn() -> Vec<Arc<Pod>> + Clone + Send + Sync + 'static,
{
    let list = move || {
        let items: Vec<Pod> = pods().iter().map(|pod| (**pod).clone()).collect();
        async move { json(&List { items, ..List::default() }) }
    };
    component::health::router(health, metrics).route("/pods", get(list.clone())).route("/pods/", get(list))
}

fn json(list: &List<Pod>) -> Response {
    match serde_json::to_vec(list) {
        Ok(bytes) => {
            let mut response = bytes.into_response();
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => (http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
