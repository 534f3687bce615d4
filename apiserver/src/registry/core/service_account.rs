//! The rules of ServiceAccounts.

use api::openapi::api::core::v1::ServiceAccount;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of ServiceAccounts.
pub struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    type K = ServiceAccount;

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, Column::integer("Secrets", "The number of Secrets that its pods may use."), AGE];
        COLUMNS
    }

    fn row(&self, account: &ServiceAccount, now: Timestamp) -> Vec<Value> {
        vec![
            json!(account.metadata.name),
            json!(account.secrets.as_ref().map_or(0, Vec::len)),
            json!(age(account.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}
