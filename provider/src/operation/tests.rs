//! Operations played event by event, and one that meets every fault in any order.

use super::*;
use crate::load::load;
use crate::queue::Class;
use proptest::prelude::*;
use serde_json::json;

const PLAIN: &str = r#"
name = "x"
base = "https://api.example"
[submit]
url = "{base}/v1/things"
take = { id = "/id" }
[poll]
url = "{base}/v1/things/{id}"
status = "/state"
map = { done = ["done"], failed = ["failed"], cancelled = ["stopped"] }
first = "2s"
every = { min = "1s", max = "8s", factor = 2.0, jitter = 0.0 }
attempts = 20
deadline = "1h"
[result]
items = "/files"
require = 1
reason = ["/why"]
[download]
renewals = 2
attempts = 3
[cancel]
url = "{base}/v1/things/{id}/cancel"
"#;

fn provider(change: impl Fn(&str) -> String) -> Arc<Provider> {
    Arc::new(
        load("x.toml", "x", &change(PLAIN)).unwrap_or_else(|problems| panic!("{}", problems[0])),
    )
}

fn plain() -> Arc<Provider> {
    provider(str::to_owned)
}

/// An operation and what it said last.
struct Play {
    operation: Operation,
    now: Now,
}

impl Play {
    fn new(provider: &Arc<Provider>) -> Self {
        Self::resumed(provider, Record::new("x".to_owned(), "k1".to_owned()))
    }

    fn resumed(provider: &Arc<Provider>, record: Record) -> Self {
        let now = Now { at: Duration::from_secs(100_000), wall_ms: 1_790_000_000_000 };
        Self { operation: Operation::new(Arc::clone(provider), record, 7, true), now }
    }

    fn say(&mut self, event: Event) -> Vec<Step> {
        let mut out = Vec::new();
        self.operation.handle(self.now, event, &mut out);
        if let Some(Step::Queue { due, .. }) = out.last()
            && *due > self.now.at
        {
            let wait = *due - self.now.at;
            self.now.at = *due;
            self.now.wall_ms += u64::try_from(wait.as_millis()).expect("short");
        }
        out
    }

    fn answer(&mut self, status: u16, body: &Value) -> Vec<Step> {
        self.say(Event::Answered(Answer { status, body: Some(body.clone()), ..Answer::default() }))
    }

    /// Submits, and is answered with id `o1`, durable.
    fn submitted(provider: &Arc<Provider>) -> Self {
        let mut play = Self::new(provider);
        assert!(matches!(play.say(Event::Begin)[..], [Step::Queue { class: Class::Submit, .. }]));
        let [Step::Store(intent)] = &play.say(Event::Turn)[..] else { panic!("an intent first") };
        assert_eq!(intent.stage, Stage::Submitting);
        assert_eq!(play.say(Event::Stored), [Step::Send(Call::Submit)]);
        let [Step::Store(record)] = &play.answer(201, &json!({"id": "o1"}))[..] else {
            panic!("the id is stored before anything else")
        };
        assert_eq!((record.stage, record.known["id"].as_str()), (Stage::Submitted, "o1"));
        assert!(matches!(play.say(Event::Stored)[..], [Step::Queue { class: Class::Poll, .. }]));
        play
    }

    fn polled(&mut self, status: u16, body: &Value) -> Vec<Step> {
        assert_eq!(self.say(Event::Turn), [Step::Send(Call::Poll)]);
        self.answer(status, body)
    }
}

fn ending(steps: &[Step]) -> &Ending {
    match steps.last() {
        Some(Step::Finish(ending)) => ending,
        other => panic!("not over: {other:?}"),
    }
}

fn failure(steps: &[Step]) -> &str {
    match ending(steps) {
        Ending::Failed { message, .. } => message,
        other => panic!("not failed: {other:?}"),
    }
}

#[test]
fn a_jump_of_the_wall_clock_moves_no_due_time_and_spends_no_deadline() {
    const HOUR_MS: i64 = 3_600_000;
    let dues = |jump_ms: i64| {
        let provider = plain();
        let mut play = Play::submitted(&provider);
        let mut dues = Vec::new();
        for at in 0..12 {
            // There and back again.
            let by = if at % 4 < 2 { jump_ms } else { -jump_ms };
            play.now.wall_ms = play.now.wall_ms.saturating_add_signed(by);
            match &play.polled(200, &json!({"state": "runs"}))[..] {
                [Step::Queue { class: Class::Poll, due }] => dues.push(*due),
                other => panic!("{jump_ms}: it is polled again, not {other:?}"),
            }
        }
        dues
    };
    let calm = dues(0);
    assert_eq!(calm.len(), 12);
    for jump_ms in [HOUR_MS, -HOUR_MS, 24 * HOUR_MS] {
        assert_eq!(dues(jump_ms), calm, "{jump_ms}");
    }
}

#[test]
fn an_operation_from_after_a_clock_that_went_back_is_young_and_polled_at_once() {
    let provider = plain();
    let record = Play::submitted(&provider).operation.record().clone();
    let mut play = Play::resumed(&provider, record);
    play.now.wall_ms -= 3_600_000;
    let began = play.now.at;
    assert_eq!(play.say(Event::Begin), [Step::Queue { class: Class::Poll, due: began }]);
    let steps = play.polled(200, &json!({"state": "runs"}));
    assert!(matches!(steps[..], [Step::Queue { class: Class::Poll, .. }]), "{steps:?}");
}

#[test]
fn an_operation_is_submitted_polled_and_its_files_are_fetched() {
    let mut play = Play::submitted(&plain());
    let submitted_at = play.now.at;
    for wait in [1, 2, 4, 8, 8] {
        let before = play.now.at;
        play.polled(200, &json!({"state": "working"}));
        assert_eq!(play.now.at - before, Duration::from_secs(wait));
    }
    assert_eq!(play.now.at - submitted_at, Duration::from_secs(23));
    play.polled(200, &json!({"state": "done", "files": ["https://c/1", "https://c/2"]}));
    assert_eq!(play.say(Event::Turn), [Step::Send(Call::Download(0))]);
    let file = |name: &str| FileDone { path: name.to_owned(), bytes: 9 };
    play.say(Event::Downloaded(Ok(file("/out/1"))));
    assert_eq!(play.say(Event::Turn), [Step::Send(Call::Download(1))]);
    let steps = play.say(Event::Downloaded(Ok(file("/out/2"))));
    let Ending::Done(result) = ending(&steps) else { panic!("{steps:?}") };
    assert_eq!(result["operation"], "o1");
    assert_eq!(result["files"][1]["path"], "/out/2");
    assert_eq!(result["polls"], 6);
}

#[test]
fn what_the_provider_has_is_polled_after_a_crash_and_never_submitted_again() {
    let play = Play::submitted(&plain());
    let record = Record::read(&play.operation.record().to_bytes()).expect("a record");
    let mut again = Play::resumed(&plain(), record);
    let steps = again.say(Event::Begin);
    assert_eq!(steps, [Step::Queue { class: Class::Poll, due: again.now.at }]);
}

#[test]
fn a_lost_answer_holds_the_job_and_says_how_to_decide() {
    let mut play = Play::new(&plain());
    play.say(Event::Begin);
    play.say(Event::Turn);
    play.say(Event::Stored);
    let loss = Loss { may_have_arrived: true, is_final: false, why: "timed out".to_owned() };
    let steps = play.say(Event::Lost(loss));
    let Ending::Held(reason) = ending(&steps) else { panic!("{steps:?}") };
    for part in ["timed out", "key k1", "--adopt OP", "--resubmit"] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn a_request_that_never_left_is_sent_again() {
    let mut play = Play::new(&plain());
    play.say(Event::Begin);
    play.say(Event::Turn);
    play.say(Event::Stored);
    let loss = Loss { may_have_arrived: false, is_final: false, why: "refused".to_owned() };
    let steps = play.say(Event::Lost(loss));
    assert!(matches!(steps[..], [Step::Store(_), Step::Queue { class: Class::Submit, .. }]));
}

#[test]
fn an_intent_without_an_answer_is_settled_as_the_description_says() {
    let interrupted = |change: &dyn Fn(&str) -> String, resolution| {
        let mut record = Record::new("x".to_owned(), "k1".to_owned());
        record.stage = Stage::Submitting;
        record.since_ms = 1_789_999_000_000;
        record.resolution = resolution;
        Play::resumed(&provider(change), record).say(Event::Begin)
    };
    let same = |text: &str| text.to_owned();
    assert!(matches!(ending(&interrupted(&same, None)), Ending::Held(_)));
    let dedupe =
        |text: &str| text.replace("take", "dedupe = { kind = \"header\", name = \"K\" }\ntake");
    let steps = interrupted(&dedupe, None);
    assert!(matches!(steps[..], [Step::Queue { class: Class::Submit, .. }]), "{steps:?}");
    let steps = interrupted(&same, Some(Resolution::Resubmit));
    assert!(matches!(steps[..], [Step::Queue { class: Class::Submit, .. }]), "{steps:?}");
    let [Step::Store(record)] = &interrupted(&same, Some(Resolution::Adopt("o9".into())))[..]
    else {
        panic!("adopted, and that is durable first")
    };
    assert_eq!((record.stage, record.known["id"].as_str()), (Stage::Submitted, "o9"));
}

#[test]
fn a_lookup_finds_what_was_accepted_and_holds_what_was_not() {
    let with_lookup = |text: &str| {
        text.replace(
            "take",
            "body = { k = \"{key}\" }\nlookup = { url = \"{base}/v1/things\", items = \"/all\", \
             key = \"/k\" }\ntake",
        )
    };
    for (key, is_found) in [("k1", true), ("k2", false)] {
        let mut play = Play::new(&provider(with_lookup));
        play.say(Event::Begin);
        play.say(Event::Turn);
        play.say(Event::Stored);
        play.answer(502, &json!({}));
        assert_eq!(play.say(Event::Turn), [Step::Send(Call::Lookup)]);
        let steps =
            play.answer(200, &json!({"all": [{"k": "k0", "id": "o0"}, {"k": key, "id": "o5"}]}));
        if is_found {
            let [Step::Store(record)] = &steps[..] else { panic!("{steps:?}") };
            assert_eq!(record.known["id"], "o5");
        } else {
            assert!(matches!(ending(&steps), Ending::Held(_)), "{steps:?}");
        }
    }
}

#[test]
fn done_without_a_result_is_a_failure_with_its_reason() {
    let mut play = Play::submitted(&plain());
    let steps = play.polled(200, &json!({"state": "done", "files": [], "why": ["filtered"]}));
    assert!(failure(&steps).contains("filtered"), "{steps:?}");
    // A person who retries the job wants another operation, under another key.
    let Step::Store(record) = &steps[0] else { panic!("{steps:?}") };
    assert_eq!((record.stage, record.key.as_str()), (Stage::New, "k1-again"));
}

#[test]
fn states_that_nobody_knows_mean_that_it_runs_until_the_polls_are_used_up() {
    let mut play = Play::submitted(&plain());
    for _ in 1..20 {
        let steps = play.polled(200, &json!({"state": "pondering"}));
        assert!(matches!(steps[..], [Step::Queue { .. }]), "{steps:?}");
    }
    let steps = play.polled(200, &json!({"state": "pondering"}));
    assert!(failure(&steps).contains("20 tries; operation o1 is still pondering"), "{steps:?}");
}

#[test]
fn an_html_page_and_a_refused_credential_do_not_end_what_was_paid_for() {
    let mut play = Play::submitted(&plain());
    for status in [200, 401, 403, 429, 500, 503] {
        assert_eq!(play.say(Event::Turn), [Step::Send(Call::Poll)]);
        let answer = Answer { status, unreadable: "<html>".to_owned(), ..Answer::default() };
        let steps = play.say(Event::Answered(answer));
        assert!(
            matches!(steps[..], [Step::Queue { class: Class::Poll, .. }]),
            "{status}: {steps:?}"
        );
    }
    assert!(play.operation.note(play.now.at).contains("last error: status 503: <html>"));
}

#[test]
fn an_operation_that_the_provider_does_not_know_is_believed_the_fifth_time() {
    let mut play = Play::submitted(&plain());
    for _ in 0..4 {
        assert!(matches!(play.polled(404, &json!({}))[..], [Step::Queue { .. }]));
    }
    assert!(failure(&play.polled(404, &json!({}))).contains("does not know it"));
}

#[test]
fn links_that_have_expired_are_renewed_by_polling_and_not_for_ever() {
    let mut play = Play::submitted(&plain());
    let done = json!({"state": "done", "files": ["https://c/1"]});
    for _ in 0..2 {
        play.polled(200, &done);
        play.say(Event::Turn);
        let steps = play.say(Event::Downloaded(Err(FileError::Expired("status 403".into()))));
        assert!(matches!(steps[..], [Step::Queue { class: Class::Poll, .. }]), "{steps:?}");
    }
    play.polled(200, &done);
    play.say(Event::Turn);
    let steps = play.say(Event::Downloaded(Err(FileError::Expired("status 403".into()))));
    assert!(failure(&steps).contains("expired 3 times"), "{steps:?}");
}

#[test]
fn a_cancel_is_told_to_the_provider_and_does_not_wait_for_ever() {
    let mut play = Play::submitted(&plain());
    let steps = play.say(Event::Stop(Stop::Cancel));
    assert!(matches!(steps[..], [Step::Queue { class: Class::Cancel, .. }]));
    for _ in 0..2 {
        assert_eq!(play.say(Event::Turn), [Step::Send(Call::Cancel)]);
        assert!(matches!(play.answer(500, &json!({}))[..], [Step::Queue { .. }]));
    }
    play.say(Event::Turn);
    assert_eq!(ending(&play.answer(500, &json!({}))), &Ending::Cancelled);
}

#[test]
fn a_cancel_while_it_is_submitted_waits_for_the_id_to_cancel_it() {
    let mut play = Play::new(&plain());
    play.say(Event::Begin);
    play.say(Event::Turn);
    play.say(Event::Stored);
    assert_eq!(play.say(Event::Stop(Stop::Cancel)), []);
    assert!(matches!(play.answer(201, &json!({"id": "o1"}))[..], [Step::Store(_)]));
    assert!(matches!(play.say(Event::Stored)[..], [Step::Queue { class: Class::Cancel, .. }]));
}

#[test]
fn a_release_before_the_request_left_leaves_no_question() {
    let mut play = Play::new(&plain());
    play.say(Event::Begin);
    play.say(Event::Turn);
    assert_eq!(play.say(Event::Stop(Stop::Release)), []);
    let steps = play.say(Event::Stored);
    let [Step::Store(record), Step::Finish(Ending::Released)] = &steps[..] else {
        panic!("{steps:?}")
    };
    assert_eq!(record.stage, Stage::New);
}

#[test]
fn a_clock_that_has_jumped_ends_nothing_before_it_was_polled() {
    let mut record = Play::submitted(&plain()).operation.record().clone();
    record.since_ms = 1;
    let mut play = Play::resumed(&plain(), record);
    assert!(matches!(play.say(Event::Begin)[..], [Step::Queue { class: Class::Poll, .. }]));
    let steps = play.polled(200, &json!({"state": "done", "files": ["https://c/1"]}));
    assert!(matches!(steps[..], [Step::Queue { class: Class::Download, .. }]), "{steps:?}");
}

#[test]
fn an_answer_at_once_is_durable_before_its_files_are_fetched() {
    let at_once = |text: &str| {
        let (start, rest) = text.split_once("[poll]").expect("a section");
        let (_, result) = rest.split_once("[result]").expect("a section");
        let (result, _) = result.split_once("[cancel]").expect("a section");
        format!("{start}[result]{result}").replace("take = { id = \"/id\" }\n", "")
    };
    let mut play = Play::new(&provider(at_once));
    play.say(Event::Begin);
    play.say(Event::Turn);
    play.say(Event::Stored);
    let [Step::Store(record)] = &play.answer(200, &json!({"files": ["https://c/1"]}))[..] else {
        panic!("it was paid for")
    };
    let mut again = Play::resumed(&provider(at_once), (**record).clone());
    assert!(matches!(again.say(Event::Begin)[..], [Step::Queue { class: Class::Download, .. }]));
}

/// A provider that counts what it has accepted, and a job that meets every kind of fault.
fn pays(dedupe: bool, faults: &[u8]) -> Result<(), TestCaseError> {
    let change = |text: &str| match dedupe {
        true => text.replace("take", "dedupe = { kind = \"header\", name = \"K\" }\ntake"),
        false => text.to_owned(),
    };
    let provider = provider(change);
    let mut durable = Record::new("x".to_owned(), "k1".to_owned());
    let (mut play, mut accepted) = (Play::resumed(&provider, durable.clone()), 0_u32);
    let mut steps = play.say(Event::Begin);
    for fault in faults.iter().copied().chain([0; 40]) {
        let Some(step) = steps.pop() else { break };
        for before in &steps {
            if let Step::Store(record) = before {
                durable = (**record).clone();
            }
        }
        // Dies before or after what it wants to do.
        let dies = |moment: u8| fault % 8 == moment;
        let mut crash = dies(1);
        if !crash {
            steps = match step {
                Step::Finish(_) => break,
                Step::Queue { .. } => play.say(Event::Turn),
                Step::Store(record) => {
                    durable = *record;
                    play.say(Event::Stored)
                }
                Step::Send(Call::Submit) => {
                    prop_assert_eq!(durable.stage, Stage::Submitting, "the intent is durable");
                    let arrives = fault % 8 != 3;
                    accepted += u32::from(arrives && (accepted == 0 || !dedupe));
                    match fault % 8 {
                        3 => play.say(Event::Lost(Loss {
                            may_have_arrived: false,
                            is_final: false,
                            why: "refused".to_owned(),
                        })),
                        4 => play.say(Event::Lost(Loss {
                            may_have_arrived: true,
                            is_final: false,
                            why: "reset".to_owned(),
                        })),
                        5 => play.answer(502, &json!({})),
                        _ => play.answer(201, &json!({"id": "o1"})),
                    }
                }
                Step::Send(_) if fault % 8 == 4 => play.answer(500, &json!({})),
                Step::Send(Call::Download(_)) => {
                    play.say(Event::Downloaded(Ok(FileDone { path: "/f".to_owned(), bytes: 1 })))
                }
                Step::Send(_) => {
                    play.answer(200, &json!({"state": "done", "files": ["https://c/1"]}))
                }
            };
            crash = dies(2);
        }
        if crash {
            play = Play::resumed(&provider, Record::read(&durable.to_bytes()).expect("a record"));
            steps = play.say(Event::Begin);
        }
    }
    prop_assert!(accepted <= 1, "paid {accepted} times");
    Ok(())
}

proptest! {
    #[test]
    fn nothing_is_paid_twice_whatever_breaks(
        dedupe: bool,
        faults in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        pays(dedupe, &faults)?;
    }
}
