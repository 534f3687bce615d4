use super::*;
use proptest::prelude::*;
use serde_json::json;

fn document() -> Value {
    json!({
        "kind": "List",
        "items": [
            {"metadata": {"name": "a", "labels": {"app.io/name": "x"}}, "spec": {"n": 1},
             "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}},
            {"metadata": {"name": "b"}, "spec": {"n": 2}, "status": {"conditions": []}},
            {"metadata": {"name": "c"}, "spec": {"n": 3, "on": true}}
        ]
    })
}

#[track_caller]
fn check(template: &str, want: &str) {
    assert_eq!(Template::parse(template).unwrap().render(&document()).unwrap(), want);
}

#[track_caller]
fn check_refused(template: &str, want: &str) {
    let error = match Template::parse(template) {
        Err(e) => e.to_string(),
        Ok(t) => t.strict().render(&document()).unwrap_err().to_string(),
    };
    assert_eq!(error, want);
}

#[test]
fn paths_find_fields_and_items() {
    check("{.kind}", "List");
    check("{$.kind}", "List");
    check("{.items[*].metadata.name}", "a b c");
    check("{.items[0].metadata.name}", "a");
    check("{.items[-1].metadata.name}", "c");
    check("{.items[0:2].metadata.name}", "a b");
    check("{.items[::2].metadata.name}", "a c");
    check("{.items[0,2].metadata.name}", "a c");
    check("{..name}", "a b c");
    check("{.items[*]['metadata.name']}", "");
    check("{.items[0]['metadata']['name']}", "a");
    check("{.items[*].metadata['name','none']}", "a b c");
    check("{.items[0].spec}", "{\"n\":1}");
    check("{.items[0].metadata.labels.app\\.io/name}", "x");
    check("{.items[0].metadata.labels['app.io/name']}", "x");
}

#[test]
fn filters_compare_with_literals_and_paths() {
    check("{.items[?(@.spec.n>1)].metadata.name}", "b c");
    check("{.items[?(@.metadata.name==\"b\")].spec.n}", "2");
    check("{.items[?(@.metadata.name=='b')].spec.n}", "2");
    check("{.items[?(@.metadata.name != 'b')].spec.n}", "1 3");
    check("{.items[0].status.conditions[?(@.type==\"Ready\")].status}", "True");
    check("{.items[?(@.spec.on)].metadata.name}", "c");
    check("{.items[?(@.spec.on==true)].metadata.name}", "c");
    check("{.items[?(@.spec.n==$.items[1].spec.n)].metadata.name}", "b");
}

#[test]
fn ranges_repeat_their_body() {
    check(r#"{range .items[*]}{.metadata.name}{"\t"}{.spec.n}{"\n"}{end}"#, "a\t1\nb\t2\nc\t3\n");
    check("{range .items[*]}[{.metadata.name}, {.spec.n}] {end}", "[a, 1] [b, 2] [c, 3] ");
    check(
        "{range .items[*]}{range .status.conditions[*]}{.type}={.status};{end}{end}",
        "Ready=True;Other=False;",
    );
    check("kind is {.kind}{'\\n'}", "kind is List\n");
    check("{.kind}{\" \"}{.items[0].metadata.name}", "List a");
}

#[test]
fn mistakes_are_named() {
    check_refused("{.kind", "unclosed action");
    check_refused("{end}", "not in range, nothing to end");
    check_refused("{kind}", "unrecognized identifier kind");
    check_refused("{.items[a]}", "invalid array index a");
    check_refused("{.items[::0]}", "step must be > 0");
    check_refused("{.items[9].x}", "array index out of bounds: index 9, length 3");
    check_refused("{.none}", "none is not found");
    check_refused("{.items[?(@.x==1]}", "unterminated filter");
    check_refused("{\"abc}", "unclosed action");
}

#[test]
fn relaxed_expressions_need_no_braces() {
    for text in ["metadata.name", ".metadata.name", "{.metadata.name}", "{metadata.name}", "$.metadata.name"]
    {
        let found = Template::parse_relaxed(text).unwrap();
        let document = json!({"metadata": {"name": "x"}});
        assert_eq!(found.find(&document).unwrap(), [&json!("x")], "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in ".{0,120}") {
        if let Ok(template) = Template::parse(&text) {
            let _ = template.render(&document());
        }
    }

    #[test]
    fn anything_like_a_template_evaluates_or_is_refused(text in "[]\\[{}().?@$*:,'\"\\\\=<>!a-c0-9 -]{0,60}") {
        if let Ok(template) = Template::parse(&format!("{{{text}}}")) {
            let _ = template.render(&document());
        }
    }

    #[test]
    fn text_without_braces_is_itself(text in "[^{}]{0,80}") {
        prop_assert_eq!(Template::parse(&text).unwrap().render(&Value::Null).unwrap(), text);
    }

    #[test]
    fn any_key_is_reached_by_a_quoted_subscript(key in "[^'\\\\{}]{1,20}") {
        let document = json!({ key.clone(): "found" });
        let template = Template::parse(&format!("{{['{key}']}}")).unwrap();
        prop_assert_eq!(template.render(&document).unwrap(), "found");
    }
}
