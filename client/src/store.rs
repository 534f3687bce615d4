//! The indexed, shared copy of what an informer has seen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, RwLock};

use api::object::Document;

pub(crate) type IndexFn<K> = fn(&K) -> Vec<String>;

/// A read-only view of an informer's objects. Cheap to clone; never blocks for long.
pub struct Store<K>(Arc<RwLock<Content<K>>>);

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Content<K> {
    objects: BTreeMap<String, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
}

struct Index<K> {
    of: IndexFn<K>,
    keys: HashMap<String, HashSet<String>>,
}

impl<K: Document> Default for Store<K> {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Content { objects: BTreeMap::new(), indexes: HashMap::new() })))
    }
}

impl<K: Document> Store<K> {
    /// An object by its key, `namespace/name` or the name alone.
    pub fn get(&self, key: &str) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// All objects, ordered by key.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// The objects of a namespace, ordered by name.
    pub fn namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let prefix = format!("{namespace}/");
        let content = self.read();
        let within = content.objects.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        within.map(|(_, object)| object.clone()).collect()
    }

    /// The objects for which the index function `name` gives `value`, ordered by key.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let content = self.read();
        let Some(keys) = content.indexes.get(name).and_then(|index| index.keys.get(value)) else {
            return Vec::new();
        };
        let mut keys: Vec<_> = keys.iter().collect();
        keys.sort_unstable();
        keys.into_iter().filter_map(|key| content.objects.get(key).cloned()).collect()
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.read().objects.keys().cloned().collect()
    }

    pub(crate) fn add_index(&self, name: &'static str, of: IndexFn<K>) {
        let mut content = self.write();
        let mut index = Index { of, keys: HashMap::new() };
        for (key, object) in &content.objects {
            index.insert(key, object);
        }
        content.indexes.insert(name, index);
    }

    /// Puts an object in and returns the one that it replaces.
    pub(crate) fn insert(&self, object: Arc<K>) -> Option<Arc<K>> {
        let key = object.document_key();
        let mut content = self.write();
        let old = content.objects.insert(key.clone(), object.clone());
        for index in content.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        old
    }

    /// Takes an object out.
    pub(crate) fn remove(&self, key: &str) -> Option<Arc<K>> {
        let mut content = self.write();
        let old = content.objects.remove(key)?;
        for index in content.indexes.values_mut() {
            index.remove(key, &old);
        }
        Some(old)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Content<K>> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Content<K>> {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<K> Index<K> {
    fn insert(&mut self, key: &str, object: &K) {
        for value in (self.of)(object) {
            self.keys.entry(value).or_default().insert(key.to_owned());
        }
    }

    fn remove(&mut self, key: &str, object: &K) {
        for value in (self.of)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, PodSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use proptest::prelude::*;

    fn node(pod: &Pod) -> Vec<String> {
        pod.spec.iter().filter_map(|s| s.node_name.clone()).collect()
    }

    fn pod(namespace: &str, name: &str, node: &str) -> Arc<Pod> {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
            ..ObjectMeta::default()
        };
        let spec = PodSpec { node_name: Some(node.into()), ..PodSpec::default() };
        Arc::new(Pod { metadata, spec: Some(spec), status: None })
    }

    #[test]
    fn namespaces_do_not_run_into_each_other() {
        let store = Store::default();
        for namespace in ["a", "a-b", "a0", "b"] {
            store.insert(pod(namespace, "x", "n"));
        }
        assert_eq!(store.namespace("a").len(), 1);
        assert_eq!(store.len(), 4);
    }

    proptest! {
        #[test]
        fn indexes_agree_with_a_scan(steps in prop::collection::vec((0..4u8, 0..3u8, any::<bool>()), 0..40)) {
            let store = Store::default();
            store.add_index("node", node);
            for (name, at, remove) in steps {
                if remove {
                    store.remove(&format!("ns/p{name}"));
                } else {
                    store.insert(pod("ns", &format!("p{name}"), &format!("n{at}")));
                }
            }
            for at in 0..3 {
                let at = format!("n{at}");
                let scan: Vec<_> = store.list().into_iter().filter(|p| node(p).contains(&at)).collect();
                prop_assert_eq!(store.by_index("node", &at), scan);
            }
        }
    }
}
