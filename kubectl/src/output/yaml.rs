//! YAML as kubectl prints it: block style, sorted keys, lists level with their key, lines folded past
//! eighty columns, and strings quoted where a YAML 1.1 reader could take them for something else.

use serde_json::Value;
use std::fmt::Write;

const WIDTH: usize = 80;

/// A document with a final newline.
pub fn document(value: &Value) -> String {
    let mut emitter = Emitter { out: String::new(), column: 0 };
    match value {
        Value::Object(map) if !map.is_empty() => emitter.mapping(map, 0, false),
        Value::Array(items) if !items.is_empty() => emitter.sequence(items, 0, false),
        scalar => {
            emitter.scalar(scalar, 2);
            emitter.newline();
        }
    }
    emitter.out
}

struct Emitter {
    out: String,
    column: usize,
}

impl Emitter {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn put_char(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn newline(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    fn indent(&mut self, width: usize) {
        self.out.extend(std::iter::repeat_n(' ', width));
        self.column += width;
    }

    fn fold(&mut self, width: usize) {
        self.newline();
        self.indent(width);
    }

    /// `inline`: the first key continues a line that begins with `- `.
    fn mapping(&mut self, map: &serde_json::Map<String, Value>, depth: usize, inline: bool) {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        for (i, (key, value)) in entries.into_iter().enumerate() {
            if i > 0 || !inline {
                self.indent(depth);
            }
            if key.len() > 128 || key.contains('\n') {
                self.put("? ");
                self.string(key, depth + 2, false);
                self.newline();
                self.indent(depth);
            } else {
                self.string(key, depth, true);
            }
            self.put(":");
            self.value(value, depth);
        }
    }

    fn value(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                self.newline();
                self.mapping(map, depth + 2, false);
            }
            Value::Array(items) if !items.is_empty() => {
                self.newline();
                self.sequence(items, depth, false);
            }
            scalar => {
                self.put(" ");
                self.scalar(scalar, depth + 2);
                self.newline();
            }
        }
    }

    fn sequence(&mut self, items: &[Value], depth: usize, inline: bool) {
        for (i, item) in items.iter().enumerate() {
            if i > 0 || !inline {
                self.indent(depth);
            }
            self.put("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.mapping(map, depth + 2, true),
                Value::Array(items) if !items.is_empty() => self.sequence(items, depth + 2, true),
                scalar => {
                    self.scalar(scalar, depth + 2);
                    self.newline();
                }
            }
        }
    }

    fn scalar(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Null => self.put("null"),
            Value::Bool(b) => self.put(if *b { "true" } else { "false" }),
            Value::Number(n) => self.put(&super::json::number(n)),
            Value::String(text) => self.string(text, indent, false),
            Value::Array(_) => self.put("[]"),
            Value::Object(_) => self.put("{}"),
        }
    }

    fn string(&mut self, text: &str, indent: usize, key: bool) {
        let analysis = Analysis::of(text);
        let wanted = if text.contains('\n') {
            Style::Literal
        } else if reads_as_string(text) && !(key && text == MERGE) {
            Style::Plain
        } else {
            Style::Double
        };
        match analysis.style(wanted, key) {
            Style::Plain => self.plain(text, indent, !key),
            Style::Single => self.single(text, indent, !key),
            Style::Double => self.double(text, indent, !key),
            Style::Literal => self.literal(text, indent),
        }
    }

    fn plain(&mut self, text: &str, indent: usize, fold: bool) {
        let mut spaces = false;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c == ' ' {
                if fold && !spaces && self.column > WIDTH && chars.peek() != Some(&' ') {
                    self.fold(indent);
                } else {
                    self.put_char(c);
                }
                spaces = true;
            } else {
                self.put_char(c);
                spaces = false;
            }
        }
    }

    fn single(&mut self, text: &str, indent: usize, fold: bool) {
        self.put_char('\'');
        let last = text.chars().count().saturating_sub(1);
        let mut spaces = false;
        let mut chars = text.chars().enumerate().peekable();
        while let Some((i, c)) = chars.next() {
            if c == ' ' {
                let next_is_space = chars.peek().is_some_and(|(_, c)| *c == ' ');
                if fold && !spaces && self.column > WIDTH && i > 0 && i < last && !next_is_space {
                    self.fold(indent);
                } else {
                    self.put_char(c);
                }
                spaces = true;
            } else {
                if c == '\'' {
                    self.put_char(c);
                }
                self.put_char(c);
                spaces = false;
            }
        }
        self.put_char('\'');
    }

    fn double(&mut self, text: &str, indent: usize, fold: bool) {
        self.put_char('"');
        let last = text.chars().count().saturating_sub(1);
        let mut spaces = false;
        let mut chars = text.chars().enumerate().peekable();
        while let Some((i, c)) = chars.next() {
            if !printable(c) || is_break(c) || c == '"' || c == '\\' {
                let escaped = escape(c);
                self.put(&escaped);
                spaces = false;
            } else if c == ' ' {
                if fold && !spaces && self.column > WIDTH && i > 0 && i < last {
                    self.fold(indent);
                    if chars.peek().is_some_and(|(_, c)| *c == ' ') {
                        self.put_char('\\');
                    }
                } else {
                    self.put_char(c);
                }
                spaces = true;
            } else {
                self.put_char(c);
                spaces = false;
            }
        }
        self.put_char('"');
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.put("|");
        if text.starts_with([' ', '\n']) {
            self.put("2");
        }
        match text.strip_suffix('\n') {
            None => self.put("-"),
            Some(rest) if rest.is_empty() || rest.ends_with('\n') => self.put("+"),
            Some(_) => {}
        }
        let body = text.strip_suffix('\n').unwrap_or(text);
        for line in body.split('\n') {
            self.newline();
            if !line.is_empty() {
                self.indent(indent);
                self.put(line);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

/// Which styles can carry a text.
#[derive(Default)]
struct Analysis {
    multiline: bool,
    no_plain: bool,
    no_single: bool,
    no_block: bool,
}

impl Analysis {
    fn of(text: &str) -> Self {
        let mut found = Self { no_block: text.is_empty(), ..Self::default() };
        let chars: Vec<char> = text.chars().collect();
        let blank_at = |i: usize| chars.get(i).is_none_or(|c| matches!(c, ' ' | '\t') || is_break(*c));
        found.no_plain |= text.starts_with("---") || text.starts_with("...");
        let (mut after_space, mut after_break) = (false, false);
        for (i, &c) in chars.iter().enumerate() {
            let edge = i == 0 || i + 1 == chars.len();
            found.no_plain |= match c {
                '#' if i > 0 => blank_at(i - 1),
                ':' => blank_at(i + 1),
                '?' | '-' if i == 0 => blank_at(i + 1),
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
                | '`' => i == 0,
                _ => false,
            };
            if !printable(c) {
                found.refuse_all();
            }
            if c == ' ' {
                found.no_plain |= edge;
                found.no_block |= i + 1 == chars.len();
                if after_break {
                    found.no_plain = true;
                    found.no_single = true;
                }
                (after_space, after_break) = (true, false);
            } else if is_break(c) {
                found.multiline = true;
                found.no_plain = true;
                if after_space {
                    found.refuse_all();
                }
                (after_space, after_break) = (false, true);
            } else {
                (after_space, after_break) = (false, false);
            }
        }
        found
    }

    fn refuse_all(&mut self) {
        self.no_plain = true;
        self.no_single = true;
        self.no_block = true;
    }

    fn style(&self, wanted: Style, key: bool) -> Style {
        let mut style = wanted;
        if style == Style::Plain && (self.no_plain || key && self.multiline) {
            style = Style::Single;
        }
        if style == Style::Single && self.no_single {
            style = Style::Double;
        }
        if style == Style::Literal && (self.no_block || key) {
            style = Style::Double;
        }
        style
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => "\\0",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\t' => "\\t",
        '\n' => "\\n",
        '\u{b}' => "\\v",
        '\u{c}' => "\\f",
        '\r' => "\\r",
        '\u{1b}' => "\\e",
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{85}' => "\\N",
        '\u{2028}' => "\\L",
        '\u{2029}' => "\\P",
        _ => "",
    };
    if !short.is_empty() {
        return short.to_owned();
    }
    let code = c as u32;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = match code {
        0..=0xff => write!(out, "\\x{code:02X}"),
        0x100..=0xffff => write!(out, "\\u{code:04X}"),
        _ => write!(out, "\\U{code:08X}"),
    };
    out
}

/// Whether a YAML 1.1 reader takes the plain text for a string, and not for a number, a boolean,
/// null or a time.
/// As a key, and only there, this text has a meaning in YAML 1.1: the mapping that follows is merged.
const MERGE: &str = "<<";

fn reads_as_string(text: &str) -> bool {
    const WORDS: &[&str] = &[
        "", "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "y", "Y", "yes",
        "Yes", "YES", "n", "N", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF", ".nan", ".NaN",
        ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF",
    ];
    !WORDS.contains(&text) && !is_number(text) && !is_sexagesimal(text) && !is_time(text)
}

fn is_number(text: &str) -> bool {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return false;
    }
    let plain = text.replace('_', "");
    let body = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let radix = |prefix: [&str; 2], radix: u32| {
        prefix.iter().any(|p| {
            body.strip_prefix(p).is_some_and(|d| !d.is_empty() && d.chars().all(|c| c.is_digit(radix)))
        })
    };
    radix(["0x", "0X"], 16) || radix(["0b", "0B"], 2) || radix(["0o", "0O"], 8) || is_decimal(body)
}

fn is_decimal(body: &str) -> bool {
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty()),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    mantissa_ok && exponent_ok
}

/// `12:30` and its like, which YAML 1.1 counts in base sixty.
fn is_sexagesimal(text: &str) -> bool {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (body, fraction) = body.split_once('.').unwrap_or((body, ""));
    let mut parts = body.split(':');
    let first = parts.next().unwrap_or_default();
    let mut count = 0;
    let rest_ok = parts.all(|p| {
        count += 1;
        (1..=2).contains(&p.len())
            && p.chars().all(|c| c.is_ascii_digit())
            && (p.len() == 1 || p.as_bytes()[0] < b'6')
    });
    count > 0
        && rest_ok
        && first.starts_with(|c: char| c.is_ascii_digit())
        && first.chars().all(|c| c.is_ascii_digit() || c == '_')
        && fraction.chars().all(|c| c.is_ascii_digit() || c == '_')
}

/// `2020-01-01` and `2020-01-01T00:00:00Z` in the spellings that YAML 1.1 readers take for times.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || !bytes[..4].iter().all(u8::is_ascii_digit) || bytes[4] != b'-' {
        return false;
    }
    let end = text.find(['T', 't', ' ']).unwrap_or(text.len());
    let mut date = text[..end].split('-');
    let number = |part: Option<&str>, max: u32| {
        part.is_some_and(|p| (1..=2).contains(&p.len()) && p.parse::<u32>().is_ok_and(|n| n >= 1 && n <= max))
    };
    date.next();
    if !number(date.next(), 12) || !number(date.next(), 31) || date.next().is_some() {
        return false;
    }
    if end == text.len() {
        return true;
    }
    is_clock(&text[end + 1..], bytes[end] != b' ')
}

/// The part after the date; a zone follows where a `T` stood before it.
fn is_clock(text: &str, zone: bool) -> bool {
    let end = text.find(['Z', '+', '-']).unwrap_or(text.len());
    let (clock, rest) = text.split_at(end);
    let clock = clock.split_once('.').map_or(clock, |(c, _)| c);
    let parts: Vec<&str> = clock.split(':').collect();
    let fits = parts.len() == 3
        && parts.iter().all(|p| (1..=2).contains(&p.len()) && p.parse::<u32>().is_ok_and(|n| n < 60));
    fits && (rest.is_empty() != zone) && (rest.is_empty() || rest == "Z" || rest.len() == 6)
}

#[cfg(test)]
mod tests;
