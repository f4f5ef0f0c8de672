//! The bytes on the wire. Hello and Welcome are frozen for ever; the others change only
//! together with `PROTOCOL_VERSION`.

use shiftboss_protocol::control::{Greeting, JobFilter, NewJob, Request, Response};
use shiftboss_protocol::frame;
use shiftboss_protocol::job::{Attempt, Cause, Failure, JobId, JobState, Outcome, Usage};
use shiftboss_protocol::message::Settings;
use shiftboss_protocol::message::{
    Assignment, Hello, LogLevel, Ready, Receipt, ReceiptOf, StopReason, SupervisorMessage, Welcome,
    WorkerMessage,
};
use shiftboss_protocol::stored::{StoredOutcome, StoredOutcomeName};
use std::fmt::Write;

const JOB: JobId = JobId(7);
const ATTEMPT: Attempt = Attempt(2);

fn hex<M: serde::Serialize>(message: &M) -> String {
    let bytes = frame::encode(message).expect("it fits a frame");
    bytes[frame::PREFIX_BYTES..].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hello() -> Hello {
    Hello {
        protocol: 1,
        job_type: "encode".to_owned(),
        token: [0xAB; 32],
        held: vec![(JOB, ATTEMPT)],
        program: "w 1".to_owned(),
    }
}

fn welcome() -> Welcome {
    Welcome {
        protocol: 1,
        refused: "no".to_owned(),
        workload: "noop".to_owned(),
        concurrency: 3,
        settings: "{}".to_owned(),
    }
}

#[test]
fn hello_and_welcome_are_frozen() {
    let token = "ab".repeat(32);
    let expected = format!(
        "00000000\
         01000000\
         0600000000000000656e636f6465\
         {token}\
         0100000000000000070000000000000002000000\
         0300000000000000772031"
    );
    assert_eq!(hex(&WorkerMessage::Hello(hello())), expected);
    let expected = "00000000\
                    01000000\
                    02000000000000006e6f\
                    04000000000000006e6f6f70\
                    03000000\
                    02000000000000007b7d";
    assert_eq!(hex(&SupervisorMessage::Welcome(welcome())), expected);
}

#[test]
fn every_message_of_a_worker_keeps_its_bytes() {
    let failure = Failure {
        permanent: true,
        retry_after_ms: Some(5),
        cause: Cause::ExitCode,
        message: "m".to_owned(),
        exit_code: Some(1),
        signal: None,
    };
    let finished = |outcome| WorkerMessage::Finished {
        job: JOB,
        attempt: ATTEMPT,
        outcome,
        usage: Usage { cpu_ms: Some(9), memory_peak_bytes: None },
    };
    let text = || "x".to_owned();
    let messages = [
        WorkerMessage::Ready(Ready { confinement: text(), abilities: vec![text()] }),
        WorkerMessage::Heartbeat,
        WorkerMessage::Progress { job: JOB, attempt: ATTEMPT, fraction: Some(0.5), note: text() },
        WorkerMessage::Checkpoint { job: JOB, attempt: ATTEMPT, data: vec![1, 2] },
        WorkerMessage::Started { job: JOB, attempt: ATTEMPT, launcher_pid: 99 },
        finished(Outcome::Succeeded { result: text() }),
        finished(Outcome::Failed(failure)),
        finished(Outcome::Cancelled),
        finished(Outcome::Held { reason: text() }),
        finished(Outcome::Released { reason: text() }),
        WorkerMessage::Log { level: LogLevel::Warn, job: Some(JOB), text: text() },
        WorkerMessage::Confined { job: JOB, attempt: ATTEMPT, confinement: text() },
    ];
    let bytes: Vec<_> = messages.iter().map(hex).collect();
    let expected = [
        "010000000100000000000000780100000000000000010000000000000078",
        "02000000",
        "03000000070000000000000002000000\
         01000000000000e03f010000000000000078",
        "0400000007000000000000000200000002000000000000000102",
        "0500000007000000000000000200000063000000",
        "06000000070000000000000002000000\
         00000000010000000000000078\
         01090000000000000000",
        "06000000070000000000000002000000\
         01000000010105000000000000000300000001000000000000006d010100000000\
         01090000000000000000",
        "0600000007000000000000000200000002000000\
         01090000000000000000",
        "0600000007000000000000000200000003000000010000000000000078\
         01090000000000000000",
        "0600000007000000000000000200000004000000010000000000000078\
         01090000000000000000",
        "0700000002000000010700000000000000010000000000000078",
        "08000000070000000000000002000000010000000000000078",
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn every_message_of_a_supervisor_keeps_its_bytes() {
    let assignment = Assignment {
        job: JOB,
        attempt: ATTEMPT,
        payload: "{}".to_owned(),
        checkpoint: Some(vec![9]),
        timeout_ms: 60_000,
    };
    let receipt = Receipt { job: JOB, attempt: ATTEMPT, of: ReceiptOf::Checkpoint, stale: true };
    let messages = [
        SupervisorMessage::Assign { jobs: vec![assignment] },
        SupervisorMessage::Cancel { job: JOB, attempt: ATTEMPT, reason: StopReason::Stalled },
        SupervisorMessage::Drain,
        SupervisorMessage::Recorded { receipts: vec![receipt] },
    ];
    let bytes: Vec<_> = messages.iter().map(hex).collect();
    let expected = [
        "010000000100000000000000070000000000000002000000\
         02000000000000007b7d01010000000000000009\
         60ea000000000000",
        "0200000007000000000000000200000002000000",
        "03000000",
        "0400000001000000000000000700000000000000020000000100000001",
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn control_messages_survive_the_way_there_and_back() {
    let job = NewJob { job_type: "noop".to_owned(), run_at: Some(-1), ..NewJob::default() };
    let filter = JobFilter { state: Some(JobState::Held), job_type: None, limit: 5 };
    for request in [
        Request::Submit(vec![job]),
        Request::Jobs(filter),
        Request::Job(JOB),
        Request::Watch(vec![JOB]),
        Request::Cancel(vec![]),
        Request::Pause("x".to_owned()),
        Request::Drain,
    ] {
        let mut bytes = frame::encode(&request).expect("it fits a frame");
        let back: Request = frame::take(&mut bytes).expect("it is whole").expect("it is there");
        assert_eq!(back, request);
        assert!(bytes.is_empty());
    }
    let greeting = Greeting { protocol: 1, program: "p".to_owned() };
    assert_eq!(hex(&greeting), "01000000010000000000000070");
    assert_eq!(hex(&Response::Done), "04000000");
}

#[test]
fn a_stored_outcome_keeps_its_bytes_and_its_name() {
    let stored = StoredOutcome {
        version: 1,
        owner: "main-b.1".to_owned(),
        job: JOB,
        attempt: ATTEMPT,
        outcome: Outcome::Succeeded { result: "x".to_owned() },
        usage: Usage { cpu_ms: Some(9), memory_peak_bytes: None },
        job_type: "t".to_owned(),
    };
    let expected = "01000000\
                    08000000000000006d61696e2d622e31\
                    070000000000000002000000\
                    00000000010000000000000078\
                    01090000000000000000\
                    010000000000000074";
    assert_eq!(hex(&stored), expected);
    let bytes = stored.encode().expect("it fits a frame");
    assert_eq!(StoredOutcome::decode(&bytes).expect("it is one"), stored);
    let name = stored.name();
    assert_eq!(name.file_name(), "main-b%2e1.7.2.outcome");
    assert_eq!(StoredOutcomeName::parse("main-b%2e1.7.2.outcome"), Some(name));
}

#[test]
fn settings_of_another_version_are_read() {
    let settings: Settings =
        serde_json::from_str("{\"owner\": \"x\", \"later\": 1}").expect("read");
    let expected = Settings { owner: "x".to_owned(), ..Settings::default() };
    assert_eq!(settings, expected);
    assert_eq!(settings.orphan_grace_ms, 600_000);
}
