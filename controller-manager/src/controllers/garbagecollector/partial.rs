//! Objects of which nothing but the metadata is kept.

use api::object::Document;
use api::openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::{Deserialize, Serialize};

/// The metadata of an object of any kind; the rest is skipped when it is read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Partial {
    /// The metadata.
    #[serde(default)]
    pub metadata: Metadata,
}

/// What is kept of the metadata.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The name.
    pub name: String,
    /// The namespace, or the empty string.
    pub namespace: String,
    /// The uid.
    pub uid: String,
    /// The resource version.
    pub resource_version: String,
    /// When deletion began.
    pub deletion_timestamp: Option<String>,
    /// The finalizers.
    pub finalizers: Vec<String>,
    /// The owners.
    pub owner_references: Vec<OwnerReference>,
}

impl Document for Partial {
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("metadata has string keys and always encodes")
    }
    fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
    fn document_key(&self) -> String {
        api::meta::key_of(&self.metadata.namespace, &self.metadata.name)
    }
    fn document_namespace(&self) -> &str {
        &self.metadata.namespace
    }
    fn document_name(&self) -> &str {
        &self.metadata.name
    }
    fn document_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_metadata_is_read() {
        let json = br#"{"kind":"Secret","metadata":{"name":"a","namespace":"n","uid":"u","finalizers":["x"],
            "labels":{"a":"b"},"resourceVersion":"7"},"data":{"k":"djE="}}"#;
        let partial = Partial::decode(json).unwrap();
        assert_eq!((partial.document_key().as_str(), partial.document_version()), ("n/a", "7"));
        assert!(!String::from_utf8(partial.encode()).unwrap().contains("djE="));
    }
}
