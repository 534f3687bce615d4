//! Which ranges of the cluster's are taken, and by which node.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::config::Cidr;

/// The division of the cluster's range into one range per node.
#[derive(Debug)]
pub struct Cidrs {
    cluster: Cidr,
    prefix: u8,
    /// How many nodes hold each index: more than one only when nodes were given ranges by hand.
    taken: BTreeMap<u32, u32>,
    /// The indexes that a node (by uid) holds.
    held: HashMap<String, BTreeSet<u32>>,
    /// Where the search for a free range begins, so that a freed one rests for as long as possible.
    next: u32,
}

impl Cidrs {
    /// Nothing is taken yet.
    pub fn new(cluster: Cidr, prefix: u8) -> Self {
        Self { cluster, prefix, taken: BTreeMap::new(), held: HashMap::new(), next: 0 }
    }

    /// A node has a range: all of ours that it overlaps are its own.
    pub fn occupy(&mut self, uid: &str, cidr: Cidr) {
        let (first, last) = cidr.bounds();
        let (low, high) = self.cluster.bounds();
        if last < low || first > high {
            return;
        }
        let index =
            |address: u32| address.clamp(low, high).wrapping_sub(low) >> (32 - u32::from(self.prefix));
        for i in index(first)..=index(last) {
            self.hold(uid, i);
        }
    }

    fn hold(&mut self, uid: &str, index: u32) {
        if self.held.entry(uid.to_owned()).or_default().insert(index) {
            *self.taken.entry(index).or_default() += 1;
        }
    }

    /// The range that a node holds, or a free one that it holds from now on; `None` when all are taken.
    pub fn allocate(&mut self, uid: &str) -> Option<Cidr> {
        if let Some(index) = self.held.get(uid).and_then(|held| held.first()) {
            return Some(self.cluster.subnet(self.prefix, *index));
        }
        let count = self.cluster.subnets(self.prefix);
        let free = |i: &u32| !self.taken.contains_key(i);
        let index = (self.next..count).chain(0..self.next.min(count)).find(free)?;
        self.next = (index + 1) % count;
        self.hold(uid, index);
        Some(self.cluster.subnet(self.prefix, index))
    }

    /// A node is gone: what it held is free, unless another holds it too.
    pub fn release(&mut self, uid: &str) {
        for index in self.held.remove(uid).unwrap_or_default() {
            if let Some(holders) = self.taken.get_mut(&index) {
                *holders -= 1;
                if *holders == 0 {
                    self.taken.remove(&index);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidrs(cluster: &str, prefix: u8) -> Cidrs {
        Cidrs::new(cluster.parse().unwrap(), prefix)
    }

    fn given(cidrs: &mut Cidrs, uid: &str) -> String {
        cidrs.allocate(uid).map_or("none".into(), |c| c.to_string())
    }

    #[test]
    fn a_node_keeps_its_range_and_another_gets_another() {
        let mut c = cidrs("10.244.0.0/16", 24);
        assert_eq!(given(&mut c, "a"), "10.244.0.0/24");
        assert_eq!(given(&mut c, "a"), "10.244.0.0/24");
        assert_eq!(given(&mut c, "b"), "10.244.1.0/24");
        c.release("a");
        assert_eq!(given(&mut c, "c"), "10.244.2.0/24", "a freed range rests");
    }

    #[test]
    fn ranges_end_and_come_back() {
        let mut c = cidrs("10.0.0.0/30", 31);
        assert_eq!((given(&mut c, "a"), given(&mut c, "b")), ("10.0.0.0/31".into(), "10.0.0.2/31".into()));
        assert_eq!(given(&mut c, "c"), "none");
        c.release("a");
        c.release("a");
        assert_eq!(given(&mut c, "c"), "10.0.0.0/31");
    }

    #[test]
    fn what_nodes_have_already_is_not_handed_out() {
        let mut c = cidrs("10.244.0.0/16", 24);
        c.occupy("a", "10.244.0.0/23".parse().unwrap());
        c.occupy("b", "10.244.2.128/25".parse().unwrap());
        c.occupy("c", "192.168.0.0/24".parse().unwrap());
        assert_eq!(given(&mut c, "d"), "10.244.3.0/24");
        c.occupy("e", "10.0.0.0/8".parse().unwrap());
        assert_eq!(given(&mut c, "f"), "none");
        c.release("e");
        assert_eq!(given(&mut c, "f"), "10.244.4.0/24");
    }

    proptest! {
        #[test]
        fn no_range_is_held_twice(steps in prop::collection::vec((0..12u8, any::<bool>()), 0..100)) {
            let mut c = cidrs("10.0.0.0/29", 32);
            let mut held = HashMap::new();
            for (node, comes) in steps {
                let uid = node.to_string();
                if comes {
                    match c.allocate(&uid) {
                        Some(cidr) => { held.insert(uid, cidr); }
                        None => prop_assert_eq!(held.len(), 8),
                    }
                } else {
                    c.release(&uid);
                    held.remove(&uid);
                }
                let distinct: BTreeSet<_> = held.values().map(|c: &Cidr| c.bounds()).collect();
                prop_assert_eq!(distinct.len(), held.len());
            }
        }
    }
}
