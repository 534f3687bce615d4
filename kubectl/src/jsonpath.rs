//! kubectl's dialect of JSONPath: a template of text and `{…}` actions.

mod eval;
mod parse;

use serde_json::Value;

pub use parse::ParseError;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    nodes: Vec<Node>,
    allow_missing: bool,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// Text between actions, or a quoted string within one.
    Text(String),
    /// A path of which every value found is printed, separated by spaces.
    Path(Vec<Step>),
    /// `{range PATH}…{end}`.
    Range(Vec<Step>, Vec<Node>),
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// `$`: back to the whole document.
    Root,
    /// `.name` or `['name']`.
    Field(String),
    /// `['a','b']`: several paths side by side.
    Union(Vec<Vec<Step>>),
    /// `*`.
    Wildcard,
    /// `..`: the value and everything below it.
    Descend,
    /// `[from:to:step]` or `[index]`.
    Slice {
        /// First index, from the end where negative.
        from: Option<i64>,
        /// Index after the last.
        to: Option<i64>,
        /// Every how manieth.
        step: i64,
        /// Whether it was written `[index]`, which must exist.
        single: bool,
    },
    /// `?(left op right)`.
    Filter(Operand, Comparison, Operand),
}

/// One side of a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A path from the item (`@.x`) or the document (`$.x`).
    Path(Vec<Step>),
    /// A literal.
    Literal(Value),
}

/// How a filter compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The left side finds something.
    Exists,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// Why a template could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalError(pub String);

impl std::fmt::Display for EvalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self { nodes: parse::template(text)?, allow_missing: true })
    }

    /// Parses what columns and sort keys are written as: with or without braces and leading dot.
    pub fn parse_relaxed(text: &str) -> Result<Self, ParseError> {
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let inner = inner.trim();
        let dotted =
            if inner.starts_with(['.', '$', '@', '[']) { inner.to_owned() } else { format!(".{inner}") };
        Self::parse(&format!("{{{dotted}}}"))
    }

    /// Whether a field that is not there is an error.
    pub fn strict(mut self) -> Self {
        self.allow_missing = false;
        self
    }

    /// The text that the template makes of a document.
    pub fn render(&self, document: &Value) -> Result<String, EvalError> {
        eval::render(&self.nodes, document, self.allow_missing)
    }

    /// What the template's paths find.
    pub fn find<'a>(&self, document: &'a Value) -> Result<Vec<&'a Value>, EvalError> {
        let mut found = Vec::new();
        for node in &self.nodes {
            if let Node::Path(steps) = node {
                found.extend(eval::find(steps, document, document, self.allow_missing)?);
            }
        }
        Ok(found)
    }
}

/// A value as it is printed in a template or a column.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Number(n) => crate::output::json::number(n),
        other => crate::output::json::compact(other),
    }
}

#[cfg(test)]
mod tests;
