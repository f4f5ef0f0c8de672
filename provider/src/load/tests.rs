//! Descriptions that are accepted, and what refusals say.

use super::*;
use proptest::prelude::*;

const PLAIN: &str = r#"name = "x"
base = "https://api.example"
auth = { kind = "bearer", secret = "X_KEY" }
[submit]
url = "{base}/v1/things"
body = { prompt = "{input.prompt}" }
take = { id = "/id" }
[poll]
url = "{base}/v1/things/{id}"
status = "/state"
map = { done = ["done"], failed = ["failed"] }
"#;

fn refusal(old: &str, new: &str) -> String {
    assert!(PLAIN.contains(old), "{old}");
    let problems = load("x.toml", "x", &PLAIN.replacen(old, new, 1)).expect_err(new);
    problems[0].to_string()
}

#[test]
fn a_small_description_is_enough() {
    let provider = load("x.toml", "x", PLAIN).expect("accepted");
    assert_eq!(provider.secrets(), ["X_KEY"]);
    let poll = provider.poll.expect("it polls");
    assert_eq!((poll.attempts, poll.every.factor), (3_600, 1.5));
}

#[test]
fn a_refusal_names_line_and_key_and_what_is_allowed() {
    for (old, new, told) in [
        ("name = \"x\"", "name = ", "x.toml:1: "),
        ("name = \"x\"", "name = \"y\"", "x.toml:1: name: is \"y\", and the file is called x.toml"),
        ("base = \"https", "base = \"ftp", "x.toml:2: base: has scheme \"ftp\""),
        ("base = \"https", "base = \"http", "x.toml:2: base: is http, and `auth` would send"),
        ("//api", "//me:pw@api", "x.toml:2: base: holds a credential"),
        ("\"bearer\", secret", "\"beer\", secret", "x.toml:3: auth.kind: unknown variant `beer`"),
        (
            "url = \"{base}/v1/things\"",
            "url = \"{base\"",
            "x.toml:5: submit.url: \"{base\": a brace",
        ),
        ("{input.prompt}", "{secret:X_KEY}", "x.toml:6: submit.body: names a secret"),
        ("{input.prompt}", "{url}", "x.toml:6: submit.body: {url} is nothing that is known here"),
        ("{ id = \"/id\" }", "{ id = \"id\" }", "x.toml:7: submit.take.id: \"id\": a JSON Pointer"),
        ("{ id = \"/id\" }", "{ nr = \"/id\" }", "x.toml:7: submit.take: must take `id`"),
        ("things/{id}", "things/{it}", "x.toml:9: poll.url: {it} is nothing that is known here"),
        ("status", "state", "x.toml:10: poll.state: unknown field `state`"),
        ("done = [\"done\"], ", "", "x.toml:11: poll.map: must say with `done`"),
        ("status =", "first = \"5\"\nstatus =", "x.toml:10: poll.first: \"5\": expected a time"),
        (
            "status =",
            "every = { min = \"2m\" }\nstatus =",
            "x.toml:10: poll.every.min: 120000 ms: must be",
        ),
        (
            "[poll]",
            "[limits]\nsubmit = \"x\"\n[poll]",
            "x.toml:9: limits.submit: \"x\": expected requests",
        ),
        (
            "[poll]",
            "[limits]\nin_flight = 0\n[poll]",
            "x.toml:9: limits.in_flight: 0: from 1 to 256",
        ),
        (
            "[poll]",
            "lookup = { url = \"{base}\", key = \"/k\" }\n[poll]",
            "x.toml:8: submit.lookup: needs",
        ),
        ("[poll]", "[download]\n[poll]", "x.toml:8: download: needs `result.items`"),
        (
            "[submit]",
            "private = [\"localhost\"]\n[submit]",
            "x.toml:4: private: \"localhost\" is no",
        ),
        ("[submit]", "ca_file = \"mine.pem\"\n[submit]", "x.toml:4: ca_file: \"mine.pem\" is no"),
        (
            "\"https://api.example\"",
            "\"http://10.0.0.7\"\nprivate = [\"10.0.0.7\"]\nca_file = \"/ca.pem\"",
            "x.toml:4: ca_file: is for TLS, and `base` is not https",
        ),
    ] {
        let refusal = refusal(old, new);
        assert!(refusal.starts_with(told), "{new}: {refusal}");
    }
}

#[test]
fn all_contradictions_are_told_at_once() {
    let text = PLAIN.replace("{id}", "{it}").replace("name = \"x\"", "name = \"x y\"");
    assert_eq!(load("x.toml", "x", &text).expect_err("two").len(), 2);
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let text = format!("{PLAIN}#{}", "x".repeat(BYTES_MAX));
    let problems = load("x.toml", "x", &text).expect_err("too large");
    assert!(problems[0].sentence.contains("at most 262144"), "{}", problems[0]);
}

proptest! {
    #[test]
    fn a_broken_description_is_refused_without_a_panic(at in 0_usize..300, with in "\\PC{0,4}") {
        let mut text = PLAIN.to_owned();
        let at = text.floor_char_boundary(at);
        let end = text.floor_char_boundary((at + 3).min(text.len()));
        text.replace_range(at..end, &with);
        if let Err(problems) = load("x.toml", "x", &text) {
            prop_assert!(!problems.is_empty());
        }
    }
}
