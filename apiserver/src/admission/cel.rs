//! CEL as admission uses it: expressions over `object`, `oldObject`, `request` and what else a policy brings.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{EntryExpr, Expr};
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, IdedExpr, ParseErrors, Program, Value as Cel};
use serde_json::Value;

/// What CEL reserves. A field of such a name is also known as `__name__`.
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A compiled expression.
pub struct Expression {
    text: String,
    program: Program,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// Where it is not CEL.
    pub fn compile(text: &str) -> Result<Self, ParseErrors> {
        Ok(Self { text: text.to_owned(), program: Program::compile(text)? })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names that the expression uses and nobody defines.
    pub fn undeclared(&self, known: &[&str]) -> Vec<String> {
        let mut unknown = Vec::new();
        let mut bound: Vec<&str> = known.iter().chain(TYPES).copied().collect();
        free(self.program.expression(), &mut bound, &mut unknown);
        let mut unknown: Vec<String> = unknown.into_iter().map(str::to_owned).collect();
        unknown.sort();
        unknown.dedup();
        unknown
    }

    /// What the expression comes to.
    ///
    /// # Errors
    /// Why it comes to nothing, in a sentence.
    pub fn value(&self, scope: &Scope<'_>) -> Result<Cel, String> {
        self.program.execute(&scope.0).map_err(|e| e.to_string())
    }

    /// Whether a condition holds.
    ///
    /// # Errors
    /// When it can not be told.
    pub fn holds(&self, scope: &Scope<'_>) -> Result<bool, String> {
        match self.value(scope)? {
            Cel::Bool(yes) => Ok(yes),
            other => Err(format!("must evaluate to bool, not {:?}", other.type_of())),
        }
    }
}

/// Names that stand for types.
const TYPES: &[&str] =
    &["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "uint", "type"];

/// Names before the dot of functions.
const LIBRARIES: &[&str] = &["base64", "cel", "ip", "lists", "math", "optional", "sets", "strings"];

/// Gathers the names that an expression uses and that are not bound where it does.
fn free<'a>(expression: &'a IdedExpr, bound: &mut Vec<&'a str>, found: &mut Vec<&'a str>) {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => {}
        Expr::Ident(name) => {
            if !name.starts_with('@') && !bound.contains(&name.as_str()) {
                found.push(name);
            }
        }
        Expr::Call(call) => {
            for part in call.target.as_deref().into_iter().chain(&call.args) {
                let is_library =
                    matches!(&part.expr, Expr::Ident(name) if LIBRARIES.contains(&name.as_str()));
                if !is_library {
                    free(part, bound, found);
                }
            }
        }
        Expr::Select(select) => free(&select.operand, bound, found),
        Expr::List(list) => list.elements.iter().for_each(|part| free(part, bound, found)),
        Expr::Map(map) => map.entries.iter().for_each(|entry| free_in_entry(&entry.expr, bound, found)),
        Expr::Struct(made) => {
            made.entries.iter().for_each(|entry| free_in_entry(&entry.expr, bound, found));
        }
        Expr::Comprehension(c) => {
            free(&c.iter_range, bound, found);
            free(&c.accu_init, bound, found);
            let outside = bound.len();
            bound.extend([c.iter_var.as_str(), c.accu_var.as_str()]);
            bound.extend(c.iter_var2.as_deref());
            for part in [&c.loop_cond, &c.loop_step, &c.result] {
                free(part, bound, found);
            }
            bound.truncate(outside);
        }
    }
}

fn free_in_entry<'a>(entry: &'a EntryExpr, bound: &mut Vec<&'a str>, found: &mut Vec<&'a str>) {
    match entry {
        EntryExpr::StructField(field) => free(&field.value, bound, found),
        EntryExpr::MapEntry(entry) => {
            free(&entry.key, bound, found);
            free(&entry.value, bound, found);
        }
    }
}

/// The variables that expressions see.
pub struct Scope<'a>(Context<'a>);

impl Default for Scope<'_> {
    fn default() -> Self {
        Self(Context::default().with_all())
    }
}

impl Scope<'_> {
    /// Defines a variable.
    pub fn set(&mut self, name: &str, value: Cel) {
        self.0.add_variable_from_value(name, value);
    }

    /// Defines a variable as a document.
    pub fn set_json(&mut self, name: &str, value: &Value) {
        self.set(name, cel(value));
    }
}

/// Whether fields of a name are also known by another one.
fn alias(name: &str) -> Option<String> {
    RESERVED.contains(&name).then(|| format!("__{name}__"))
}

/// A document as CEL knows it.
pub fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Cel::Int(i),
            (None, Some(u)) => Cel::UInt(u),
            _ => Cel::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(s) => Cel::String(Arc::new(s.clone())),
        Value::Array(list) => Cel::List(Arc::new(list.iter().map(cel).collect())),
        Value::Object(fields) => {
            let mut map = HashMap::with_capacity(fields.len());
            for (name, value) in fields {
                let value = cel(value);
                if let Some(alias) = alias(name) {
                    map.insert(Key::String(Arc::new(alias)), value.clone());
                }
                map.insert(Key::String(Arc::new(name.clone())), value);
            }
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

/// Text for people: a string as it is.
pub fn text(value: &Cel) -> Option<&str> {
    match value {
        Cel::String(text) => Some(text),
        _ => None,
    }
}

/// `matchConditions`: all must hold for a webhook or policy to be asked.
#[derive(Debug, Default)]
pub struct Conditions(Vec<(String, Result<Expression, String>)>);

impl Conditions {
    /// The conditions of a webhook or policy.
    pub fn read(value: Option<&Value>) -> Self {
        let list = value.and_then(Value::as_array).into_iter().flatten();
        let text =
            |v: &Value, field: &str| v.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self(
            list.map(|c| {
                let compiled = Expression::compile(&text(c, "expression")).map_err(|e| e.to_string());
                (text(c, "name"), compiled)
            })
            .collect(),
        )
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold. One that does not hold counts more than those that fail, as documented.
    ///
    /// # Errors
    /// Every condition that could not be told, when none is false.
    pub fn hold(&self, scope: &Scope<'_>) -> Result<bool, String> {
        let mut problems = Vec::new();
        for (name, condition) in &self.0 {
            match condition.as_ref().map_err(Clone::clone).and_then(|c| c.holds(scope)) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(why) => problems.push(format!("expression of match condition {name:?} failed: {why}")),
            }
        }
        match problems.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(expression: &str, wanted: Result<bool, &str>) {
        let mut scope = Scope::default();
        scope.set_json(
            "object",
            &json!({"metadata": {"name": "a", "namespace": "n",
            "labels": {"app.kubernetes.io/name": "x"}}, "spec": {"replicas": 3, "memory": "2Gi"}}),
        );
        scope.set_json("oldObject", &Value::Null);
        scope.set_json("request", &json!({"operation": "CREATE", "userInfo": {"groups": ["a", "b"]}}));
        let seen = Expression::compile(expression).map_err(|e| e.to_string()).and_then(|e| e.holds(&scope));
        match (seen, wanted) {
            (Ok(seen), Ok(wanted)) => assert_eq!(seen, wanted, "{expression}"),
            (Err(seen), Err(wanted)) => assert!(seen.contains(wanted), "{expression}: {seen}"),
            (seen, wanted) => panic!("{expression}: {seen:?} instead of {wanted:?}"),
        }
    }

    #[test]
    fn expressions_see_documents_as_they_are() {
        check("object.spec.replicas <= 5", Ok(true));
        check("object.metadata.namespace == 'n'", Ok(true));
        check("object.metadata.__namespace__ == 'n'", Ok(true));
        check("object.metadata.labels['app.kubernetes.io/name'] == 'x'", Ok(true));
        check("has(object.metadata.annotations) && object.metadata.annotations.a == 'b'", Ok(false));
        check("oldObject == null || oldObject.spec.replicas == 1", Ok(true));
        check("request.userInfo.groups.exists(g, g == 'b')", Ok(true));
        check("quantity(object.spec.memory).isGreaterThan(quantity('1Gi'))", Ok(true));
        check("object.metadata.name.matches('^[a-c]$')", Ok(true));
        check("object.spec.nothing == 1", Err("nothing"));
        check("object.spec.replicas", Err("bool"));
    }

    #[test]
    fn a_false_condition_counts_more_than_a_broken_one() {
        let scope = Scope::default();
        let conditions = |all: Value| Conditions::read(Some(&all)).hold(&scope);
        let broken = json!({"name": "broken", "expression": "nobody.knows"});
        assert_eq!(conditions(json!([{"name": "yes", "expression": "true"}])), Ok(true));
        assert_eq!(conditions(json!([broken, {"name": "no", "expression": "false"}])), Ok(false));
        assert!(conditions(json!([broken])).expect_err("broken").contains("\"broken\""));
    }

    #[test]
    fn undeclared_names_are_found() {
        let unknown = |text: &str| Expression::compile(text).expect("CEL").undeclared(&["object"]);
        assert_eq!(unknown("object.a && other.b == 1"), ["other"]);
        assert!(unknown("object.list.all(x, x > 0) && type(object.a) == int").is_empty());
        assert!(unknown("math.greatest([object.a, {'b': 2}.b]) > 0").is_empty());
        assert_eq!(unknown("object.list.all(x, y > 0) && x"), ["x", "y"]);
    }
}
