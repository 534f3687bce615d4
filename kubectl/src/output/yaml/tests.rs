use super::*;
use proptest::prelude::*;
use serde_json::json;

#[track_caller]
fn check(text: &str, want: &str) {
    assert_eq!(document(&json!({ "k": text })), format!("k: {want}\n"));
}

#[test]
fn strings_that_read_as_something_else_are_quoted() {
    for text in ["1_000", "12:30", ".5", "null", "True", "0b11", "0o7", ".inf", "yes", "", "12", "1e3", "~"] {
        check(text, &format!("{text:?}"));
    }
    check("2020-01-01", "\"2020-01-01\"");
    check("2020-01-01T00:00:00Z", "\"2020-01-01T00:00:00Z\"");
    check("0x1F", "\"0x1F\"");
    check("y", "\"y\"");
}

#[test]
fn plain_strings_stay_plain() {
    for text in
        ["a,b", "?a", ":a", "=", "<<", "-dash", "<html>&", "é", "10.0.0.1", "v1.2.3", "100m", "2020-13-01"]
    {
        check(text, text);
    }
}

#[test]
fn indicators_are_single_quoted() {
    for text in
        ["trail ", "[a", ",a", "? a", "a:", "!a", "%a", "@a", "`a", "|a", "# x", "a: b", " lead", "- dash"]
    {
        check(text, &format!("'{text}'"));
    }
    check("'s'", "'''s'''");
}

#[test]
fn control_characters_are_double_quoted() {
    check("tab\there", r#""tab\there""#);
    check("trail \nx", r#""trail \nx""#);
    check("\u{1F600}", r#""\U0001F600""#);
}

#[test]
fn line_breaks_make_a_literal_block() {
    check("line1\nline2\n", "|\n  line1\n  line2");
    check("l1\nl2", "|-\n  l1\n  l2");
    check("  a\nb", "|2-\n    a\n  b");
    check("a\n\n", "|+\n  a\n");
    check("\nx", "|2-\n\n  x");
}

#[test]
fn long_lines_fold_past_eighty_columns() {
    let text = "word ".repeat(40);
    let out = document(&json!({"data": {"a": text}}));
    let want = format!(
        "data:\n  a: '{}\n    {}\n    {} '\n",
        ["word"; 16].join(" "),
        ["word"; 16].join(" "),
        ["word"; 8].join(" ")
    );
    assert_eq!(out, want);
}

#[test]
fn lists_stand_level_with_their_key() {
    let value = json!({"a": [{"b": 1, "c": [2, [3, 4]]}, "x", {}, []], "e": {}});
    let want = "a:\n- b: 1\n  c:\n  - 2\n  - - 3\n    - 4\n- x\n- {}\n- []\ne: {}\n";
    assert_eq!(document(&value), want);
}

#[test]
fn a_key_that_would_merge_is_quoted() {
    assert_eq!(document(&json!({ "<<": "<<" })), "\"<<\": <<\n");
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(key in "[ -~\u{e9}\n\t]{1,40}", text in "[ -~\u{e9}\n\t\u{1F600}]{0,200}") {
        let value = json!({ key: [text.clone(), { "inner": text }] });
        let printed = document(&value);
        let read = crate::manifest::parse_yaml(&printed).unwrap();
        prop_assert_eq!(read, value, "{}", printed);
    }
}
