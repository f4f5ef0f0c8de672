//! What programs print that give tokens, and what they complain of.

use super::*;
use proptest::prelude::*;

/// 2023-11-14T22:13:20Z.
const NOW_MS: u64 = 1_700_000_000_000;

fn command(more: &str) -> Command {
    toml::from_str(&format!("command = [\"/bin/token\"]\n{more}")).expect("a command")
}

fn read_plain(output: &str) -> Result<Token, String> {
    read(output.as_bytes(), &command(""), NOW_MS)
}

fn token(value: &str, seconds: Option<u64>) -> Result<Token, String> {
    Ok(Token { value: value.to_owned(), holds_for: seconds.map(Duration::from_secs) })
}

#[test]
fn a_token_is_the_only_line_or_where_usual_programs_put_it() {
    for (output, seconds) in [
        ("ya29.a-b_c~d+e/f==\n", None),
        ("\r\n  ya29.a-b_c~d+e/f==  \r\n\n", None),
        (
            r#"{"kind": "ExecCredential", "status": {"token": "ya29.a-b_c~d+e/f==",
                "expirationTimestamp": "2023-11-14T14:43:20-08:00"}}"#,
            Some(1_800),
        ),
        (
            r#"{"credential": {"access_token": "ya29.a-b_c~d+e/f==", "id_token": "x",
                "token_expiry": "2023-11-14T23:13:20Z"}}"#,
            Some(3_600),
        ),
        (
            r#"{"accessToken": "ya29.a-b_c~d+e/f==", "expiresOn": "2023-11-14 22:23:20.000000",
                "expires_on": 1700000600, "tokenType": "Bearer"}"#,
            Some(600),
        ),
        (r#"{"access_token": "ya29.a-b_c~d+e/f==", "expires_in": 3599}"#, Some(3_599)),
        (r#"{"access_token": "ya29.a-b_c~d+e/f==", "expires_in": "3599"}"#, Some(3_599)),
        (r#"{"token": "ya29.a-b_c~d+e/f==", "expires_at": 1700000060000}"#, Some(60)),
        (r#"{"token": "ya29.a-b_c~d+e/f==", "expiry": null}"#, None),
        // A day is believed, not more.
        (r#"{"token": "ya29.a-b_c~d+e/f==", "expiry": 999999999}"#, Some(86_400)),
    ] {
        assert_eq!(read_plain(output), token("ya29.a-b_c~d+e/f==", seconds), "{output}");
    }
}

#[test]
fn a_description_says_where_another_program_puts_it() {
    let places = command("token = \"/data/0/jwt\"\nexpiry = \"/data/0/end\"");
    let output =
        r#"{"access_token": "no", "expires_in": 5, "data": [{"jwt": "a.b.c", "end": 60}]}"#;
    assert_eq!(read(output.as_bytes(), &places, NOW_MS), token("a.b.c", Some(60)));
    // The end that stands beside a usual token is of that one.
    let place = command("token = \"/data/0/jwt\"");
    assert_eq!(read(output.as_bytes(), &place, NOW_MS), token("a.b.c", None));
    let expiry = command("expiry = \"/data/0/end\"");
    assert_eq!(read(output.as_bytes(), &expiry, NOW_MS), token("no", Some(60)));
    let why = read(b"a.b.c", &places, NOW_MS).expect_err("it is no JSON");
    assert!(why.contains("no JSON object"), "{why}");
}

#[test]
fn what_is_no_token_is_refused_without_being_told() {
    let long = "s3cret".repeat(4_000);
    for (output, told) in [
        ("", "nothing"),
        (" \n\n", "nothing"),
        ("s3cret\ns3cret", "2 lines"),
        ("please log in s3cret", "spaces"),
        ("s3cret\u{7f}", "spaces"),
        ("s3crét", "ASCII"),
        ("s3\"cret", "quotes"),
        (&*long, "24000 bytes"),
        ("{\"s3cret", "begins like JSON"),
        ("{\"s3cret\": 1}", "without a token"),
        ("{\"token\": 53}", "without a token"),
        ("{\"token\": \"\"}", "empty token"),
        ("{\"token\": \"s3cret\", \"expiry\": \"soon s3cret\"}", "neither a moment"),
        ("{\"token\": \"s3cret\", \"expiry\": \"2023-11-14T22:23:20\"}", "neither a moment"),
        ("{\"token\": \"s3cret\", \"expiry\": {}}", "neither a moment"),
        ("{\"token\": \"s3cret\", \"expiry\": \"2023-11-14T22:12:20Z\"}", "ended, 60 s ago"),
        ("{\"token\": \"s3cret\", \"expires_at\": 1699999940}", "ended, 60 s ago"),
        ("{\"token\": \"s3cret\", \"expiry\": \"NaN\"}", "ended"),
        ("{\"token\": \"s3cret\", \"expiry\": -5}", "ended, 5 s ago"),
    ] {
        let why = read_plain(output).expect_err(output);
        assert!(why.contains(told) && !why.contains("s3cret"), "{output}: {why}");
    }
    let why = read(b"s3cret\xff", &command(""), NOW_MS).expect_err("no UTF-8");
    assert!(why.contains("no text"), "{why}");
    assert!(!format!("{:?}", read_plain("s3cret")).contains("s3cret"));
}

#[test]
fn complaints_are_told_short_and_without_what_looks_like_a_secret() {
    for (error, told) in [
        ("", ""),
        ("warning\nERROR: (gcloud.auth) no account\n\n", "ERROR: (gcloud.auth) no account"),
        ("bad token: hunter2", "bad token: ***"),
        ("PASSWORD=hunter2 refused", "PASSWORD=*** refused"),
        ("{\"api_key\":\"hunter2\"}", "{\"api_key\":\"***\"}"),
        ("got Bearer hunter2", "got Bearer ***"),
        ("refused eyJhbGciOi.J1c2VyIjo.5mhBHqs5 by host", "refused *** by host"),
        ("cannot read /usr/lib/python3.11/x: denied", "cannot read /usr/lib/python3.11/x: denied"),
        ("the token is expired", "the token is expired"),
        ("a\u{1b}[31mred", "a [31mred"),
    ] {
        assert_eq!(last_words(error.as_bytes()), told, "{error}");
    }
    assert_eq!(last_words("x ".repeat(1_000).as_bytes()).chars().count(), 203);
}

proptest! {
    #[test]
    fn no_output_makes_it_panic_and_what_is_taken_fits_a_header(output: Vec<u8>, wall_ms: u64) {
        if let Ok(token) = read(&output, &command(""), wall_ms) {
            prop_assert!(token.value.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        prop_assert!(last_words(&output).chars().count() <= 203);
    }

    #[test]
    fn no_expiry_makes_it_panic(expiry in "\\PC{0,30}", number: f64, wall_ms: u64) {
        for expiry in [Value::from(expiry), Value::from(number)] {
            let object = serde_json::json!({ "token": "a", "expiry": expiry }).to_string();
            if let Ok(token) = read(object.as_bytes(), &command(""), wall_ms) {
                let most = token.holds_for.unwrap_or_default();
                prop_assert!(most <= HOLDS_MAX);
            }
        }
    }
}
