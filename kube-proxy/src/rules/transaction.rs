//! A change of the table that happens as a whole or not at all.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{AffinitySet, Chain, Place, ServiceRules, Slot, State, TABLE};

/// What to add and remove. [`Transaction::script`] puts it in an order that the kernel accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Sets that chains below use.
    pub add_sets: Vec<AffinitySet>,
    /// Chains that elements below go to; a chain comes after those that it goes to.
    pub add_chains: Vec<Chain>,
    /// Elements that go, or change their verdict.
    pub remove_elements: Vec<Place>,
    /// Elements that come, or change their verdict.
    pub add_elements: Vec<(Place, String)>,
    /// Chains that nothing goes to any more.
    pub remove_chains: Vec<String>,
    /// Sets that no chain uses any more.
    pub remove_sets: Vec<String>,
}

impl Transaction {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what `new` has and `old` has not, and removes what `old` alone has.
    pub(super) fn replace_chains(&mut self, old: &ServiceRules, new: &ServiceRules) {
        let in_old = |name: &String| old.chains.iter().any(|c| c.name == *name);
        let in_new = |name: &String| new.chains.iter().any(|c| c.name == *name);
        self.add_chains.extend(new.chains.iter().filter(|c| !in_old(&c.name)).cloned());
        self.remove_chains.extend(old.chains.iter().map(|c| &c.name).filter(|n| !in_new(n)).cloned());
        let set_in_old = |name: &String| old.sets.iter().any(|s| s.name == *name);
        let set_in_new = |name: &String| new.sets.iter().any(|s| s.name == *name);
        self.add_sets.extend(new.sets.iter().filter(|s| !set_in_old(&s.name)).cloned());
        self.remove_sets.extend(old.sets.iter().map(|s| &s.name).filter(|n| !set_in_new(n)).cloned());
    }

    pub(super) fn replace_element(&mut self, place: &Place, old: Option<&str>, new: Option<&str>) {
        if old == new {
            return;
        }
        if old.is_some() {
            self.remove_elements.push(place.clone());
        }
        if let Some(new) = new {
            self.add_elements.push((place.clone(), new.to_owned()));
        }
    }

    /// The commands for `nft -f -`.
    pub fn script(&self) -> String {
        let mut out = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| {
            out.write_fmt(text).expect("writing to a string cannot fail");
            out.push('\n');
        };
        for AffinitySet { name, timeout } in &self.add_sets {
            line(format_args!(
                "add set ip {TABLE} {name} {{ type ipv4_addr; flags dynamic,timeout; timeout {timeout}s; }}"
            ));
        }
        for Chain { name, rules } in &self.add_chains {
            line(format_args!("add chain ip {TABLE} {name}"));
            for rule in rules {
                line(format_args!("add rule ip {TABLE} {name} {rule}"));
            }
        }
        let removed = self.remove_elements.iter().map(|(slot, key)| (*slot, key.clone()));
        for (slot, keys) in by_slot(removed) {
            line(format_args!("delete element ip {TABLE} {} {{ {keys} }}", slot.name()));
        }
        let added = self.add_elements.iter().map(|((slot, key), value)| {
            (*slot, if value.is_empty() { key.clone() } else { format!("{key} : {value}") })
        });
        for (slot, elements) in by_slot(added) {
            line(format_args!("add element ip {TABLE} {} {{ {elements} }}", slot.name()));
        }
        // A chain that is gone to cannot be deleted; emptied first, the order does not matter.
        for name in &self.remove_chains {
            line(format_args!("flush chain ip {TABLE} {name}"));
        }
        for name in &self.remove_chains {
            line(format_args!("delete chain ip {TABLE} {name}"));
        }
        for name in &self.remove_sets {
            line(format_args!("delete set ip {TABLE} {name}"));
        }
        out
    }

    /// What the kernel makes of it. Fails as the kernel does, when something to remove is missing.
    pub fn apply(&self, state: &mut State) -> Result<(), String> {
        state.sets.extend(self.add_sets.iter().map(|s| s.name.clone()));
        state.chains.extend(self.add_chains.iter().map(|c| c.name.clone()));
        for place in &self.remove_elements {
            state.elements.remove(place).ok_or_else(|| format!("no element {place:?}"))?;
        }
        for (place, value) in &self.add_elements {
            if state.elements.insert(place.clone(), value.clone()).is_some() {
                return Err(format!("element {place:?} exists"));
            }
            if let Some(target) = value.strip_prefix("goto ").filter(|t| *t != super::base::REJECT)
                && !state.chains.contains(target)
            {
                return Err(format!("element {place:?} goes to {target}, which does not exist"));
            }
        }
        for name in &self.remove_chains {
            if state.elements.values().any(|v| v.strip_prefix("goto ") == Some(name)) {
                return Err(format!("chain {name} is in use"));
            }
            state.chains.remove(name).then_some(()).ok_or_else(|| format!("no chain {name}"))?;
        }
        for name in &self.remove_sets {
            state.sets.remove(name).then_some(()).ok_or_else(|| format!("no set {name}"))?;
        }
        Ok(())
    }
}

fn by_slot(items: impl Iterator<Item = (Slot, String)>) -> BTreeMap<Slot, String> {
    let mut slots: BTreeMap<Slot, String> = BTreeMap::new();
    for (slot, item) in items {
        let line = slots.entry(slot).or_default();
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(&item);
    }
    slots
}
