//! AdmissionReview, `admission.k8s.io/v1`: the question and what its answer means.

use api::decode::decode;
use api::patch::json_patch;
use api::status::StatusError;
use base64::Engine;
use serde_json::{Value, json};

/// The present version. The one before it differs in what an answer may leave out.
pub const V1: &str = "admission.k8s.io/v1";

/// The document that is sent. `request` is that of [`crate::admission::intent::Intent::request`].
pub fn question(
    version: &str,
    uid: &str,
    mut request: Value,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Value {
    request["uid"] = uid.into();
    request["object"] = object.cloned().unwrap_or_default();
    request["oldObject"] = old.cloned().unwrap_or_default();
    json!({"apiVersion": version, "kind": "AdmissionReview", "request": request})
}

/// What a webhook said.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Why not.
    pub result: Value,
    /// What is to be changed: the operations of a JSON patch.
    pub patch: Option<Value>,
    /// What the client is to be warned of.
    pub warnings: Vec<String>,
    /// For the record.
    pub annotations: Vec<(String, String)>,
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn answer(wanted: &str, uid: &str, mutating: bool, body: &[u8]) -> Result<Answer, String> {
    let expected = format!("expected webhook response of {wanted}, Kind=AdmissionReview");
    let review: Value =
        serde_json::from_slice(body).map_err(|e| format!("{expected}, got what is not JSON: {e}"))?;
    let [version, kind] = ["apiVersion", "kind"].map(|field| review[field].as_str().unwrap_or_default());
    // The older version says of itself what it likes.
    if wanted == V1 && (version != V1 || kind != "AdmissionReview") {
        return Err(format!("{expected}, got {version}, Kind={kind}"));
    }
    let Some(response) = review.get("response").filter(|r| r.is_object()) else {
        return Err("webhook response was absent".into());
    };
    let told = response["uid"].as_str().unwrap_or_default();
    if wanted == V1 && told != uid {
        return Err(format!("expected response.uid={uid:?}, got {told:?}"));
    }
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    Ok(Answer {
        allowed: response["allowed"] == true,
        result: response["status"].clone(),
        patch: if mutating { patch(wanted, response)? } else { None },
        warnings: strings(&response["warnings"]),
        annotations: annotations.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect(),
    })
}

fn patch(version: &str, response: &Value) -> Result<Option<Value>, String> {
    let encoded = response["patch"].as_str().unwrap_or_default();
    let type_ = response["patchType"].as_str();
    if encoded.is_empty() {
        return match type_ {
            None => Ok(None),
            Some(_) => Err("webhook returned response.patchType but not response.patch".into()),
        };
    }
    match type_ {
        Some("JSONPatch") => {}
        None if version != V1 => {}
        None => return Err("webhook returned response.patch but not response.patchType".into()),
        Some(other) => {
            return Err(format!("webhook returned invalid response.patchType of {other:?}"));
        }
    }
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|e| format!("response.patch is not base64: {e}"))?;
    let operations: Value =
        serde_json::from_slice(&bytes).map_err(|e| format!("response.patch is not JSON: {e}"))?;
    Ok((operations.as_array().is_none_or(|o| !o.is_empty())).then_some(operations))
}

/// The object that a patch makes of another.
///
/// # Errors
/// Why it does not fit.
pub fn patched(object: &Value, patch: &Value) -> Result<Value, String> {
    json_patch(object, patch).map_err(|e| e.to_string())
}

/// The refusal that a webhook's `status` comes to.
pub fn refusal(name: &str, result: &Value) -> StatusError {
    let by = format!("admission webhook {name:?} denied the request");
    let text = |field: &str| result[field].as_str().filter(|t| !t.is_empty());
    let code = result["code"].as_i64().and_then(|c| i32::try_from(c).ok()).unwrap_or_default();
    let message = match (text("message"), text("reason")) {
        (Some(message), _) => format!("{by}: {message}"),
        (None, Some(reason)) => format!("{by}: {reason}"),
        (None, None) => format!("{by} without explanation"),
    };
    let code = if (400..600).contains(&code) { code } else { 400 };
    let mut error = StatusError::new(code, text("reason").unwrap_or_default(), message);
    if text("reason").is_none() {
        error.0.reason = None;
    }
    error.0.details = result.get("details").and_then(|d| decode(d).ok());
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(response: Value) -> Vec<u8> {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn an_answer_is_for_its_question() {
        let fine = answer(V1, "1", true, &review(json!({"uid": "1", "allowed": true}))).expect("fine");
        assert_eq!(fine, Answer { allowed: true, ..Answer::default() });
        for (body, why) in [
            (review(json!({"uid": "2", "allowed": true})), "expected response.uid=\"1\", got \"2\""),
            (review(Value::Null), "webhook response was absent"),
            (b"no".to_vec(), "AdmissionReview"),
            (
                json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"})
                    .to_string()
                    .into(),
                "got admission.k8s.io/v1beta1, Kind=AdmissionReview",
            ),
            (review(json!({"uid": "1", "patch": "W10="})), "not response.patchType"),
            (review(json!({"uid": "1", "patchType": "JSONPatch"})), "not response.patch"),
            (review(json!({"uid": "1", "patchType": "Merge", "patch": "e30="})), "\"Merge\""),
            (review(json!({"uid": "1", "patchType": "JSONPatch", "patch": "?"})), "base64"),
        ] {
            let seen = answer(V1, "1", true, &body).expect_err("wrong");
            assert!(seen.contains(why), "{seen}");
        }
        // A validating webhook has nothing to patch.
        assert!(answer(V1, "1", false, &review(json!({"uid": "1", "patch": "?"}))).is_ok());
        let empty = review(json!({"uid": "1", "patchType": "JSONPatch", "patch": "W10="}));
        assert_eq!(answer(V1, "1", true, &empty).expect("fine").patch, None);
    }

    #[track_caller]
    fn refused(result: Value, code: u16, message: &str) {
        let error = refusal("x.y.z", &result);
        assert_eq!((error.code(), error.to_string().as_str()), (code, message));
    }

    #[test]
    fn a_refusal_says_who_and_why() {
        let by = "admission webhook \"x.y.z\" denied the request";
        refused(Value::Null, 400, &format!("{by} without explanation"));
        refused(json!({"message": "no"}), 400, &format!("{by}: no"));
        refused(json!({"reason": "Never"}), 400, &format!("{by}: Never"));
        refused(json!({"message": "no", "code": 403, "reason": "Forbidden"}), 403, &format!("{by}: no"));
        refused(json!({"message": "no", "code": 200}), 400, &format!("{by}: no"));
    }
}
