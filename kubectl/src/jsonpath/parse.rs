//! Parses templates.

use serde_json::Value;

use super::{Comparison, Node, Operand, Step};

/// Why a template could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError(pub String);

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn fail<T>(text: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError(text.into()))
}

/// Nested filters and ranges beyond this are refused rather than overflow the stack.
const MAX_DEPTH: usize = 64;

enum Action {
    Nodes(Vec<Node>),
    Range(Vec<Step>),
    End,
}

/// Parses a whole template.
pub fn template(text: &str) -> Result<Vec<Node>, ParseError> {
    let mut stack: Vec<(Vec<Step>, Vec<Node>)> = vec![(Vec::new(), Vec::new())];
    let mut rest = text;
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            push(&mut stack, Node::Text(rest.to_owned()));
            break;
        };
        if open > 0 {
            push(&mut stack, Node::Text(rest[..open].to_owned()));
        }
        let body = &rest[open + 1..];
        let Some(close) = closing(body) else { return fail("unclosed action") };
        match action(&body[..close])? {
            Action::Nodes(nodes) => nodes.into_iter().for_each(|n| push(&mut stack, n)),
            Action::Range(steps) => {
                if stack.len() > MAX_DEPTH {
                    return fail("ranges are nested too deeply");
                }
                stack.push((steps, Vec::new()));
            }
            Action::End => {
                let Some((steps, nodes)) = (stack.len() > 1).then(|| stack.pop()).flatten() else {
                    return fail("not in range, nothing to end");
                };
                push(&mut stack, Node::Range(steps, nodes));
            }
        }
        rest = &body[close + 1..];
    }
    // A range that is never ended repeats nothing but itself.
    while stack.len() > 1 {
        if let Some((steps, nodes)) = stack.pop() {
            push(&mut stack, Node::Range(steps, nodes));
        }
    }
    Ok(stack.pop().map(|(_, nodes)| nodes).unwrap_or_default())
}

fn push(stack: &mut [(Vec<Step>, Vec<Node>)], node: Node) {
    if let Some((_, nodes)) = stack.last_mut() {
        nodes.push(node);
    }
}

/// Where the action ends: the first brace that is not within quotes.
fn closing(body: &str) -> Option<usize> {
    let mut quote = None;
    let mut chars = body.char_indices();
    while let Some((i, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(q), c) if q == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(i),
            _ => {}
        }
    }
    None
}

fn action(body: &str) -> Result<Action, ParseError> {
    let trimmed = body.trim();
    if trimmed == "end" {
        return Ok(Action::End);
    }
    if let Some(path) = trimmed.strip_prefix("range").filter(|p| p.starts_with([' ', '.', '$', '@', '['])) {
        let mut parser = Parser { rest: path.trim_start(), depth: 0 };
        let steps = parser.path()?;
        return if parser.rest.trim().is_empty() {
            Ok(Action::Range(steps))
        } else {
            fail(format!("unexpected text in range: {:?}", parser.rest))
        };
    }
    let mut parser = Parser { rest: trimmed, depth: 0 };
    let mut nodes = Vec::new();
    loop {
        parser.skip_space();
        if parser.rest.is_empty() {
            return Ok(Action::Nodes(nodes));
        }
        nodes.push(match parser.rest.as_bytes()[0] {
            b'"' | b'\'' => Node::Text(parser.quoted()?),
            _ => Node::Path(parser.path()?),
        });
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn quoted(&mut self) -> Result<String, ParseError> {
        let mut chars = self.rest.char_indices();
        let Some((_, quote)) = chars.next() else { return fail("unterminated quoted string") };
        let mut text = String::new();
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.rest = &self.rest[i + c.len_utf8()..];
                return Ok(text);
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, c)) => text.push(c),
                None => break,
            }
        }
        fail("unterminated quoted string")
    }

    fn path(&mut self) -> Result<Vec<Step>, ParseError> {
        let mut steps = Vec::new();
        let before = self.rest;
        loop {
            if self.eat("$") {
                steps.push(Step::Root);
            } else if self.eat("@") {
                // The current object is where a path begins.
            } else if self.eat("..") {
                steps.push(Step::Descend);
                if !self.rest.starts_with(['[', '*', '.']) && !self.rest.is_empty() {
                    steps.push(self.field()?);
                }
            } else if self.eat(".") {
                if !self.rest.is_empty() && !self.rest.starts_with(['[', ' ', ')', '=', '!', '<', '>']) {
                    steps.push(self.field()?);
                }
            } else if self.eat("*") {
                steps.push(Step::Wildcard);
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else if steps.is_empty() && self.rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                let bad: String =
                    self.rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                return fail(format!("unrecognized identifier {bad}"));
            } else if self.rest.len() == before.len() && !self.rest.is_empty() {
                let c = self.rest.chars().next().unwrap_or_default();
                return fail(format!("unrecognized character in action: U+{:04X} '{c}'", c as u32));
            } else {
                return Ok(steps);
            }
        }
    }

    fn field(&mut self) -> Result<Step, ParseError> {
        if self.eat("*") {
            return Ok(Step::Wildcard);
        }
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, c)) => name.push(c),
                    None => return fail("a field ends with a backslash"),
                },
                '.' | '[' | ']' | '{' | '}' | '(' | ')' | ' ' | '\t' | '\n' | ',' | '=' | '!' | '<' | '>'
                | '$' | '@' | '|' | '&' | '\'' | '"' => {
                    end = i;
                    break;
                }
                c => name.push(c),
            }
        }
        if name.is_empty() {
            return fail(format!("a field name is missing before {:?}", self.rest));
        }
        self.rest = &self.rest[end..];
        Ok(Step::Field(name))
    }

    fn bracket(&mut self) -> Result<Step, ParseError> {
        self.skip_space();
        if self.eat("?(") {
            return self.filter();
        }
        let mut parts = Vec::new();
        loop {
            self.skip_space();
            parts.push(self.subscript()?);
            self.skip_space();
            if self.eat("]") {
                break;
            }
            if !self.eat(",") {
                return fail(format!("unterminated array before {:?}", self.rest));
            }
        }
        match <[Step; 1]>::try_from(parts) {
            Ok([one]) => Ok(one),
            Err(many) => Ok(Step::Union(many.into_iter().map(|s| vec![s]).collect())),
        }
    }

    fn subscript(&mut self) -> Result<Step, ParseError> {
        if self.rest.starts_with(['\'', '"']) {
            return Ok(Step::Field(self.quoted()?));
        }
        if self.eat("*") {
            return Ok(Step::Wildcard);
        }
        let end = self.rest.find([',', ']']).ok_or_else(|| ParseError("unterminated array".into()))?;
        let text = self.rest[..end].trim();
        self.rest = &self.rest[end..];
        subscript_numbers(text)
    }

    fn filter(&mut self) -> Result<Step, ParseError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return fail("filters are nested too deeply");
        }
        let left = self.operand()?;
        self.skip_space();
        let comparison = self.comparison();
        let right = match comparison {
            Comparison::Exists => Operand::Literal(Value::Null),
            _ => {
                self.skip_space();
                self.operand()?
            }
        };
        self.skip_space();
        let closed = self.eat(")");
        self.skip_space();
        if !closed || !self.eat("]") {
            return fail("unterminated filter");
        }
        self.depth -= 1;
        Ok(Step::Filter(left, comparison, right))
    }

    fn comparison(&mut self) -> Comparison {
        let table = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        table.into_iter().find(|(text, _)| self.eat(text)).map_or(Comparison::Exists, |(_, c)| c)
    }

    fn operand(&mut self) -> Result<Operand, ParseError> {
        self.skip_space();
        match self.rest.as_bytes().first() {
            Some(b'\'' | b'"') => Ok(Operand::Literal(Value::String(self.quoted()?))),
            Some(b'@' | b'$' | b'.' | b'[') => Ok(Operand::Path(self.path()?)),
            Some(_) => {
                let end = self.rest.find([')', ']', ' ', '=', '!', '<', '>']).unwrap_or(self.rest.len());
                let word = &self.rest[..end];
                self.rest = &self.rest[end..];
                match serde_json::from_str::<Value>(word) {
                    Ok(value) if !value.is_object() && !value.is_array() => Ok(Operand::Literal(value)),
                    _ => fail(format!("unrecognized identifier {word}")),
                }
            }
            None => fail("unterminated filter"),
        }
    }
}

/// `3`, `-1`, `1:3`, `:2`, `::2`.
fn subscript_numbers(text: &str) -> Result<Step, ParseError> {
    let number = |part: &str| -> Result<Option<i64>, ParseError> {
        if part.trim().is_empty() {
            return Ok(None);
        }
        part.trim().parse().map(Some).map_err(|_| ParseError(format!("invalid array index {text}")))
    };
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [one] => match number(one)? {
            Some(n) => Ok(Step::Slice { from: Some(n), to: None, step: 1, single: true }),
            None => fail("invalid array index "),
        },
        [from, to] => Ok(Step::Slice { from: number(from)?, to: number(to)?, step: 1, single: false }),
        [from, to, step] => {
            let step = number(step)?.unwrap_or(1);
            if step <= 0 {
                return fail("step must be > 0");
            }
            Ok(Step::Slice { from: number(from)?, to: number(to)?, step, single: false })
        }
        _ => fail(format!("invalid array index {text}")),
    }
}
