//! Checks of single fields that the rules of several kinds share, in upstream's wording.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use api::openapi::apimachinery::pkg::api::resource::Quantity;
use api::openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use api::openapi::apimachinery::pkg::util::intstr::IntOrString;
use api::quantity::{Amount, canonical};
use api::validation::{FieldError, dns_label, dns_subdomain, label_value, qualified_name};
use serde_json::{Value, json};

/// The errors found so far; each check appends what it finds.
pub type Errors = Vec<FieldError>;

/// What a number below zero is told.
pub const NEGATIVE: &str = "must be greater than or equal to 0";
/// What a change of an immutable field is told.
pub const IMMUTABLE: &str = "field is immutable";

/// Turns the sentences of a name check into errors of a field.
pub fn names(errors: &mut Errors, field: &str, value: &str, problems: Vec<String>) {
    errors.extend(problems.iter().map(|problem| FieldError::invalid(field, value, problem)));
}

/// A required RFC 1123 label.
pub fn required_label(errors: &mut Errors, field: &str, value: &str) {
    if value.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else {
        names(errors, field, value, dns_label(value));
    }
}

/// An RFC 1123 subdomain, if it is set and not empty.
pub fn optional_subdomain(errors: &mut Errors, field: &str, value: Option<&str>) {
    if let Some(value) = set(value) {
        names(errors, field, value, dns_subdomain(value));
    }
}

/// An RFC 1123 label, if it is set and not empty.
pub fn optional_label(errors: &mut Errors, field: &str, value: Option<&str>) {
    if let Some(value) = set(value) {
        names(errors, field, value, dns_label(value));
    }
}

/// A text that is there and not empty.
pub fn set(value: Option<&str>) -> Option<&str> {
    value.filter(|v| !v.is_empty())
}

/// A required text.
pub fn required(errors: &mut Errors, field: &str, value: Option<&str>) {
    if set(value).is_none() {
        errors.push(FieldError::required(field, ""));
    }
}

/// A number that must not be below zero, if it is set.
pub fn not_negative(errors: &mut Errors, field: &str, value: Option<impl Into<i64>>) {
    if let Some(value) = value.map(Into::into)
        && value < 0
    {
        errors.push(FieldError::invalid(field, value, NEGATIVE));
    }
}

/// A number within bounds, if it is set.
pub fn between(errors: &mut Errors, field: &str, value: Option<impl Into<i64>>, low: i64, high: i64) {
    if let Some(value) = value.map(Into::into)
        && !(low..=high).contains(&value)
    {
        errors.push(FieldError::invalid(
            field,
            value,
            &format!("must be between {low} and {high}, inclusive"),
        ));
    }
}

/// A port number.
pub fn port(errors: &mut Errors, field: &str, value: i32) {
    between(errors, field, Some(value), 1, 65535);
}

/// A port number, or the name of a container's port.
pub fn port_or_name(errors: &mut Errors, field: &str, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => port(errors, field, *number),
        IntOrString::String(name) => names(errors, field, name, port_name(name)),
    }
}

/// What keeps a text from being the name of a port (an IANA service name).
pub fn port_name(name: &str) -> Vec<String> {
    let mut problems: Vec<&str> = Vec::new();
    if name.len() > 15 {
        problems.push("must be no more than 15 characters");
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen");
    }
    problems.into_iter().map(str::to_owned).collect()
}

/// One of an enumeration, which is given sorted. What is unset or empty is required.
pub fn one_of(errors: &mut Errors, field: &str, value: Option<&str>, supported: &[&str]) {
    match set(value) {
        None => errors.push(FieldError::required(field, "")),
        Some(value) => optional_one_of(errors, field, Some(value), supported),
    }
}

/// One of an enumeration, if it is set.
pub fn optional_one_of(errors: &mut Errors, field: &str, value: Option<&str>, supported: &[&str]) {
    if let Some(value) = value
        && !supported.contains(&value)
    {
        errors.push(FieldError::not_supported(field, value, supported));
    }
}

/// A transport protocol.
pub fn protocol(errors: &mut Errors, field: &str, value: Option<&str>) {
    one_of(errors, field, value, &["SCTP", "TCP", "UDP"]);
}

/// An IP address.
pub fn ip(errors: &mut Errors, field: &str, value: &str) {
    if value.parse::<IpAddr>().is_err() {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(field, value, detail));
    }
}

/// Whether a text is `address/prefix`.
pub fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    })
}

/// A range of addresses.
pub fn cidr(errors: &mut Errors, field: &str, value: &str) {
    if !is_cidr(value) {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(field, value, detail));
    }
}

/// The key of a ConfigMap or Secret.
pub fn config_key(key: &str) -> Vec<String> {
    const SHAPE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
        'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    let mut problems = Vec::new();
    if key.len() > 253 {
        problems.push("must be no more than 253 bytes".to_owned());
    }
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        problems.push(SHAPE.to_owned());
    }
    match key {
        "." => problems.push("may not be '.'".into()),
        ".." => problems.push("may not be '..'".into()),
        key if key.starts_with("..") => problems.push("may not start with '..'".into()),
        _ => {}
    }
    problems
}

/// A path that must stay beneath its root: relative and without `..`.
pub fn local_path(errors: &mut Errors, field: &str, path: &str) {
    if path.starts_with('/') {
        errors.push(FieldError::invalid(field, path, "must be a relative path"));
    }
    no_back_steps(errors, field, path);
    if path.starts_with("..") && !path.starts_with("../") && path != ".." {
        errors.push(FieldError::invalid(field, path, "must not start with '..'"));
    }
}

/// A path without `..`.
pub fn no_back_steps(errors: &mut Errors, field: &str, path: &str) {
    if path.split('/').any(|step| step == "..") {
        errors.push(FieldError::invalid(field, path, "must not contain '..'"));
    }
}

/// A quantity that must not be below zero. Gives the amount when there is one.
pub fn quantity(errors: &mut Errors, field: &str, quantity: &Quantity) -> Option<Amount> {
    match Amount::try_from(quantity) {
        Err(error) => {
            errors.push(FieldError::invalid(field, quantity.0.as_str(), &error.to_string()));
            None
        }
        Ok(amount) if amount.is_negative() => {
            errors.push(FieldError::invalid(field, quantity.0.as_str(), NEGATIVE));
            None
        }
        Ok(amount) => Some(amount),
    }
}

/// Rewrites quantities into their canonical form; what is no quantity stays for validation to tell.
pub fn canonicalize(quantities: &mut Option<BTreeMap<String, Quantity>>) {
    for quantity in quantities.iter_mut().flat_map(BTreeMap::values_mut) {
        canonicalize_one(quantity);
    }
}

/// Rewrites one quantity into its canonical form.
pub fn canonicalize_one(quantity: &mut Quantity) {
    if let Ok(text) = canonical(&quantity.0) {
        quantity.0 = text;
    }
}

/// A typed label selector.
pub fn label_selector(errors: &mut Errors, field: &str, selector: &LabelSelector) {
    let labels = selector.match_labels.clone().unwrap_or_default();
    errors.extend(api::validation::labels(&labels, &format!("{field}.matchLabels")));
    for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
        selector_requirement(errors, &format!("{field}.matchExpressions[{i}]"), expression);
    }
}

fn selector_requirement(errors: &mut Errors, field: &str, expression: &LabelSelectorRequirement) {
    let values = expression.values.as_deref().unwrap_or_default();
    match expression.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
            format!("{field}.values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
            format!("{field}.values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(FieldError::invalid(
            format!("{field}.operator"),
            other,
            "not a valid selector operator",
        )),
    }
    let key = format!("{field}.key");
    names(errors, &key, &expression.key, qualified_name(&expression.key));
    for (i, value) in values.iter().enumerate() {
        names(errors, &format!("{field}.values[{i}]"), value, label_value(value));
    }
}

/// A count, or a percentage of another.
pub fn count_or_percent(errors: &mut Errors, field: &str, value: &IntOrString) {
    const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  \
        or '93%', regex used for validation is '[0-9]+%')";
    match value {
        IntOrString::Int(count) => not_negative(errors, field, Some(*count)),
        IntOrString::String(text) if percent(text).is_none() => {
            errors.push(FieldError::invalid(field, text.as_str(), PERCENT));
        }
        IntOrString::String(_) => {}
    }
}

/// The number in `25%`; what is too large saturates.
pub fn percent(text: &str) -> Option<i32> {
    let digits = text.strip_suffix('%')?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().unwrap_or(i32::MAX))
}

/// A count or percentage as a JSON value, for messages.
pub fn shown(value: &IntOrString) -> Value {
    match value {
        IntOrString::Int(count) => json!(count),
        IntOrString::String(text) => json!(text),
    }
}

/// Reports values that stand more than once.
pub fn duplicates<'a>(errors: &mut Errors, values: impl Iterator<Item = (String, &'a str)>) {
    let mut seen = HashSet::new();
    for (field, value) in values {
        if !seen.insert(value) {
            errors.push(FieldError::duplicate(field, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names_are_iana_service_names() {
        for good in ["http", "a", "a-1", "1a", "abcdefghijklmno"] {
            assert_eq!(port_name(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["", "80", "-a", "a-", "a--b", "A", "abcdefghijklmnop", "a_b"] {
            assert!(!port_name(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn ranges_of_addresses_are_recognised() {
        for good in ["10.0.0.0/8", "::/0", "10.244.0.0/24"] {
            assert!(is_cidr(good), "{good}");
        }
        for bad in ["10.0.0.0", "10.0.0.0/33", "/8", "10.0.0.0/", "10.0.0.0/+8", "x/8"] {
            assert!(!is_cidr(bad), "{bad}");
        }
    }

    #[test]
    fn percentages_are_digits_and_a_sign() {
        assert_eq!(percent("25%"), Some(25));
        assert_eq!(percent("99999999999%"), Some(i32::MAX));
        for bad in ["%", "25", "-1%", "2.5%", "a%"] {
            assert_eq!(percent(bad), None, "{bad}");
        }
    }
}
