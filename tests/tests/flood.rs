//! Another program floods the table with rows that nobody can run: the others do not notice.

use shiftboss_tests::{Stage, wait_until};

#[test]
fn a_flood_of_rows_of_an_unknown_type_is_failed_while_other_jobs_run() {
    let stage = Stage::new("");
    let flood = "INSERT INTO jobs(type) SELECT 'bogus' FROM (WITH RECURSIVE n(x) AS (SELECT 1 \
                 UNION ALL SELECT x + 1 FROM n WHERE x < 50000) SELECT x FROM n)";
    let open = || stage.count("type = 'bogus' AND state <> 'failed'");
    let (mut rows, mut beside) = (0, 0);
    // A fast machine may be through with one flood before the job's worker has started.
    while beside < 3 {
        assert!(rows < 2_000_000, "{beside} jobs ran beside {rows} rows of a flood");
        rows += stage.database().execute(flood, []).expect("inserted");
        // Behind the flood in the table, and yet not behind it in time.
        let id = stage.insert("noop", "{}");
        stage.wait_for_state(id, "succeeded");
        beside += i64::from(open() > 0);
        assert!(stage.run(&["status"]).status.success());
    }
    wait_until("the flood is over", || open() == 0);
    assert_eq!(stage.count("type = 'bogus' AND attempt > 0"), 0);
    let sentence = "last_error LIKE 'unknown type \"bogus\"%'";
    assert_eq!(stage.count(sentence), i64::try_from(rows).expect("few"));
    let lines = stage.log().lines().count();
    assert!(lines < 200 + rows / 250, "{lines} lines of log for a flood of {rows} rows");
    let job = stage.insert("noop", "{}");
    wait_until("the next runs at once", || stage.job(job).is_some_and(|j| j.state == "succeeded"));
}
