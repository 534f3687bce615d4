//! The rules of CertificateSigningRequests.

use std::collections::HashSet;

use api::openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use api::validation::{FieldError, dns_subdomain};
use jiff::Timestamp;
use serde_json::{Value, json};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::registry::fields::{Errors, one_of};
use crate::registry::printing::{age, human_duration};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// What a certificate may be for.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The rules of CertificateSigningRequests.
pub struct CertificateSigningRequestStrategy;

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

impl Strategy for CertificateSigningRequestStrategy {
    type K = CertificateSigningRequest;

    fn validate(&self, request: &CertificateSigningRequest) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = &request.spec;
        if let Err(problem) = decode(&spec.request.0) {
            errors.push(FieldError::invalid("spec.request", "<bytes>", &problem));
        }
        if spec.usages.as_ref().is_none_or(Vec::is_empty) {
            errors.push(FieldError::required("spec.usages", ""));
        }
        let mut seen = HashSet::new();
        for (i, usage) in spec.usages.iter().flatten().enumerate() {
            let field = format!("spec.usages[{i}]");
            one_of(&mut errors, &field, Some(usage), USAGES);
            if !seen.insert(usage) {
                errors.push(FieldError::duplicate(field, usage.as_str()));
            }
        }
        signer(&mut errors, &spec.signer_name);
        if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < 600) {
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid("spec.expirationSeconds", seconds, detail));
        }
        errors
    }

    fn validate_update(
        &self,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) -> Vec<FieldError> {
        if new.spec == old.spec {
            return Vec::new();
        }
        vec![FieldError::forbidden("spec", "updates to the spec of a certificate request are forbidden")]
    }

    fn validate_status_update(
        &self,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let holds =
            |of: &CertificateSigningRequest, type_: &str| conditions(of).iter().any(|c| c.type_ == type_);
        for type_ in ["Approved", "Denied", "Failed"] {
            if holds(old, type_) && !holds(new, type_) {
                let detail = format!("updates may not remove a condition of type {type_:?}");
                errors.push(FieldError::forbidden("status.conditions", &detail));
            }
        }
        let mut seen = HashSet::new();
        for (i, condition) in conditions(new).iter().enumerate() {
            let at = |name: &str| format!("status.conditions[{i}].{name}");
            if !seen.insert(&condition.type_) {
                errors.push(FieldError::duplicate(at("type"), condition.type_.as_str()));
            }
            match (condition.type_.as_str(), condition.status.as_str()) {
                ("", _) => errors.push(FieldError::required(at("type"), "")),
                ("Approved" | "Denied" | "Failed", "True") => {}
                ("Approved" | "Denied" | "Failed", status) => {
                    errors.push(FieldError::not_supported(at("status"), status, &["True"]));
                }
                (_, status) => {
                    one_of(&mut errors, &at("status"), Some(status), &["False", "True", "Unknown"])
                }
            }
        }
        if holds(new, "Approved") && holds(new, "Denied") {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid("status.conditions", "Denied", detail));
        }
        errors
    }

    fn selectable_fields(&self, request: &CertificateSigningRequest) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", request.spec.signer_name.clone())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            AGE,
            Column::string("SignerName", "Who is asked to sign."),
            Column::string("Requestor", "Who asks."),
            Column::string("RequestedDuration", "How long the certificate is to be valid."),
            Column::string("Condition", "What the request has come to."),
        ];
        COLUMNS
    }

    fn row(&self, request: &CertificateSigningRequest, now: Timestamp) -> Vec<Value> {
        let holds = |type_: &str| conditions(request).iter().any(|c| c.type_ == type_);
        let issued =
            request.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty());
        let mut word = match (holds("Denied"), holds("Approved")) {
            (true, _) => "Denied",
            (_, true) => "Approved",
            _ => "Pending",
        }
        .to_owned();
        if holds("Failed") {
            word.push_str(",Failed");
        }
        if issued {
            word.push_str(",Issued");
        }
        let duration = request.spec.expiration_seconds.map(|s| human_duration(i64::from(s)));
        vec![
            json!(request.metadata.name.as_deref().unwrap_or_default()),
            json!(age(request.metadata.creation_timestamp.as_ref(), now)),
            json!(request.spec.signer_name),
            json!(request.spec.username.as_deref().unwrap_or_default()),
            json!(duration.unwrap_or_else(|| "<none>".into())),
            json!(word),
        ]
    }
}

fn decode(request: &[u8]) -> Result<(), String> {
    let (_, pem) =
        parse_x509_pem(request).map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err("PEM block type must be CERTIFICATE REQUEST".into());
    }
    X509CertificationRequest::from_der(&pem.contents).map(drop).map_err(|e| e.to_string())
}

/// A signer is named by a domain and a path beneath it.
fn signer(errors: &mut Errors, name: &str) {
    const FIELD: &str = "spec.signerName";
    if name.is_empty() {
        errors.push(FieldError::required(FIELD, ""));
        return;
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(FIELD, name, detail));
        return;
    };
    let problems = dns_subdomain(domain).into_iter().chain(dns_subdomain(path));
    errors.extend(problems.map(|problem| FieldError::invalid(FIELD, name, &problem)));
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(FIELD, name, detail));
    }
    if name == "kubernetes.io/legacy-unknown" {
        errors.push(FieldError::invalid(
            FIELD,
            name,
            "the legacy signerName is not allowed via this API version",
        ));
    }
}
