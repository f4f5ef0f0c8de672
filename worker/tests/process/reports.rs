//! What an attempt says while it runs: progress, checkpoints, results.

use crate::supervisor::Supervisor;
use shiftboss_protocol::job::Cause;
use shiftboss_protocol::message::WorkerMessage;

#[test]
fn json_lines_become_progress_and_result() {
    let mut supervisor = Supervisor::start("command", 1);
    let go = supervisor.path("go");
    let lines = format!(
        "echo '{{\"percent\": 50, \"note\": \"half\"}}'; echo noise; echo '{{\"x'; \
         until [ -e {} ]; do sleep 0.01; done; echo '{{\"result\": [1, 2]}}'",
        go.display()
    );
    supervisor.assign(1, &supervisor.script(&lines));
    supervisor.noted("half");
    std::fs::write(go, "").expect("go");
    assert_eq!(supervisor.succeeded(1), serde_json::json!([1, 2]));
}

#[test]
fn a_pattern_reads_progress_and_the_latest_wins_at_two_a_second() {
    let mut supervisor = Supervisor::start("command", 1);
    let go = supervisor.path("go");
    let lines = "for i in $(seq 0 99); do echo \"at $i%\"; done >&2; \
                 until [ -e $GO ]; do sleep 0.01; done";
    let payload = serde_json::json!({
        "argv": ["sh", "-c", lines],
        "env": {"GO": go},
        "read": [supervisor.folder.path()],
        "progress": {"regex": "at (?<percent>[0-9.]+)%"},
    });
    supervisor.assign(1, &payload.to_string());
    // The last line was held back, and comes by the timer though nothing more is written.
    supervisor.wait_for(|message| match message {
        WorkerMessage::Progress { fraction: Some(fraction), .. } => {
            ((fraction - 0.99).abs() < 1e-9).then_some(())
        }
        _ => None,
    });
    let count = |message: &&WorkerMessage| matches!(message, WorkerMessage::Progress { .. });
    assert!(supervisor.seen.iter().filter(count).count() <= 3, "{:?}", supervisor.seen);
    std::fs::write(go, "").expect("go");
    supervisor.succeeded(1);
}

#[test]
fn a_payload_of_the_largest_size_reaches_its_program() {
    let mut supervisor = Supervisor::start("command", 1);
    let input = "x".repeat(400 << 10);
    let payload = serde_json::json!({"argv": ["wc", "-c"], "stdin": input});
    supervisor.assign(1, &payload.to_string());
    assert_eq!(supervisor.succeeded(1)["stdout_tail"], (400 << 10).to_string());
    let payload = serde_json::json!({"argv": ["true"], "stdin": input});
    supervisor.assign(2, &payload.to_string());
    supervisor.succeeded(2);
    let payload = serde_json::json!({"argv": ["true", input]});
    supervisor.assign(3, &payload.to_string());
    let failure = supervisor.failed(3);
    assert_eq!((failure.cause, failure.permanent), (Cause::FailedStart, true));
    assert!(failure.message.contains("larger than the host allows"), "{}", failure.message);
}
