//! Doctored journals: one in which all is well, and what is said when one line of it is another.

use super::*;
use serde_json::{Value, json};

/// Two operations over three lives of a client; the second life ends 20 s after it began.
fn well() -> Vec<Value> {
    let line = |at_ms: u64, connection: u64, class: &str, op: &str| {
        json!({
            "at_us": at_ms * 1_000, "connection": connection, "class": class, "kind": class,
            "op": op, "tag": format!("tag-{op}"),
        })
    };
    let with = |mut line: Value, more: Value| {
        for (name, value) in more.as_object().expect("an object") {
            line[name] = value.clone();
        }
        line
    };
    let done = json!({ "ended": true, "state": "done" });
    vec![
        line(0, 1, "submit", "a"),
        line(100, 1, "poll", "a"),
        with(line(200, 1, "poll", "a"), done.clone()),
        with(line(300, 2, "download", "a"), json!({ "expired": true })),
        with(line(400, 1, "poll", "a"), done.clone()),
        // It dies, and does not know that it has been told.
        with(line(1_500, 3, "poll", "a"), done.clone()),
        with(line(1_600, 3, "download", "a"), json!({ "whole": true })),
        line(1_700, 4, "submit", "b"),
        line(21_000, 3, "poll", "b"),
        line(22_500, 5, "poll", "b"),
        with(line(22_600, 5, "poll", "b"), json!({ "ended": true, "state": "failed" })),
    ]
}

fn rules() -> Rules {
    let limits = vec![("submit", 1), ("poll", 3), ("download", 1)];
    let unsettled = Duration::from_secs(5);
    Rules { limits, window: Duration::from_secs(1), finds: true, unsettled }
}

fn judged(lines: &[Value], rules: &Rules) -> Vec<String> {
    let lines: Vec<_> = lines.iter().cloned().map(crate::provider::check::line_of).collect();
    judge(&lines, rules)
}

/// What is said when `line` is added before the line of this number.
fn with(at: usize, line: Value) -> String {
    let mut lines = well();
    lines.insert(at, line);
    judged(&lines, &rules()).join("; ")
}

/// The line of this number, so many milliseconds later, on another connection.
fn later(at: usize, ms: u64, connection: u64) -> Value {
    let mut line = well()[at].clone();
    line["at_us"] = json!(line["at_us"].as_u64().expect("a time") + ms * 1_000);
    line["connection"] = json!(connection);
    line
}

#[test]
fn a_good_journal_is_good_and_has_three_lives() {
    assert_eq!(judged(&well(), &rules()), Vec::<String>::new());
    let lines: Vec<_> = well().into_iter().map(crate::provider::check::line_of).collect();
    assert_eq!(Lives::of(&lines).of, [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
    assert_eq!(ended(&lines).into_iter().collect::<Vec<_>>(), ["tag-a", "tag-b"]);
}

#[test]
fn an_operation_that_is_paid_twice_is_seen() {
    let mut other = later(0, 2_500, 3);
    other["op"] = json!("other");
    let told = with(8, other);
    assert!(told.contains("tag-a was paid twice"), "{told}");
    let mut again = later(7, 19_500, 3);
    again["kind"] = json!("again");
    let told = with(9, again);
    assert_eq!(told, "b: a submission after its id was known");
}

#[test]
fn a_rate_that_is_broken_is_seen_in_any_window() {
    let mut lines = well();
    lines[7]["at_us"] = json!(999_999);
    let told = judged(&lines, &rules()).join("; ");
    assert_eq!(told, "2 requests of class submit in 1s, 1 allowed");
    // A request that was refused counts, too.
    let mut refused = later(1, 50, 1);
    refused["kind"] = json!("refused");
    let told = with(2, refused);
    assert_eq!(told, "4 requests of class poll in 1s, 3 allowed");
}

#[test]
fn a_request_after_the_end_is_seen() {
    assert_eq!(with(9, later(6, 10_000, 3)), "a: a download after its end");
    assert_eq!(with(11, later(10, 2_000, 5)), "b: a poll after its end");
    // A later life must know it, too: it was 19 s old when the client died.
    assert_eq!(with(11, later(5, 23_000, 5)), "a: a poll after its end, 19 s old at a death");
    let mut early = later(5, 50, 3);
    early["at_us"] = json!(1_550_000);
    assert_eq!(with(6, early), "a: a poll after it was done");
}

#[test]
fn an_operation_that_is_forgotten_is_seen() {
    let without = |number: usize, rules: &Rules| {
        let mut lines = well();
        lines.remove(number);
        judged(&lines, rules).join("; ")
    };
    assert_eq!(without(10, &rules()), "b: forgotten: Runs is all it knows");
    assert_eq!(without(6, &rules()), "a: forgotten: Done is all it knows");
    // One whose answer was lost may be unknown to whoever cannot find it, and to nobody else.
    let mut lines = well();
    lines.truncate(8);
    let unknown = Rules { finds: false, ..rules() };
    assert_eq!(judged(&lines, &rules()), ["b: forgotten: Runs is all it knows"]);
    assert_eq!(judged(&lines, &unknown), Vec::<String>::new(), "told just before a death");
    lines.push(later(6, 20_000, 4));
    lines[8]["op"] = json!("c");
    assert_eq!(judged(&lines, &unknown), ["b: forgotten: Runs is all it knows"], "20 s before");
    lines[7]["lost"] = json!(true);
    assert_eq!(judged(&lines, &unknown), Vec::<String>::new());
}

#[test]
fn requests_without_proof_or_to_nowhere_are_seen() {
    for kind in ["unproved", "unknown"] {
        let told = with(1, json!({ "kind": kind, "connection": 1, "at_us": 50_000 }));
        assert!(told.starts_with(&format!("a request that is {kind}")), "{told}");
    }
}
