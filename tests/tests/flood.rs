//! Another program floods the table with rows that nobody can run: the others do not notice.

use shiftboss_tests::{Stage, wait_until};

#[test]
fn a_hundred_thousand_rows_of_an_unknown_type_are_failed_while_other_jobs_start_in_time() {
    let stage = Stage::new("");
    let flood = "INSERT INTO jobs(type) SELECT 'bogus' FROM (WITH RECURSIVE n(x) AS (SELECT 1 \
                 UNION ALL SELECT x + 1 FROM n WHERE x < 100000) SELECT x FROM n)";
    stage.database().execute(flood, []).expect("inserted");
    let open = || stage.count("type = 'bogus' AND state <> 'failed'");
    let mut beside = 0;
    while open() > 0 {
        let id = stage.insert("noop", "{}");
        stage.wait_for_state(id, "succeeded");
        assert!(stage.run(&["status"]).status.success());
        beside += i64::from(open() > 0);
    }
    assert!(beside >= 3, "{beside} jobs ran beside the flood");
    assert_eq!(stage.count("type = 'bogus' AND attempt > 0"), 0);
    // Behind the flood in the table, and yet not behind it in time.
    let slow = "type = 'noop' AND started_at - created_at > 1000";
    assert_eq!(stage.count(slow), 0, "{}", stage.log());
    let sentence = "last_error LIKE 'unknown type \"bogus\"%'";
    assert_eq!(stage.count(sentence), 100_000);
    let lines = stage.log().lines().count();
    assert!(lines < 600, "{lines} lines of log for one flood");
    let job = stage.insert("noop", "{}");
    wait_until("the next runs at once", || stage.job(job).is_some_and(|j| j.state == "succeeded"));
}
