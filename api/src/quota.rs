//! What objects take of a ResourceQuota: the arithmetic that admission charges by and the controller recounts by.
//!
//! Objects and quotas are documents here, as both have them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::Kind;
use crate::quantity::Amount;

mod pods;

/// An amount, and the form in which it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quantity {
    /// How much.
    pub amount: Amount,
    like: String,
}

impl Quantity {
    fn parse(text: &str) -> Option<Self> {
        Some(Self { amount: Amount::parse(text).ok()?, like: text.to_owned() })
    }

    fn count(n: usize) -> Self {
        let amount = Amount::units(i64::try_from(n).unwrap_or(i64::MAX));
        Self { amount, like: String::new() }
    }

    fn add(&mut self, other: &Self) {
        if self.amount == Amount::ZERO {
            self.like.clone_from(&other.like);
        }
        self.amount += other.amount;
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.amount.show_as(&self.like))
    }
}

/// Amounts by the names of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(pub BTreeMap<String, Quantity>);

impl Resources {
    /// Reads a map of quantities; what is none is left out.
    pub fn read(value: Option<&Value>) -> Self {
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let map = value.and_then(Value::as_object).into_iter().flatten();
        Self(map.filter_map(|(name, v)| Some((name.clone(), Quantity::parse(&text(v))?))).collect())
    }

    /// The document of the amounts.
    pub fn document(&self) -> Value {
        let all = self.0.iter().map(|(name, q)| (name.clone(), q.to_string().into()));
        Value::Object(all.collect::<Map<_, _>>())
    }

    fn set(&mut self, name: impl Into<String>, quantity: Quantity) {
        self.0.insert(name.into(), quantity);
    }

    /// Adds amounts to those that are there.
    pub fn add(&mut self, other: &Self) {
        for (name, quantity) in &other.0 {
            self.0.entry(name.clone()).or_default().add(quantity);
        }
    }

    /// What is here beyond another; nothing of what is the same.
    fn beyond(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (name, quantity) in &other.0 {
            let own = all.0.entry(name.clone()).or_default();
            own.amount = own.amount - quantity.amount;
        }
        all.0.retain(|_, q| q.amount != Amount::ZERO);
        all
    }

    fn only(&self, wanted: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(n, _)| wanted(n)).map(|(n, q)| (n.clone(), q.clone())).collect())
    }
}

impl std::fmt::Display for Resources {
    /// `cpu=1,memory=2Gi`, as messages have it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (name, quantity)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{name}={quantity}")?;
        }
        Ok(())
    }
}

/// The name under which objects of a kind are counted: `count/deployments.apps`.
pub fn count_name(kind: &Kind) -> String {
    let dot = if kind.group.is_empty() { "" } else { "." };
    format!("count/{}{dot}{}", kind.plural, kind.group)
}

/// Kinds that are also counted under their plain name.
const PLAIN: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
const CLASS: &str = ".storageclass.storage.k8s.io/";

/// Whether a name of `hard` is about objects of a kind.
pub fn is_about(kind: &Kind, name: &str) -> bool {
    if name == count_name(kind) {
        return true;
    }
    if !kind.group.is_empty() {
        return false;
    }
    match kind.kind {
        "Pod" => pods::is_about(name),
        "Service" => matches!(name, "services" | "services.loadbalancers" | "services.nodeports"),
        "PersistentVolumeClaim" => {
            let name = name.split_once(CLASS).map_or(name, |(_, name)| name);
            matches!(name, "persistentvolumeclaims" | "requests.storage")
        }
        _ => PLAIN.contains(&kind.plural) && name == kind.plural,
    }
}

/// What an object takes.
pub fn usage(kind: &Kind, object: &Value, now: Timestamp) -> Resources {
    let mut used = Resources::default();
    used.set(count_name(kind), Quantity::count(1));
    if !kind.group.is_empty() {
        return used;
    }
    if PLAIN.contains(&kind.plural) {
        used.set(kind.plural, Quantity::count(1));
    }
    match kind.kind {
        "Pod" if counts(object, now) => pods::usage(&mut used, object),
        "Service" => service(&mut used, object),
        "PersistentVolumeClaim" => claim(&mut used, object),
        _ => {}
    }
    used
}

/// Whether a pod still takes what it asked for: not when it has ended, or should be gone by now.
fn counts(pod: &Value, now: Timestamp) -> bool {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
    if matches!(text("/status/phase"), Some("Succeeded" | "Failed")) {
        return false;
    }
    let deleted = text("/metadata/deletionTimestamp").and_then(|t| t.parse::<Timestamp>().ok());
    let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    let gone = |(deleted, grace)| {
        let after: Result<Timestamp, _> = Timestamp::checked_add(deleted, SignedDuration::from_secs(grace));
        after.is_ok_and(|after| now > after)
    };
    !deleted.zip(grace).is_some_and(gone)
}

fn service(used: &mut Resources, service: &Value) {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array();
    let (mut balancers, mut node_ports) = (0, 0);
    match spec["type"].as_str() {
        Some("NodePort") => node_ports = ports.map_or(0, Vec::len),
        Some("LoadBalancer") => {
            balancers = 1;
            let allocates = spec["allocateLoadBalancerNodePorts"] != false;
            let has = |port: &&Value| allocates || port["nodePort"].as_i64().is_some_and(|p| p != 0);
            node_ports = ports.into_iter().flatten().filter(has).count();
        }
        _ => {}
    }
    used.set("services.loadbalancers", Quantity::count(balancers));
    used.set("services.nodeports", Quantity::count(node_ports));
}

fn claim(used: &mut Resources, claim: &Value) {
    let storage = |value: Option<&Value>| Resources::read(value).0.remove("storage");
    // What was given counts where it is more than what is asked for by now.
    let wanted = storage(claim.pointer("/spec/resources/requests"));
    let given = storage(claim.pointer("/status/allocatedResources"));
    let storage = [wanted, given].into_iter().flatten().max_by_key(|q| q.amount);
    let legacy = "volume.beta.kubernetes.io/storage-class";
    let class = claim["metadata"]["annotations"][legacy].as_str();
    let class = class.or_else(|| claim["spec"]["storageClassName"].as_str()).filter(|c| !c.is_empty());
    if let Some(storage) = &storage {
        used.set("requests.storage", storage.clone());
    }
    let Some(class) = class else { return };
    used.set(format!("{class}{CLASS}persistentvolumeclaims"), Quantity::count(1));
    if let Some(storage) = storage {
        used.set(format!("{class}{CLASS}requests.storage"), storage);
    }
}

/// Whether a quota is about an object: its scopes, all of which must hold. Those are about pods.
pub fn is_in_scope(quota: &Value, kind: &Kind, object: &Value) -> bool {
    let spec = &quota["spec"];
    let is_pod = kind.group.is_empty() && kind.kind == "Pod";
    let plain = spec["scopes"].as_array().into_iter().flatten();
    let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    plain
        .map(|scope| json!({"scopeName": scope, "operator": "Exists"}))
        .chain(selected.cloned())
        .all(|scope| is_pod && pods::is_in_scope(&scope, object))
}

/// Why a quota refuses an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The object leaves out what is limited.
    #[error("failed quota: {0}: must specify {1}")]
    Unspecified(String, String),
    /// Nobody has counted yet.
    #[error("status unknown for quota: {0}, resources: {1}")]
    Unknown(String, String),
    /// It would be too much.
    #[error("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}")]
    Exceeded {
        /// The quota.
        name: String,
        /// What is asked for of what there is too little.
        requested: Resources,
        /// What is used of that.
        used: Resources,
        /// What may be used of that.
        limited: Resources,
    },
}

/// What is charged for an object.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    /// Its kind.
    pub kind: &'a Kind,
    /// The object.
    pub new: &'a Value,
    /// As it was before, if it is not new.
    pub old: Option<&'a Value>,
    /// The time.
    pub now: Timestamp,
}

impl Charge<'_> {
    /// What `status.used` of a quota is when the object is written; nothing when it stays as it is.
    ///
    /// # Errors
    /// Why the quota does not let the object be written.
    pub fn apply(&self, quota: &Value) -> Result<Option<Resources>, Refusal> {
        let name = || quota["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let hard = Resources::read(quota.pointer("/status/hard")).only(|n| is_about(self.kind, n));
        if hard.0.is_empty() || !is_in_scope(quota, self.kind, self.new) {
            return Ok(None);
        }
        let is_pod = self.kind.group.is_empty() && self.kind.kind == "Pod";
        if is_pod && self.old.is_none() {
            let limited: BTreeSet<&str> = hard.0.keys().map(String::as_str).collect();
            if let Some(missing) = pods::unspecified(self.new, &limited) {
                return Err(Refusal::Unspecified(name(), missing));
            }
        }
        let mut used = Resources::read(quota.pointer("/status/used"));
        if !hard.0.keys().all(|n| used.0.contains_key(n)) {
            return Err(Refusal::Unknown(name(), hard.0.keys().cloned().collect::<Vec<_>>().join(",")));
        }
        let before = self.old.filter(|old| is_in_scope(quota, self.kind, old));
        let before = before.map(|old| usage(self.kind, old, self.now)).unwrap_or_default();
        let asked = usage(self.kind, self.new, self.now).beyond(&before).only(|n| hard.0.contains_key(n));
        if asked.0.is_empty() {
            return Ok(None);
        }
        let present = used.clone();
        used.add(&asked);
        // Who asks for less is let through, also where others have too much already.
        let too_much = |n: &str| {
            asked.0.get(n).is_some_and(|a| a.amount > Amount::ZERO) && used.0[n].amount > hard.0[n].amount
        };
        let limited = hard.only(too_much);
        if limited.0.is_empty() {
            return Ok(Some(used));
        }
        let among = |n: &str| limited.0.contains_key(n);
        Err(Refusal::Exceeded {
            name: name(),
            requested: asked.only(among),
            used: present.only(among),
            limited: limited.clone(),
        })
    }
}

/// `status.used` of a quota, counted anew from all objects of the kinds that it is about.
pub fn recount<'a>(
    quota: &Value,
    objects: impl Iterator<Item = (&'a Kind, &'a Value)>,
    now: Timestamp,
) -> Resources {
    let hard = Resources::read(quota.pointer("/spec/hard"));
    let mut used = Resources(hard.0.keys().map(|name| (name.clone(), Quantity::default())).collect());
    for (kind, object) in objects {
        if is_in_scope(quota, kind, object) {
            let about = |name: &str| hard.0.contains_key(name);
            used.add(&usage(kind, object, now).only(about));
        }
    }
    used
}

#[cfg(test)]
mod tests;
