//! Reads manifests: files, folders and standard input, YAML or JSON, several documents each.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::session::Session;

/// Where objects are read from.
#[derive(Args, Debug, Clone, Default)]
pub struct FileArgs {
    /// Files, folders or URLs that contain the configuration to use
    #[arg(short = 'f', long = "filename", value_delimiter = ',')]
    pub filename: Vec<String>,
    /// Process the folders used in -f, --filename recursively
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Process a kustomization folder (not supported)
    #[arg(short = 'k', long)]
    pub kustomize: Option<String>,
}

impl FileArgs {
    /// Whether files were named.
    pub fn is_empty(&self) -> bool {
        self.filename.is_empty() && self.kustomize.is_none()
    }
}

/// One object of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file, or `STDIN`.
    pub source: String,
    /// The object.
    pub value: Value,
}

impl Document {
    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.value["apiVersion"].as_str().unwrap_or_default()
    }
    /// `kind`.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }
    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.value["metadata"]["namespace"].as_str().unwrap_or_default()
    }
}

const EXTENSIONS: &[&str] = &["json", "yaml", "yml"];
/// What one file may hold; a server takes no object that comes near.
const MAX_BYTES: u64 = 64 << 20;

/// Everything that was read: the good documents, and what was wrong with the others.
#[derive(Debug, Default)]
pub struct Loaded {
    /// In the order of the files.
    pub documents: Vec<Document>,
    /// One per document or file that could not be read.
    pub errors: Vec<Error>,
}

/// Reads all that `args` names. The error is for what makes the rest meaningless.
pub async fn load(session: &Session, args: &FileArgs) -> Result<Loaded> {
    if args.kustomize.is_some() {
        return Err(Error::message(
            "-k/--kustomize is not supported: render the kustomization first and apply its output with -f -",
        ));
    }
    let mut loaded = Loaded::default();
    for name in &args.filename {
        match read_source(session, name, args.recursive).await {
            Ok(texts) => {
                for (source, text) in texts {
                    parse(&source, &text, &mut loaded);
                }
            }
            Err(e) => loaded.errors.push(e),
        }
    }
    Ok(loaded)
}

async fn read_source(session: &Session, name: &str, recursive: bool) -> Result<Vec<(String, String)>> {
    if name == "-" {
        return Ok(vec![("STDIN".into(), read_limited(std::io::stdin(), "STDIN")?)]);
    }
    if name.starts_with("http://") || name.starts_with("https://") {
        return Ok(vec![(name.into(), session.fetch_loopback(name).await?)]);
    }
    let path = Path::new(name);
    let kind = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::message(format!("the path {name:?} does not exist")),
        _ => Error::message(format!("the path {name:?} cannot be accessed: {e}")),
    })?;
    let mut files = Vec::new();
    if kind.is_dir() {
        list_folder(path, recursive, &mut files)?;
        if files.is_empty() {
            let text = format!("error reading [{name}]: recognized file extensions are [.json .yaml .yml]");
            return Err(Error::message(text));
        }
    } else {
        files.push(path.to_owned());
    }
    files
        .into_iter()
        .map(|file| {
            let source = file.display().to_string();
            let opened =
                std::fs::File::open(&file).map_err(|e| Error::message(format!("open {source}: {e}")))?;
            let text = read_limited(opened, &source)?;
            Ok((source, text))
        })
        .collect()
}

fn read_limited(from: impl Read, source: &str) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::message(format!("error reading {source}: {e}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::message(format!("error reading {source}: larger than {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::message(format!("error parsing {source}: invalid UTF-8 at byte {at}"))
    })
}

/// The manifests of a folder in the order of their names.
fn list_folder(folder: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Result<()> {
    let fail = |e: std::io::Error| Error::message(format!("error reading [{}]: {e}", folder.display()));
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(fail)?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            if recursive && !entry.is_symlink() {
                list_folder(&entry, recursive, files)?;
            }
        } else if entry.extension().and_then(|e| e.to_str()).is_some_and(|e| EXTENSIONS.contains(&e)) {
            files.push(entry);
        }
    }
    Ok(())
}

/// Parses one text into documents, lists flattened.
pub fn parse(source: &str, text: &str, loaded: &mut Loaded) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with(['{', '[']) {
        let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        for item in &mut stream {
            match item {
                Ok(value) => accept(source, value, loaded),
                // A flow-style YAML document opens like JSON but need not be JSON.
                Err(_) if loaded.documents.iter().all(|d| d.source != source) && parse_yaml(text).is_ok() => {
                    accept(source, parse_yaml(text).unwrap_or_default(), loaded);
                    return;
                }
                Err(e) => {
                    loaded.errors.push(Error::message(format!(
                        "error parsing {source}: line {}, column {}: {}",
                        e.line(),
                        e.column(),
                        strip_position(&e.to_string())
                    )));
                    return;
                }
            }
        }
        return;
    }
    for (first_line, part) in split_documents(text) {
        match parse_yaml_at(part, first_line) {
            Ok(Value::Null) => {}
            Ok(value) => accept(source, value, loaded),
            Err(e) => loaded.errors.push(Error::message(format!(
                "error parsing {source}: error converting YAML to JSON: yaml: {e}"
            ))),
        }
    }
}

fn strip_position(text: &str) -> &str {
    text.rfind(" at line ").map_or(text, |at| &text[..at])
}

/// Takes an object, or the objects of a list.
fn accept(source: &str, value: Value, loaded: &mut Loaded) {
    let fail = |text: String| Error::message(format!("unable to decode {source:?}: {text}"));
    let Some(object) = value.as_object() else {
        loaded.errors.push(fail("the document is not an object".into()));
        return;
    };
    for field in ["apiVersion", "kind"] {
        if object.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
            loaded.errors.push(fail(format!(
                "Object '{}' is missing in '{}'",
                if field == "kind" { "Kind" } else { field },
                shorten(&crate::output::json::compact(&value))
            )));
            return;
        }
    }
    let is_list = value["kind"].as_str().is_some_and(|k| k.ends_with("List"));
    match value.get("items").and_then(Value::as_array) {
        Some(items) if is_list => {
            for item in items.clone() {
                accept(source, item, loaded);
            }
        }
        _ => loaded.documents.push(Document { source: source.into(), value }),
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 200 {
        text.into()
    } else {
        text.chars().take(200).chain("...".chars()).collect()
    }
}

/// The documents of a YAML stream, each with the number of lines before it.
fn split_documents(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---").map(str::trim);
        if rest.is_some_and(|r| r.is_empty() || r.starts_with('#')) {
            parts.push((first_line, &text[start..at]));
            start = at + line.len();
            first_line = number + 1;
        }
        at += line.len();
    }
    parts.push((first_line, &text[start..]));
    parts.retain(|(_, part)| !part.trim().is_empty());
    parts
}

/// Parses one YAML document.
pub fn parse_yaml(text: &str) -> Result<Value, String> {
    parse_yaml_at(text, 0)
}

fn parse_yaml_at(text: &str, first_line: usize) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 200,
            max_documents: 1,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let blank = text.lines().all(|l| l.trim_start().is_empty() || l.trim_start().starts_with('#'));
    if blank {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str_with_options(text, options).map_err(|e| {
        let message = e.without_snippet().to_string();
        let message = message.lines().next().unwrap_or_default();
        match e.location() {
            Some(at) => {
                let line = first_line as u64 + at.line();
                let message = message.rfind(" at line ").map_or(message, |end| &message[..end]);
                format!("line {line}, column {}: {message}", at.column())
            }
            None => message.to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parsed(text: &str) -> Loaded {
        let mut loaded = Loaded::default();
        parse("a.yaml", text, &mut loaded);
        loaded
    }

    #[track_caller]
    fn check(text: &str, kinds: &[&str], errors: &[&str]) {
        let loaded = parsed(text);
        let found: Vec<&str> = loaded.documents.iter().map(Document::kind).collect();
        assert_eq!(found, kinds);
        let found: Vec<String> = loaded.errors.iter().map(Error::report).collect();
        assert_eq!(found.len(), errors.len(), "{found:?}");
        for (found, want) in found.iter().zip(errors) {
            assert!(found.contains(want), "{found} has no {want}");
        }
    }

    #[test]
    fn documents_are_split_and_empty_ones_skipped() {
        check(
            "---\napiVersion: v1\nkind: A\n---\n# nothing\n---\napiVersion: v1\nkind: B\n",
            &["A", "B"],
            &[],
        );
        check("", &[], &[]);
    }

    #[test]
    fn the_good_documents_survive_a_bad_one_that_is_reported_with_its_place() {
        check(
            "apiVersion: v1\nkind: A\n---\na: [1\nb: }\n---\napiVersion: v1\nkind: B\n",
            &["A", "B"],
            &["a.yaml"],
        );
        check("apiVersion: v1\nkind: A\n  bad: x\n", &[], &["line 3, column"]);
        check("x: 1\n---\napiVersion: v1\nkind: A\nkind: B\n", &[], &["apiVersion", "line 5, column"]);
    }

    #[test]
    fn json_streams_and_lists_are_flattened() {
        check(r#"{"apiVersion":"v1","kind":"A"} {"apiVersion":"v1","kind":"B"}"#, &["A", "B"], &[]);
        check(r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"A"}]}"#, &["A"], &[]);
        check("{\"apiVersion\":\"v1\",\n\"kind\" \"A\"}", &[], &["line 2, column"]);
    }

    #[test]
    fn scalars_follow_yaml_1_1_as_upstream_reads_them() {
        let read =
            parse_yaml("a: yes\nb: 0644\nc: \"yes\"\nd: 1e3\ne: ~\n8080: x\nf: 0o644\ng: 2020-01-01\n")
                .unwrap();
        assert_eq!(
            read,
            json!({"a": true, "b": 420, "c": "yes", "d": 1000.0, "e": null, "8080": "x", "f": 420, "g": "2020-01-01"})
        );
    }

    #[test]
    fn bombs_and_depth_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", ")));
        }
        assert!(parse_yaml(&bomb).is_err());
        assert!(parse_yaml(&"[".repeat(100_000)).is_err());
        let mut loaded = Loaded::default();
        parse("x.json", &"[".repeat(100_000), &mut loaded);
        assert_eq!(loaded.errors.len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\x00-\\x7f\u{e9}]{0,300}") {
            let _ = parsed(&text);
        }
    }
}
