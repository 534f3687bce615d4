//! In which form a client wants its answer.

use api::status::StatusError;
use http::HeaderMap;
use http::header::ACCEPT;

/// The forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The objects themselves.
    Objects,
    /// The objects themselves, in the binary encoding.
    Protobuf,
    /// A `meta.k8s.io/v1` Table.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata, or a list of them.
    Metadata,
}

/// Chooses the first form in the `Accept` header that can be served. `binary` tells whether the kind has the binary
/// encoding.
///
/// # Errors
/// 406 when there is none.
pub fn form(headers: &HeaderMap, binary: bool) -> Result<Form, StatusError> {
    let accepted: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let accepted = accepted.join(",");
    if accepted.trim().is_empty() {
        return Ok(Form::Objects);
    }
    accepted.split(',').find_map(|clause| one(clause, binary)).ok_or_else(|| {
        let more = if binary { ", application/vnd.kubernetes.protobuf" } else { "" };
        let message = format!("only the following media types are accepted: application/json{more}");
        StatusError::new(406, "NotAcceptable", message)
    })
}

/// The form that one clause asks for, if it can be served.
fn one(clause: &str, binary: bool) -> Option<Form> {
    let mut parts = clause.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let protobuf = binary && media == "application/vnd.kubernetes.protobuf";
    if !protobuf && !matches!(media.as_str(), "application/json" | "application/*" | "*/*") {
        return None;
    }
    let parameters: Vec<_> = parts.filter_map(|p| p.split_once('=')).collect();
    let get = |name: &str| parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v).unwrap_or_default();
    if get("q").parse::<f32>().is_ok_and(|q| q <= 0.0) {
        return None;
    }
    match (get("as"), get("g"), get("v")) {
        ("", _, _) if protobuf => Some(Form::Protobuf),
        // Tables and metadata alone are served in JSON.
        _ if protobuf => None,
        ("", _, _) => Some(Form::Objects),
        ("Table", "meta.k8s.io", "v1") => Some(Form::Table),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Some(Form::Metadata),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, wanted: Option<Form>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        assert_eq!(form(&headers, true).ok(), wanted, "{accept}");
    }

    #[test]
    fn the_first_form_that_can_be_served_is_chosen() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(kubectl, Some(Form::Table));
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json", Some(Form::Objects));
        check("application/vnd.kubernetes.protobuf,application/json", Some(Form::Protobuf));
        check("application/json,application/vnd.kubernetes.protobuf", Some(Form::Objects));
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            Some(Form::Metadata),
        );
        check("text/html, */*;q=0.1", Some(Form::Objects));
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "application/vnd.kubernetes.protobuf".parse().expect("a header"));
        assert!(form(&headers, false).is_err());
        check("text/html", None);
        check("*/*;q=0", None);
        assert_eq!(form(&HeaderMap::new(), true).ok(), Some(Form::Objects));
    }
}
