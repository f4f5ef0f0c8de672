//! What templates become, and which are refused.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn with<T>(input: &Value, render: impl Fn(Scope<'_>) -> T) -> T {
    let known = BTreeMap::from([
        ("id".to_owned(), "projects/p/operations/o 1".to_owned()),
        ("up".to_owned(), "a/../b".to_owned()),
        ("base".to_owned(), "https://api.example".to_owned()),
    ]);
    let secret = |name: &str| (name == "KEY").then(|| "s3cret".to_owned());
    render(Scope { input, known: &known, secret: &secret })
}

fn text(template: &str, into: Into) -> Result<String, String> {
    let template = Template::try_from(template.to_owned())?;
    with(&json!({"n": 3, "list": [1], "deep": {"x": "y z"}}), |scope| template.text(scope, into))
}

#[test]
fn names_are_replaced_cut_and_escaped() {
    assert_eq!(text("a {input.n} {{x}}", Into::Text).as_deref(), Ok("a 3 {x}"));
    assert_eq!(text("/v1/{input.deep.x}", Into::Path).as_deref(), Ok("/v1/y%20z"));
    assert_eq!(text("{base}/{id|after:/}", Into::Path).as_deref(), Ok("https://api.example/o%201"));
    assert_eq!(
        text("{base}/{id|before:/operations/|path}:x", Into::Path).as_deref(),
        Ok("https://api.example/projects/p:x")
    );
    assert_eq!(text("Bearer {secret:KEY}", Into::Text).as_deref(), Ok("Bearer s3cret"));
    assert_eq!(text("[{input.none?}]", Into::Text).as_deref(), Ok("[]"));
    assert_eq!(text("{input.list.0}", Into::Text).as_deref(), Ok("1"));
}

#[test]
fn what_is_missing_is_named_and_no_value_is_told() {
    for (template, told) in [
        ("{input.prompt}", "{input.prompt} is missing in the job's input"),
        ("{poll_url}", "{poll_url} is not known of this operation"),
        ("{secret:OTHER}", "secret OTHER was not found"),
        ("x{input.list}", "{input.list}: is a list or an object"),
        ("x{id|after:,}", "{id}: does not hold what it is cut at"),
        ("/v1/{up|path}", "{up}: is empty or walks up in a path"),
    ] {
        let refusal = text(template, Into::Path).expect_err(template);
        assert!(refusal.starts_with(told), "{refusal}");
    }
}

#[test]
fn templates_that_cannot_be_meant_are_refused() {
    for template in [
        "{",
        "}",
        "{}",
        "a{b",
        "{a b}",
        "{id|upper}",
        "{id|before:}",
        "{secret:}",
        "{a.b}",
        "{x{y}",
    ] {
        let refusal = Template::try_from(template.to_owned()).expect_err(template);
        assert!(refusal.contains(template), "{refusal}");
    }
    for pointer in ["x", "~", "/~2", "/a~"] {
        Pointer::try_from(pointer.to_owned()).expect_err(pointer);
    }
}

#[test]
fn one_name_alone_is_the_value_itself() {
    let body =
        json!({"all": "{input}", "n": "{input.n}", "no": "{input.x?}", "l": ["{input.y?}", true]});
    let body = Body::try_from(body).expect("templates");
    let input = json!({"n": 3});
    let value = with(&input, |scope| body.value(scope)).expect("nothing is missing");
    assert_eq!(value, Some(json!({"all": {"n": 3}, "n": 3, "l": [true]})));
}

proptest! {
    #[test]
    fn no_template_panics_and_no_value_leaves_its_segment(
        template in "[a-z{}|:./?]{0,16}",
        value in "\\PC{0,12}",
    ) {
        let _ = Template::try_from(template);
        let known = BTreeMap::from([("id".to_owned(), value)]);
        let template = Template::try_from("https://h/a/{id}/z".to_owned()).expect("a template");
        let scope = Scope { input: &Value::Null, known: &known, secret: &|_| None };
        if let Ok(text) = template.text(scope, Into::Path) {
            let url = url::Url::parse(&text).expect("a URL");
            prop_assert!(url.path().starts_with("/a/") && url.path().ends_with("/z"), "{url}");
            prop_assert_eq!(url.path().split('/').count(), 4);
            prop_assert_eq!((url.query(), url.fragment()), (None, None));
        }
    }
}
