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
fn a_command_is_taken_as_it_is_written_and_its_mistakes_are_told_by_line_and_key() {
    const BEARER: &str = "auth = { kind = \"bearer\", secret = \"X_KEY\" }\n";
    let auth = "auth.kind = \"command\"\nauth.command = [\"/usr/bin/gcloud\", \"auth\"]\n\
                auth.env = { VAULT_TOKEN = \"{secret:X_KEY}\", ZONE = \"eu\" }\n";
    let provider = load("x.toml", "x", &PLAIN.replace(BEARER, auth)).expect("accepted");
    assert_eq!(provider.secrets(), ["X_KEY"]);
    assert_eq!(provider.auth.header(), Some(("authorization", "Bearer ")));
    let Auth::Command(command) = &provider.auth else { panic!("not {:?}", provider.auth) };
    let (ttl, timeout) = (command.ttl.0.as_secs(), command.timeout.0.as_secs());
    assert_eq!((ttl, timeout, command.command.len()), (600, 30, 2));
    let many = format!("[\"/a\"{}]", ", \"b\"".repeat(64));
    for (key, value, told) in [
        ("command", "[]", "x.toml:7: auth.command: must name a program"),
        ("command", "[\"gcloud\"]", "x.toml:7: auth.command: \"gcloud\" is no absolute path"),
        ("command", "[\"/a/../b\"]", "x.toml:7: auth.command: \"/a/../b\" is no absolute path"),
        ("command", "[\"/a\", \"{secret:K}\"]", "x.toml:7: auth.command: every process"),
        ("command", "[\"/a\", \"b\\u0000\"]", "x.toml:7: auth.command: holds a zero byte"),
        ("command", &many, "x.toml:7: auth.command: 65 words of 66 bytes: at most 64 words"),
        ("command", "\"/a b\"", "x.toml:3: auth: invalid type: string \"/a b\", expected a seq"),
        ("env", "{ \"A B\" = \"x\" }", "x.toml:7: auth.env: \"A B\" is no name of a variable"),
        ("env", "{ \"1\" = \"x\" }", "x.toml:7: auth.env: \"1\" is no name of a variable"),
        ("env", "{ A = \"{input.x}\" }", "x.toml:7: auth.env: A may name secrets only"),
        ("env", "{ A = \"{job}\" }", "x.toml:7: auth.env: A may name secrets only"),
        ("ttl", "\"500ms\"", "x.toml:7: auth.ttl: 500 ms: from 1s to 86400s are allowed"),
        ("ttl", "\"2d\"", "x.toml:7: auth.ttl: 172800000 ms: from 1s to 86400s"),
        ("timeout", "\"3m\"", "x.toml:7: auth.timeout: 180000 ms: from 1s to 120s are allowed"),
        ("header", "\"x y\"", "x.toml:7: auth.header: \"x y\" is no name of a header"),
        ("prefix", "\"a\\nb: \"", "x.toml:7: auth.prefix: at most 100 bytes of visible ASCII"),
        ("token", "\"access\"", "x.toml:3: auth: \"access\": a JSON Pointer is empty or"),
        (
            "secret",
            "\"X_KEY\"",
            "x.toml:3: auth: unknown field `secret`, expected one of `command`",
        ),
    ] {
        let mut lines = vec!["kind = \"command\"", "command = [\"/a\"]", "timeout = \"9s\""];
        lines.retain(|line| !line.starts_with(key));
        while lines.len() < 3 {
            lines.push("# nothing");
        }
        let auth = format!("[auth]\n{}\n{key} = {value}\n", lines.join("\n"));
        let auth = auth.replace("# nothing\n", "\n");
        let text = PLAIN.replace(BEARER, "").replacen("[submit]", &format!("{auth}[submit]"), 1);
        let problems = load("x.toml", "x", &text).expect_err(value);
        assert!(problems[0].to_string().starts_with(told), "{key} = {value}: {}", problems[0]);
    }
    let text = PLAIN.replace(BEARER, auth).replace("https:", "http:");
    let problems = load("x.toml", "x", &text).expect_err("in the clear");
    assert!(problems[0].sentence.contains("in the clear"), "{}", problems[0]);
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
