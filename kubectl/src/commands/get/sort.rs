//! `--sort-by`: numbers and quantities by size, text in natural order, what is missing first.

use std::cmp::Ordering;

use api::quantity::Amount;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::jsonpath::Template;
use crate::output::table::Row;

/// Sorts the rows of a table by a field of their objects.
pub fn rows(rows: &mut Vec<Row>, path: &Template) -> Result<()> {
    let keyed = keys(rows.iter().map(|r| &r.object), path)?;
    reorder(rows, keyed);
    Ok(())
}

/// Sorts objects by a field.
pub fn objects(objects: &mut Vec<Value>, path: &Template) -> Result<()> {
    let keyed = keys(objects.iter(), path)?;
    reorder(objects, keyed);
    Ok(())
}

fn keys<'a>(objects: impl Iterator<Item = &'a Value>, path: &Template) -> Result<Vec<Option<Value>>> {
    let mut keys = Vec::new();
    for object in objects {
        let found = path.find(object).map_err(Error::message)?;
        keys.push(found.first().map(|v| (*v).clone()));
    }
    if !keys.is_empty() && keys.iter().all(Option::is_none) {
        return Err(Error::message("couldn't find any field with path in the list of objects"));
    }
    Ok(keys)
}

fn reorder<T>(items: &mut Vec<T>, keys: Vec<Option<Value>>) {
    let mut pairs: Vec<(Option<Value>, T)> = keys.into_iter().zip(items.drain(..)).collect();
    pairs.sort_by(|(a, _), (b, _)| compare(a.as_ref(), b.as_ref()));
    items.extend(pairs.into_iter().map(|(_, item)| item));
}

fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::String(a)), Some(Value::String(b))) => match (Amount::parse(a), Amount::parse(b)) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => natural(a, b),
        },
        (Some(a), Some(b)) => crate::output::json::compact(a).cmp(&crate::output::json::compact(b)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// Text order in which `a2` comes before `a10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (n, m) = (digits(&mut a), digits(&mut b));
                let order = n.len().cmp(&m.len()).then_with(|| n.cmp(m));
                if order != Ordering::Equal {
                    return order;
                }
            }
            (Some(x), Some(y)) if x == y => {
                a = &a[1..];
                b = &b[1..];
            }
            (x, y) => return x.cmp(&y),
        }
    }
}

/// Takes the leading digits, without leading zeros.
fn digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    let start = number.iter().position(|c| *c != b'0').unwrap_or(number.len());
    &number[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[track_caller]
    fn check(values: Value, want: Value) {
        let mut objects: Vec<Value> = values.as_array().unwrap().iter().map(|v| json!({"x": v})).collect();
        self::objects(&mut objects, &Template::parse_relaxed(".x").unwrap()).unwrap();
        assert_eq!(Value::from(objects.into_iter().map(|o| o["x"].clone()).collect::<Vec<_>>()), want);
    }

    #[test]
    fn numbers_quantities_and_text_are_ordered() {
        check(json!([10, 2, 1]), json!([1, 2, 10]));
        check(json!(["1Gi", "100Mi", "2Ki"]), json!(["2Ki", "100Mi", "1Gi"]));
        check(json!(["a10", "a2", "a1"]), json!(["a1", "a2", "a10"]));
        check(
            json!(["2024-02-01T00:00:00Z", "2024-01-01T00:00:00Z"]),
            json!(["2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"]),
        );
    }

    proptest! {
        #[test]
        fn natural_order_is_an_order(a in "[a-c0-9]{0,6}", b in "[a-c0-9]{0,6}", c in "[a-c0-9]{0,6}") {
            prop_assert_eq!(natural(&a, &b), natural(&b, &a).reverse());
            if natural(&a, &b) != Ordering::Greater && natural(&b, &c) != Ordering::Greater {
                prop_assert_ne!(natural(&a, &c), Ordering::Greater);
            }
        }
    }
}
