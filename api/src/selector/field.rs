//! Field selectors: `metadata.name=web,status.phase!=Running`.

/// Comma-separated equalities and inequalities over named fields. All must hold.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FieldSelector {
    /// (field, must be equal, value)
    pub terms: Vec<(String, bool, String)>,
}

/// A term that is no equality.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid selector: {0:?}; can't understand {1:?}")]
pub struct FieldSelectorError(String, String);

impl FieldSelector {
    /// Parses the query grammar, with `\,`, `\=` and `\\` as escapes in values.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        let terms = split_unescaped(text).into_iter().filter(|t| !t.is_empty());
        let parse = |term: String| {
            let error = || FieldSelectorError(text.to_owned(), term.clone());
            let at = term.find(['=', '!']).ok_or_else(error)?;
            let (field, rest) = term.split_at(at);
            let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
                (false, value)
            } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
                (true, value)
            } else {
                return Err(error());
            };
            Ok((field.to_owned(), equal, unescape(value)))
        };
        Ok(Self { terms: terms.map(parse).collect::<Result<_, _>>()? })
    }

    /// A selector for one field.
    pub fn equal(field: &str, value: &str) -> Self {
        Self { terms: vec![(field.to_owned(), true, value.to_owned())] }
    }

    /// Whether all terms hold; a field that `get` does not know is the empty string.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|(field, equal, value)| (get(field).unwrap_or_default() == value) == *equal)
    }

    /// The value that a field must have, if the selector demands one.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(f, equal, _)| f == field && *equal).map(|(_, _, v)| v.as_str())
    }
}

impl std::fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (field, equal, value)) in self.terms.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{}{field}{}{value}", if i > 0 { "," } else { "" }, if *equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

fn split_unescaped(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        terms.last_mut().expect("it starts with one").push(c);
    }
    terms
}

fn unescape(value: &str) -> String {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::FieldSelector;
    use proptest::prelude::*;

    #[test]
    fn terms_are_parsed_and_matched() {
        let s = FieldSelector::parse("metadata.name=web,status.phase!=Running").expect("valid");
        let get = |field: &str| if field == "metadata.name" { Some("web") } else { Some("Pending") };
        assert!(s.matches(get));
        assert_eq!(s.required("metadata.name"), Some("web"));
        assert!(FieldSelector::parse("nonsense").is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(field in "[a-z.]{1,9}", equal: bool, value in "[a-z,=\\\\]{0,9}") {
            let s = FieldSelector { terms: vec![(field, equal, value)] };
            prop_assert_eq!(FieldSelector::parse(&s.to_string()), Ok(s));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = FieldSelector::parse(&text);
        }
    }
}
