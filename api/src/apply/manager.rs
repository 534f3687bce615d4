//! What a write makes of the managers of fields.

use serde_json::Value;

use super::compare::{Comparison, compare, field_set, with_named_fields};
use super::managed::{Key, Managed, Operation, Owned};
use super::merge::{merge, remove};
use super::paths;
use super::set::FieldSet;
use super::types::{Type, TypeRef};

/// Managers by update that one object may have; the oldest beyond that become one.
const MAX_UPDATERS: usize = 10;
/// The name under which the oldest managers are kept together.
const ANCIENT: &str = "ancient-changes";
/// Who owns the fields of an object that nobody managed before it was first applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose applies take over what it applied on its own side before.
const KUBECTL: &str = "kubectl";
/// What that one left on the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The longest name of a manager.
const MAX_NAME: usize = 128;
/// Fields that nobody owns, since the server alone decides about them or they are the object's identity.
const UNOWNED: [&[&str]; 10] = [
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
];

/// Who writes, and when.
#[derive(Clone, Debug, Default)]
pub struct Writer<'a> {
    /// The name of the manager.
    pub manager: &'a str,
    /// The version that it speaks.
    pub api_version: &'a str,
    /// The subresource that it writes, or empty.
    pub subresource: &'a str,
    /// Now, RFC 3339 in whole seconds.
    pub time: &'a str,
}

/// A field that somebody else owns and another apply would change.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The other manager, as messages name it.
    pub manager: String,
    /// The field, as messages write it.
    pub field: String,
}

/// Why an apply was not carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields that it would change. With force they lose them.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration does not fit the type: fields that there are not, elements without their keys.
    #[error("{0}")]
    Malformed(String),
}

/// What an apply came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The new document, before defaults.
    pub document: Value,
    /// Who owns what now.
    pub managed: Managed,
}

impl Writer<'_> {
    fn key(&self, operation: Operation) -> Key {
        Key {
            operation,
            manager: self.manager.to_owned(),
            subresource: self.subresource.to_owned(),
            api_version: if operation == Operation::Apply {
                String::new()
            } else {
                self.api_version.to_owned()
            },
        }
    }

    fn owned(&self, fields: FieldSet) -> Owned {
        Owned { fields, api_version: self.api_version.to_owned(), time: self.time.to_owned() }
    }
}

/// The managers after a write other than an apply: the writer owns what it changed, and nobody what is gone.
/// `ignored` are top-level fields that the path of the write does not change. Neither document holds managed fields.
pub fn track(
    of: TypeRef<'_>,
    before: &Value,
    after: &Value,
    mut managed: Managed,
    writer: &Writer<'_>,
    ignored: &[&str],
) -> Managed {
    let mut comparison = compare(of, before, after);
    for set in [&mut comparison.added, &mut comparison.modified, &mut comparison.removed] {
        ignored.iter().for_each(|field| set.strip(&[&paths::field(field)]));
    }
    let mut taken = comparison.modified.clone();
    taken.unite(&comparison.added);
    for owned in managed.0.values_mut() {
        lose(owned, &taken, &comparison.removed);
    }
    strip_unowned(&mut taken);
    if !taken.is_empty() {
        let own = managed
            .0
            .entry(writer.key(Operation::Update))
            .or_insert_with(|| writer.owned(FieldSet::default()));
        own.fields.unite(&taken);
        own.time = writer.time.to_owned();
    }
    managed.drop_empty();
    cap(&mut managed);
    managed
}

fn lose(owned: &mut Owned, taken: &FieldSet, removed: &FieldSet) {
    if !taken.is_empty() {
        owned.fields = owned.fields.difference(taken);
    }
    if !removed.is_empty() {
        owned.fields = owned.fields.difference(removed);
    }
}

fn strip_unowned(fields: &mut FieldSet) {
    UNOWNED.iter().for_each(|path| fields.strip_only(path));
}

/// Puts the oldest updaters together when there are too many.
fn cap(managed: &mut Managed) {
    let mut updaters: Vec<(String, Key)> = managed
        .0
        .iter()
        .filter(|(key, _)| key.operation == Operation::Update)
        .map(|(key, owned)| (owned.time.clone(), key.clone()))
        .collect();
    if updaters.len() <= MAX_UPDATERS {
        return;
    }
    updaters.sort();
    // The bucket is one of those that remain, and may be new.
    let bucket = updaters.iter().any(|(_, key)| key.manager == ANCIENT);
    let excess = updaters.len() - MAX_UPDATERS + usize::from(!bucket);
    for (_, key) in updaters.into_iter().filter(|(_, key)| key.manager != ANCIENT).take(excess) {
        if let Some(old) = managed.0.remove(&key) {
            let bucket = Key { manager: ANCIENT.into(), subresource: String::new(), ..key };
            match managed.0.get_mut(&bucket) {
                Some(own) => {
                    own.fields.unite(&old.fields);
                    own.time = own.time.clone().max(old.time);
                }
                None => _ = managed.0.insert(bucket, old),
            }
        }
    }
}

/// Carries out an apply: `wanted` is all that the manager wants, without what the path of the write leaves alone.
/// `present` is an empty document of the type when there is no object yet.
///
/// # Errors
/// Conflicts without `force`; a configuration that does not fit the type.
pub fn apply(
    of: TypeRef<'_>,
    present: &Value,
    wanted: &Value,
    managed: Managed,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    let mut problems = Vec::new();
    check(of, wanted, &mut String::new(), &mut problems);
    if !problems.is_empty() {
        return Err(ApplyError::Malformed(problems.join("\n")));
    }
    let managed = first_apply(of, present, managed, writer);
    let last = managed.0.get(&writer.key(Operation::Apply)).cloned();
    let (document, mut managed, comparison) = merged(of, present, wanted, managed, writer);
    let conflicts = conflicts(&managed, &writer.key(Operation::Apply), &comparison);
    if !force && !conflicts.is_empty() {
        let allowed = if writer.manager == KUBECTL { last_applied(of, present) } else { FieldSet::default() };
        let left: Vec<Conflict> =
            conflicts.iter().flat_map(|(key, set)| named(key, &set.difference(&allowed))).collect();
        if !left.is_empty() {
            return Err(ApplyError::Conflicts(left));
        }
    }
    for (key, set) in conflicts {
        if let Some(owned) = managed.0.get_mut(&key) {
            owned.fields = owned.fields.difference(&set);
        }
    }
    for owned in managed.0.values_mut() {
        owned.fields = owned.fields.difference(&comparison.removed);
    }
    if let Some(own) = managed.0.get_mut(&writer.key(Operation::Apply)) {
        strip_unowned(&mut own.fields);
        if let Some(last) = last
            && comparison.is_same()
            && (&last.fields, &last.api_version) == (&own.fields, &own.api_version)
        {
            own.time = last.time;
        }
    }
    managed.drop_empty();
    Ok(Applied { document, managed })
}

/// The merged and pruned document, the managers with the new entry of the applier, and what changed.
fn merged(
    of: TypeRef<'_>,
    present: &Value,
    wanted: &Value,
    mut managed: Managed,
    writer: &Writer<'_>,
) -> (Value, Managed, Comparison) {
    let mut document = merge(of, present, wanted);
    let own = writer.owned(field_set(of, wanted));
    let last = managed.0.insert(writer.key(Operation::Apply), own);
    if let Some(last) = last {
        document = prune(of, &document, &last.fields, &managed.everything());
    }
    let comparison = compare(of, present, &document);
    (document, managed, comparison)
}

/// Takes away what the manager wanted before and nobody wants any longer.
fn prune(of: TypeRef<'_>, merged: &Value, last: &FieldSet, managed: &FieldSet) -> Value {
    let last = with_named_fields(of, last);
    let all = with_named_fields(of, &field_set(of, merged));
    let of_value = |value: &Value| with_named_fields(of, &field_set(of, value));
    let pruned = remove(of, merged, &last);
    let kept = of_value(&pruned).union(&with_named_fields(of, managed));
    let pruned = remove(of, merged, &all.difference(&kept));
    remove(of, merged, &all.difference(&of_value(&pruned)).intersection(&last))
}

/// An object that nobody manages belongs to whoever wrote it before it was first applied.
fn first_apply(of: TypeRef<'_>, present: &Value, managed: Managed, writer: &Writer<'_>) -> Managed {
    let exists = present.pointer("/metadata/uid").is_some();
    if !managed.is_empty() || !exists {
        return managed;
    }
    let before = Writer { manager: BEFORE_FIRST_APPLY, subresource: "", ..writer.clone() };
    track(of, &of.empty(), present, managed, &before, &[])
}

/// What others own of that which changes.
fn conflicts(managed: &Managed, own: &Key, comparison: &Comparison) -> Vec<(Key, FieldSet)> {
    let changed = comparison.modified.clone().union(&comparison.added);
    let others = managed.0.iter().filter(|(key, _)| *key != own);
    let contested = others.map(|(key, owned)| (key.clone(), owned.fields.intersection(&changed)));
    contested.filter(|(_, set)| !set.is_empty()).collect()
}

fn named(key: &Key, fields: &FieldSet) -> Vec<Conflict> {
    let mut manager = format!("{:?}", key.manager);
    if !key.subresource.is_empty() {
        manager.push_str(&format!(" with subresource {:?}", key.subresource));
    }
    if key.operation == Operation::Update {
        manager.push_str(&format!(" using {}", key.api_version));
    }
    let conflict = |path: Vec<&str>| Conflict { manager: manager.clone(), field: paths::display(&path) };
    fields.paths().into_iter().map(conflict).collect()
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.field);
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|c| c.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(conflicts.iter().filter(|c| c.manager == manager).map(|c| format!("- {}", c.field)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// What kubectl applied on its own side and nobody changed since: its server-side applies take that over.
fn last_applied(of: TypeRef<'_>, present: &Value) -> FieldSet {
    let annotations = present.pointer("/metadata/annotations");
    let text = annotations.and_then(|a| a.get(LAST_APPLIED)).and_then(Value::as_str);
    let Some(applied) = text.and_then(|t| serde_json::from_str::<Value>(t).ok()) else {
        return FieldSet::default();
    };
    let changed = compare(of, &applied, present);
    field_set(of, &applied).difference(&changed.modified).difference(&changed.removed)
}

/// What does not fit the type.
fn check(of: TypeRef<'_>, value: &Value, path: &mut String, problems: &mut Vec<String>) {
    let length = path.len();
    match (of.get(), value) {
        (Type::Struct { .. } | Type::Map(_), Value::Object(map)) => {
            for (name, value) in map {
                path.push_str(&format!(".{name}"));
                if of.forbids(name) {
                    problems.push(format!("{path}: field not declared in schema"));
                } else {
                    check(of.field(name), value, path, problems);
                }
                path.truncate(length);
            }
        }
        (Type::Set | Type::Keyed { .. }, Value::Array(list)) => {
            let mut seen = std::collections::HashSet::new();
            for (place, value) in list.iter().enumerate() {
                match paths::item(of, value) {
                    Err(problem) => problems.push(format!("{path}: element {place}: {problem}")),
                    Ok(element) => {
                        path.push_str(&paths::display(&[&element]));
                        if !seen.insert(element) {
                            path.truncate(length);
                            problems.push(format!("{path}: duplicate entries for key {}", shown(of, value)));
                        } else {
                            check(of.element(), value, path, problems);
                        }
                        path.truncate(length);
                    }
                }
            }
        }
        (Type::Struct { .. } | Type::Map(_), Value::Null) | (Type::Set | Type::Keyed { .. }, Value::Null) => {
        }
        (Type::Struct { .. } | Type::Map(_), other) => {
            problems.push(format!("{path}: expected map, got {}", sort(other)));
        }
        (Type::Set | Type::Keyed { .. }, other) => {
            problems.push(format!("{path}: expected list, got {}", sort(other)))
        }
        (Type::Untyped | Type::Atomic, _) => {}
    }
}

fn shown(of: TypeRef<'_>, value: &Value) -> String {
    paths::item(of, value).map(|e| paths::display(&[&e])).unwrap_or_default()
}

fn sort(value: &Value) -> String {
    match value {
        Value::Object(_) => "map".into(),
        Value::Array(_) => "list".into(),
        other => format!("&value.valueUnstructured{{Value:{other}}}"),
    }
}

/// The manager's name for a client that states none: its user agent up to the first slash.
pub fn manager_of_agent(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    match &name[..end] {
        "" => "unknown".into(),
        name => name.to_owned(),
    }
}

/// What is wrong with a manager's name, if anything is.
pub fn check_manager(name: &str) -> Option<&'static str> {
    if name.len() > MAX_NAME {
        return Some("may not be longer than 128");
    }
    name.chars().any(char::is_control).then_some("should only contain printable characters")
}
