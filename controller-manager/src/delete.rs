//! Delete options that controllers use.

use api::Typed;
use api::meta::MetaExt;
use api::openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};

/// Deletes this object and no later one of the same name.
pub fn if_uid<K: Typed>(object: &K) -> DeleteOptions {
    of_uid(object.uid())
}

/// Deletes the object with this uid and no later one of the same name.
pub fn of_uid(uid: &str) -> DeleteOptions {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() }
}

/// Removes this object at once, without a grace period.
pub fn now<K: Typed>(object: &K) -> DeleteOptions {
    DeleteOptions { grace_period_seconds: Some(0), ..if_uid(object) }
}
