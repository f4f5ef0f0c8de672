//! The checker is not blind: each rule finds its own doctored run, and a clean run passes.

use super::super::journal::{Journals, append};
use super::{Evidence, check};
use rusqlite::Connection;

/// A run of two jobs on disk: job 1 was killed once and succeeded, job 2 fails as it must.
struct Run {
    evidence: Evidence,
    dir: tempfile::TempDir,
}

impl Run {
    fn clean() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        std::fs::create_dir(dir.path().join("scratch")).expect("the folder is ours");
        let evidence = Evidence {
            database: dir.path().join("jobs.db"),
            journals: Journals::at(dir.path()),
            empty: vec![dir.path().join("scratch")],
            left: Vec::new(),
        };
        let run = Self { evidence, dir };
        run.sql(
            "CREATE TABLE jobs(id INTEGER PRIMARY KEY, state TEXT, attempt INT, last_error TEXT);
             CREATE TABLE attempts(job_id INT, attempt INT, started_at INT, ended_at INT,
                outcome TEXT, cause TEXT);
             INSERT INTO jobs VALUES (1, 'succeeded', 2, NULL), (2, 'failed', 1, 'exit code 3');
             INSERT INTO attempts VALUES (1, 1, 10, 20, 'crashed', 'crash'),
                (1, 2, 20, 40, 'succeeded', NULL), (2, 1, 10, 30, 'failed', 'exit_code')",
        );
        let accepted = run.evidence.journals.accepted();
        for line in [
            r#"{"id":1,"kind":"quick","state":"succeeded","journalled":true}"#,
            r#"{"id":2,"kind":"crasher","state":"failed","causes":["exit_code"]}"#,
        ] {
            append(&accepted, line).expect("the folder is ours");
        }
        for line in ["start 1 1 7 100", "start 1 2 8 200", "end-ok 1 2 8 300", "start 2 1 9 100"] {
            run.deed(line);
        }
        run
    }

    fn sql(&self, sql: &str) {
        let database = Connection::open(&self.evidence.database).expect("it can be opened");
        database.execute_batch(sql).expect("it is SQL");
    }

    fn deed(&self, line: &str) {
        append(&self.evidence.journals.deeds(), line).expect("the folder is ours");
    }

    /// All that is wrong, as one text; the number of findings must be this.
    fn found(&self, count: usize) -> String {
        let wrong = check(&self.evidence);
        assert_eq!(wrong.len(), count, "{wrong:#?}");
        wrong.join("\n")
    }
}

#[test]
fn a_clean_run_passes() {
    assert_eq!(Run::clean().found(0), "");
}

#[test]
fn a_lost_job_is_found() {
    let run = Run::clean();
    let line = r#"{"id":3,"kind":"sleep","state":"succeeded"}"#;
    append(&run.evidence.journals.accepted(), line).expect("the folder is ours");
    assert!(run.found(1).contains("job 3 (sleep) was acknowledged and is lost"));
}

#[test]
fn a_job_that_does_not_end_is_found() {
    let run = Run::clean();
    run.sql("INSERT INTO jobs VALUES (3, 'available', 0, NULL)");
    assert!(run.found(1).contains("job 3 is available in the end"));
    run.sql("DELETE FROM jobs WHERE id = 3");
    run.sql("UPDATE attempts SET ended_at = NULL WHERE job_id = 2");
    assert!(run.found(1).contains("attempt 1 of job 2 has no end"));
}

#[test]
fn an_end_that_nothing_explains_is_found() {
    let run = Run::clean();
    run.sql("UPDATE attempts SET cause = 'poison' WHERE job_id = 2");
    assert!(run.found(1).contains("job 2 (crasher) was to end as failed and is failed"));
    run.sql("UPDATE jobs SET state = 'cancelled' WHERE id = 2");
    assert!(run.found(1).contains("is cancelled"));
    append(&run.evidence.journals.cancelled(), "2").expect("the folder is ours");
    run.found(0);
}

#[test]
fn a_job_that_should_fail_and_succeeds_is_found() {
    let run = Run::clean();
    run.sql("UPDATE jobs SET state = 'succeeded' WHERE id = 2");
    run.sql("UPDATE attempts SET outcome = 'succeeded' WHERE job_id = 2");
    assert!(run.found(1).contains("was to end as failed and is succeeded"));
}

#[test]
fn a_second_success_is_found() {
    let run = Run::clean();
    run.sql("UPDATE attempts SET outcome = 'succeeded' WHERE job_id = 1");
    assert!(run.found(1).contains("attempts [1, 2] succeeded"));
}

#[test]
fn a_success_without_its_attempt_is_found() {
    let run = Run::clean();
    run.sql("UPDATE attempts SET outcome = 'crashed' WHERE job_id = 1");
    assert!(run.found(1).contains("attempts [] succeeded"));
}

#[test]
fn an_attempt_that_is_missing_issued_twice_or_unclaimed_is_found() {
    let run = Run::clean();
    run.deed("start 1 2 11 210");
    let found = run.found(2);
    assert!(found.contains("attempt 2 of job 1 began twice"), "{found}");
    let run = Run::clean();
    run.deed("start 2 2 11 400");
    assert!(run.found(1).contains("attempt 2 of job 2 ran unclaimed"));
    let run = Run::clean();
    run.sql("DELETE FROM attempts WHERE job_id = 1 AND attempt = 1");
    assert!(run.found(2).contains("job 1 counts 2 attempts and has [2]"));
    let run = Run::clean();
    run.deed("start 9 1 11 400");
    assert!(run.found(1).contains("job 9 ran and is not in the table"));
}

#[test]
fn attempts_that_overlap_are_found_by_lock_by_journal_and_by_table() {
    let run = Run::clean();
    run.deed("overlap 1 2 8 199");
    assert!(run.found(1).contains("while processes of an earlier one lived"));
    let run = Run::clean();
    run.deed("end-ok 1 1 7 250");
    assert!(run.found(1).contains("attempt 1 of job 1 acted after attempt 2"));
    let run = Run::clean();
    run.sql("UPDATE attempts SET ended_at = 21 WHERE job_id = 1 AND attempt = 1");
    assert!(run.found(1).contains("ends after attempt 2 has started"));
}

#[test]
fn a_success_whose_program_was_not_done_is_found() {
    let run = Run::clean();
    let journal = run.evidence.journals.deeds();
    let text = std::fs::read_to_string(&journal).expect("it is there");
    std::fs::write(&journal, text.replace("end-ok", "end-bad")).expect("the folder is ours");
    assert!(run.found(1).contains("began 1 times and was done 0 times"));
}

#[test]
fn an_output_that_is_missing_or_no_film_is_found() {
    let run = Run::clean();
    let output = run.dir.path().join("out");
    let line = serde_json::json!({ "id": 3, "kind": "encode", "state": "succeeded",
        "output": output, "frames": 20 });
    append(&run.evidence.journals.accepted(), &line.to_string()).expect("the folder is ours");
    run.sql("INSERT INTO jobs VALUES (3, 'succeeded', 1, NULL)");
    run.sql("INSERT INTO attempts VALUES (3, 1, 10, 20, 'succeeded', NULL)");
    assert!(run.found(1).contains("made nothing"));
    std::fs::create_dir(&output).expect("the folder is ours");
    std::fs::write(output.join("144p.mp4"), "no film").expect("the folder is ours");
    assert!(run.found(1).contains("pictures, not 20"));
}

#[test]
fn leftovers_processes_and_damage_are_found() {
    let mut run = Run::clean();
    std::fs::write(run.dir.path().join("scratch/1-1"), "").expect("the folder is ours");
    run.evidence.left.push("Program 7: sleep 60".to_owned());
    let found = run.found(2);
    assert!(found.contains("still lives: Program 7") && found.contains("scratch/1-1"), "{found}");
    let run = Run::clean();
    let bytes = std::fs::read(&run.evidence.database).expect("it is there");
    std::fs::write(&run.evidence.database, &bytes[..bytes.len() - 4096]).expect("ours");
    assert!(!check(&run.evidence).is_empty());
    std::fs::write(run.evidence.journals.deeds(), "start 1").expect("the folder is ours");
    assert!(!check(&run.evidence).is_empty());
}
