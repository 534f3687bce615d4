//! Label selectors, in the grammar of `?labelSelector=` and as the typed `LabelSelector`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::validation;

/// One comma-separated part of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// `key in (a,b)`, `key=a`: present with one of these values.
    In(String, BTreeSet<String>),
    /// `key notin (a,b)`, `key!=a`: absent, or present with another value.
    NotIn(String, BTreeSet<String>),
    /// `key`.
    Exists(String),
    /// `!key`.
    DoesNotExist(String),
    /// `key>5`: present with a greater integer.
    GreaterThan(String, i64),
    /// `key<5`: present with a lesser integer.
    LessThan(String, i64),
}

/// A selector that is no sentence of the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LabelSelectorError(pub String);

/// All requirements must hold. Without any, everything matches; [`Selector::nothing`] matches nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object, as a missing `LabelSelector` does.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// The requirements, for indexing and printing.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Several requirements, all of which must hold; without any, everything matches.
    pub fn all_of(requirements: Vec<Requirement>) -> Self {
        Self { requirements, nothing: false }
    }

    /// Labels that must be equal, as a Service's `spec.selector`. An empty map matches everything;
    /// a Service without a selector is for the caller to recognise.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        let equal = |(k, v): (&String, &String)| Requirement::In(k.clone(), BTreeSet::from([v.clone()]));
        Self { requirements: labels.iter().map(equal).collect(), nothing: false }
    }

    /// The typed form. `None` matches nothing and an empty one everything, as documented.
    pub fn from_typed(selector: Option<&LabelSelector>) -> Result<Self, LabelSelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut all = Self::from_map(&selector.match_labels.clone().unwrap_or_default());
        for expression in selector.match_expressions.iter().flatten() {
            let values: BTreeSet<_> = expression.values.iter().flatten().cloned().collect();
            let key = expression.key.clone();
            all.requirements.push(match expression.operator.as_str() {
                "In" | "NotIn" if values.is_empty() => {
                    return Err(LabelSelectorError(format!(
                        "for 'in', 'notin' operators, values set can't be empty (key {key:?})"
                    )));
                }
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                other => {
                    return Err(LabelSelectorError(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            });
        }
        Ok(all)
    }

    /// Parses the query grammar: `a=b,c!=d,e in (f,g),h,!i`.
    pub fn parse(text: &str) -> Result<Self, LabelSelectorError> {
        Parser { rest: text, whole: text }.selector()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Like [`Self::matches`] for labels that are held in another form.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(&get))
    }
}

impl Requirement {
    fn matches<'a>(&self, get: &impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| get(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(key, values) => get(key).is_some_and(|v| values.contains(v)),
            Self::NotIn(key, values) => get(key).is_none_or(|v| !values.contains(v)),
            Self::Exists(key) => get(key).is_some(),
            Self::DoesNotExist(key) => get(key).is_none(),
            Self::GreaterThan(key, than) => number(key).is_some_and(|n| n > *than),
            Self::LessThan(key, than) => number(key).is_some_and(|n| n < *than),
        }
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let join = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
        match self {
            Self::In(k, v) if v.len() == 1 => write!(f, "{k}={}", join(v)),
            Self::In(k, v) => write!(f, "{k} in ({})", join(v)),
            Self::NotIn(k, v) if v.len() == 1 => write!(f, "{k}!={}", join(v)),
            Self::NotIn(k, v) => write!(f, "{k} notin ({})", join(v)),
            Self::Exists(k) => write!(f, "{k}"),
            Self::DoesNotExist(k) => write!(f, "!{k}"),
            Self::GreaterThan(k, n) => write!(f, "{k}>{n}"),
            Self::LessThan(k, n) => write!(f, "{k}<{n}"),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    whole: &'a str,
}

impl<'a> Parser<'a> {
    fn selector(mut self) -> Result<Selector, LabelSelectorError> {
        let mut requirements = Vec::new();
        self.skip_space();
        while !self.rest.is_empty() {
            requirements.push(self.requirement()?);
            self.skip_space();
            if self.rest.is_empty() {
                break;
            }
            if !self.eat(",") {
                return Err(self.unexpected("',' or end of string"));
            }
            self.skip_space();
            if self.rest.is_empty() {
                return Err(self.unexpected("identifier after ','"));
            }
        }
        Ok(Selector { requirements, nothing: false })
    }

    fn requirement(&mut self) -> Result<Requirement, LabelSelectorError> {
        if self.eat("!") {
            return Ok(Requirement::DoesNotExist(self.key()?));
        }
        let key = self.key()?;
        self.skip_space();
        let one = |value: String| BTreeSet::from([value]);
        if self.eat("==") || self.eat("=") {
            Ok(Requirement::In(key, one(self.value()?)))
        } else if self.eat("!=") {
            Ok(Requirement::NotIn(key, one(self.value()?)))
        } else if self.eat(">") {
            Ok(Requirement::GreaterThan(key, self.integer()?))
        } else if self.eat("<") {
            Ok(Requirement::LessThan(key, self.integer()?))
        } else if self.eat_word("in") {
            Ok(Requirement::In(key, self.values()?))
        } else if self.eat_word("notin") {
            Ok(Requirement::NotIn(key, self.values()?))
        } else if self.rest.is_empty() || self.rest.starts_with(',') {
            Ok(Requirement::Exists(key))
        } else {
            Err(self.unexpected("one of '=', '!=', '==', 'in', 'notin', '>', '<'"))
        }
    }

    fn key(&mut self) -> Result<String, LabelSelectorError> {
        self.skip_space();
        let key = self.word();
        match validation::qualified_name(&key).first() {
            None => Ok(key),
            Some(problem) => {
                Err(LabelSelectorError(format!("unable to parse requirement: key {key:?}: {problem}")))
            }
        }
    }

    fn value(&mut self) -> Result<String, LabelSelectorError> {
        self.skip_space();
        let value = self.word();
        match validation::label_value(&value).first() {
            None => Ok(value),
            Some(problem) => {
                Err(LabelSelectorError(format!("unable to parse requirement: value {value:?}: {problem}")))
            }
        }
    }

    fn integer(&mut self) -> Result<i64, LabelSelectorError> {
        let value = self.value()?;
        value
            .parse()
            .map_err(|_| LabelSelectorError(format!("for 'Gt', 'Lt' operators, {value:?} is no integer")))
    }

    fn values(&mut self) -> Result<BTreeSet<String>, LabelSelectorError> {
        self.skip_space();
        if !self.eat("(") {
            return Err(self.unexpected("'('"));
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.value()?);
            self.skip_space();
            if self.eat(")") {
                return Ok(values);
            }
            if !self.eat(",") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
    }

    fn word(&mut self) -> String {
        let end =
            self.rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        match self.rest.strip_prefix(word) {
            Some(rest) if rest.starts_with(|c: char| c.is_whitespace() || c == '(') => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn unexpected(&self, wanted: &str) -> LabelSelectorError {
        let found: String = self.rest.chars().take(20).collect();
        LabelSelectorError(format!(
            "unable to parse requirement: found '{found}', expected: {wanted} in {:?}",
            self.whole
        ))
    }
}

#[cfg(test)]
mod tests;
