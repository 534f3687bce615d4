//! The JSONPath of definitions: `.spec.size`, `.status.conditions[?(@.type=="Ready")].status`, `.items[*].name`.

use serde_json::Value;

/// One step into a value.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Elements in which the value at a path compares so to a constant.
    Where(Vec<Step>, Comparison, Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
}

/// A compiled path.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

impl Path {
    /// Reads a path; nothing for one that is malformed or uses what is not supported.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let text = text.strip_prefix('$').unwrap_or(text);
        (text.starts_with('.') || text.starts_with('[')).then_some(())?;
        steps(text).map(Self)
    }

    /// A path of plain fields alone, as `/spec/size`; nothing for any other.
    pub fn pointer(&self) -> Option<String> {
        let mut pointer = String::new();
        for step in &self.0 {
            let Step::Field(name) = step else { return None };
            pointer.push('/');
            pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        }
        Some(pointer)
    }

    /// The values that the path leads to.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        walk(&self.0, value)
    }
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut at = vec![value];
    for step in steps {
        at = at.into_iter().flat_map(|value| one(step, value)).collect();
    }
    at
}

fn one<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
        (Step::Index(index), Value::Array(list)) => {
            let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
            let index = if *index < 0 { index + length } else { *index };
            usize::try_from(index).ok().and_then(|i| list.get(i)).into_iter().collect()
        }
        (Step::All, Value::Array(list)) => list.iter().collect(),
        (Step::All, Value::Object(map)) => map.values().collect(),
        (Step::Where(path, comparison, wanted), Value::Array(list)) => list
            .iter()
            .filter(|element| {
                let found = walk(path, element);
                let equal = found.first().is_some_and(|v| *v == wanted);
                !found.is_empty() && equal == (*comparison == Comparison::Equal)
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn steps(mut text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !text.is_empty() {
        let step;
        (step, text) = match text.strip_prefix('.') {
            Some(rest) if rest.is_empty() || rest.starts_with('[') => {
                text = rest;
                continue;
            }
            Some(rest) => field(rest)?,
            None => bracket(text.strip_prefix('[')?)?,
        };
        steps.push(step);
    }
    Some(steps)
}

/// A name, in which a backslash takes the next character as it is.
fn field(text: &str) -> Option<(Step, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => return (!name.is_empty()).then(|| (named(name), &text[i..])),
            c => name.push(c),
        }
    }
    (!name.is_empty()).then(|| (named(name), ""))
}

fn named(name: String) -> Step {
    if name == "*" { Step::All } else { Step::Field(name) }
}

fn bracket(text: &str) -> Option<(Step, &str)> {
    if let Some(filter) = text.strip_prefix("?(") {
        let end = filter.find(")]")?;
        return Some((condition(&filter[..end])?, &filter[end + 2..]));
    }
    let end = text.find(']')?;
    let (inside, rest) = (text[..end].trim(), &text[end + 1..]);
    let step = match quoted(inside) {
        Some(name) => Step::Field(name.to_owned()),
        None if inside == "*" => Step::All,
        None => Step::Index(inside.parse().ok()?),
    };
    Some((step, rest))
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|q| text.strip_prefix(q)?.strip_suffix(q))
}

fn condition(text: &str) -> Option<Step> {
    let (path, comparison, constant) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((path, constant)), _) => (path, Comparison::Equal, constant),
        (None, Some((path, constant))) => (path, Comparison::NotEqual, constant),
        (None, None) => return None,
    };
    let constant = constant.trim();
    let constant = match quoted(constant) {
        Some(text) => Value::String(text.to_owned()),
        None => serde_json::from_str(constant).ok()?,
    };
    Some(Step::Where(steps(path.trim().strip_prefix('@')?)?, comparison, constant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_values() {
        let value = json!({"spec": {"size": 3, "a.b": 1, "list": [{"n": "x"}, {"n": "y"}]},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let check = |path: &str, wanted: Value| {
            let found = Path::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(json!(found.find(&value)), wanted, "{path}");
        };
        check(".spec.size", json!([3]));
        check("{.spec.size}", json!([3]));
        check(r".spec.a\.b", json!([1]));
        check(".spec['a.b']", json!([1]));
        check(".spec.list[*].n", json!(["x", "y"]));
        check(".spec.list[-1].n", json!(["y"]));
        check(r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"]));
        check(".status.conditions[?(@.type != 'Ready')].status", json!(["False"]));
        check(".none.such", json!([]));
        assert_eq!(Path::parse(".spec.size").and_then(|p| p.pointer()).as_deref(), Some("/spec/size"));
        assert!(Path::parse(".a[0]").expect("a path").pointer().is_none());
        for bad in ["", "spec", ".a[", ".a[x]", ".a[?(@.b)]"] {
            assert!(Path::parse(bad).is_none(), "{bad}");
        }
    }
}
