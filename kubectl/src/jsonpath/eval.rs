//! Evaluates templates.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Comparison, EvalError, Node, Operand, Step, text_of};

/// The text of a template's nodes.
pub fn render(nodes: &[Node], root: &Value, allow_missing: bool) -> Result<String, EvalError> {
    let mut out = String::new();
    write(nodes, root, root, allow_missing, &mut out)?;
    Ok(out)
}

fn write(
    nodes: &[Node],
    current: &Value,
    root: &Value,
    lax: bool,
    out: &mut String,
) -> Result<(), EvalError> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(steps) => {
                let found = find(steps, current, root, lax)?;
                let texts: Vec<String> = found.into_iter().map(text_of).collect();
                out.push_str(&texts.join(" "));
            }
            Node::Range(steps, body) => {
                for item in find(steps, current, root, lax)? {
                    write(body, item, root, lax, out)?;
                }
            }
        }
    }
    Ok(())
}

/// Everything that a path finds.
pub fn find<'a>(
    steps: &[Step],
    current: &'a Value,
    root: &'a Value,
    lax: bool,
) -> Result<Vec<&'a Value>, EvalError> {
    let mut found = vec![current];
    for step in steps {
        found = apply(step, &found, root, lax)?;
    }
    Ok(found)
}

fn apply<'a>(
    step: &Step,
    from: &[&'a Value],
    root: &'a Value,
    lax: bool,
) -> Result<Vec<&'a Value>, EvalError> {
    let mut found = Vec::new();
    match step {
        Step::Root => found.push(root),
        Step::Field(name) => {
            for value in from {
                found.extend(value.as_object().and_then(|map| map.get(name)));
            }
            if found.is_empty() && !lax {
                return Err(EvalError(format!("{name} is not found")));
            }
        }
        Step::Union(paths) => {
            for path in paths {
                for value in from {
                    found.extend(find(path, value, root, lax)?);
                }
            }
        }
        Step::Wildcard => from.iter().for_each(|value| found.extend(children(value))),
        Step::Descend => from.iter().for_each(|value| descend(value, &mut found)),
        Step::Slice { from: first, to, step, single } => {
            for value in from {
                slice(value, (*first, *to, *step, *single), &mut found)?;
            }
        }
        Step::Filter(left, comparison, right) => {
            for value in from {
                for item in value.as_array().into_iter().flatten() {
                    if passes(item, root, left, *comparison, right)? {
                        found.push(item);
                    }
                }
            }
        }
    }
    Ok(found)
}

/// The members of an object in the order of their keys, or of a list.
fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            entries.into_iter().map(|(_, value)| value).collect()
        }
        _ => Vec::new(),
    }
}

fn descend<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(value);
    for child in children(value) {
        descend(child, found);
    }
}

fn slice<'a>(
    value: &'a Value,
    (from, to, step, single): (Option<i64>, Option<i64>, i64, bool),
    found: &mut Vec<&'a Value>,
) -> Result<(), EvalError> {
    let Some(items) = value.as_array() else {
        return if value.is_null() { Ok(()) } else { Err(EvalError("is not array or slice".into())) };
    };
    let len = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let place = |n: i64| if n < 0 { n.saturating_add(len) } else { n };
    if single {
        let wanted = from.unwrap_or(0);
        let index = usize::try_from(place(wanted)).ok().and_then(|i| items.get(i));
        let item = index
            .ok_or_else(|| EvalError(format!("array index out of bounds: index {wanted}, length {len}")))?;
        found.push(item);
        return Ok(());
    }
    let first = place(from.unwrap_or(0)).clamp(0, len);
    let last = place(to.unwrap_or(len)).clamp(first, len);
    let range = usize::try_from(first).unwrap_or(0)..usize::try_from(last).unwrap_or(0);
    found.extend(items[range].iter().step_by(usize::try_from(step).unwrap_or(1).max(1)));
    Ok(())
}

fn passes(
    item: &Value,
    root: &Value,
    left: &Operand,
    comparison: Comparison,
    right: &Operand,
) -> Result<bool, EvalError> {
    let side = |operand: &Operand| -> Result<Option<Value>, EvalError> {
        match operand {
            Operand::Literal(value) => Ok(Some(value.clone())),
            Operand::Path(steps) => {
                let found = find(steps, item, root, true)?;
                match found.as_slice() {
                    [] => Ok(None),
                    [one] => Ok(Some((*one).clone())),
                    _ => Err(EvalError("can only compare one element at a time".into())),
                }
            }
        }
    };
    if comparison == Comparison::Exists {
        return Ok(side(left)?.is_some());
    }
    let (Some(left), Some(right)) = (side(left)?, side(right)?) else { return Ok(false) };
    let order = compare(&left, &right);
    Ok(match comparison {
        Comparison::Exists => true,
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}

fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}
