//! The hash of a pod template, which names a ReplicaSet and tells its pods from its siblings'.

use api::openapi::api::core::v1::PodTemplateSpec;

/// Letters and digits that make no words: no vowels, and nothing that is easily mistaken.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short name for a template. The collision count makes another of the same template.
pub fn pod_template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let bytes = serde_json::to_vec(template).expect("a pod template has string keys and always encodes");
    let mut hash = fnv1a(0x811c_9dc5, &bytes);
    if let Some(count) = collision_count {
        hash = fnv1a(hash, &count.to_le_bytes());
    }
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn fnv1a(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::deployment;

    #[test]
    fn the_hash_depends_on_template_and_collision_count_alone() {
        let template = |image: &str| deployment(1).image(image).build().spec.unwrap().template;
        let hash = pod_template_hash(&template("v1"), None);
        assert_eq!(hash, pod_template_hash(&template("v1"), None));
        assert_ne!(hash, pod_template_hash(&template("v2"), None));
        assert_ne!(hash, pod_template_hash(&template("v1"), Some(1)));
        assert_ne!(pod_template_hash(&template("v1"), Some(2)), pod_template_hash(&template("v1"), Some(1)));
        assert!(api::validation::dns_label(&hash).is_empty() && hash.len() <= 10, "{hash}");
    }
}
