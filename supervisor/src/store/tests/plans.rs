//! Query plans: history must not slow anything that runs while the table is in use.

use super::*;
use crate::store::change::{instances, prune, take};
use crate::store::reader::{counting_sql, listing_sql};
use shiftboss_protocol::control::JobFilter;
use shiftboss_protocol::job::JobState;

/// Twenty thousand ended jobs, and a few of each other kind.
fn with_history(folder: &tempfile::TempDir) -> Db {
    let db = database(folder);
    let fill = "
        INSERT INTO jobs(type, run_at, unique_key)
          WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20100)
          SELECT 'type' || (i % 5), CASE WHEN i > 20050 THEN 4000000000000 + i ELSE i END, i FROM n;
        UPDATE jobs SET state = 'succeeded', finished_at = id WHERE id <= 20000;
        UPDATE jobs SET state = 'running', owner = 'us', attempt = 1
          WHERE id BETWEEN 20001 AND 20005;
        ANALYZE;";
    db.batch(fill, "fill the table").expect("the rows are good");
    db
}

fn plan(db: &Db, sql: &str) -> String {
    let sql = format!("EXPLAIN QUERY PLAN {}", db.prefixed(sql));
    let mut statement = db.conn.prepare(&sql).expect("the statement is good");
    let count = statement.parameter_count();
    for index in 1..=count {
        statement.raw_bind_parameter(index, 5).expect("it can be bound");
    }
    let mut rows = statement.raw_query();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().expect("it is explained") {
        lines.push(row.get::<_, String>(3).expect("it is text"));
    }
    lines.join("; ")
}

#[test]
fn the_writers_questions_use_partial_indexes() {
    let folder = folder();
    let db = with_history(&folder);
    let cases = [
        (take::PROMOTE, "jobs_scheduled"),
        (take::FAIL_UNKNOWN, "jobs_available"),
        (take::NEXT_TYPE, "jobs_available"),
        (take::CANDIDATES, "jobs_available"),
        (take::WAITING, "jobs_available"),
        (take::NEXT_DUE, "jobs_scheduled"),
        (instances::RUNNING, "COVERING INDEX jobs_running"),
        (prune::OLD, "COVERING INDEX jobs_final"),
        ("SELECT id FROM {p}jobs WHERE unique_key = ?1 AND finished_at IS NULL", "jobs_unique"),
    ];
    for (sql, index) in cases {
        let plan = plan(&db, sql);
        assert!(plan.contains(index), "{sql}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
        // A walk of a partial index in its order is as good as a search.
        let walks = plan.replace("SCAN jobs USING COVERING INDEX", "SEARCH jobs");
        assert!(!walks.contains("SCAN jobs"), "{sql}\n{plan}");
    }
}

#[test]
fn counts_and_listings_of_unfinished_jobs_do_not_scan_history() {
    let folder = folder();
    let db = with_history(&folder);
    for state in [JobState::Scheduled, JobState::Available, JobState::Running, JobState::Held] {
        let filter = JobFilter { state: Some(state), limit: 10, ..JobFilter::default() };
        for sql in [counting_sql(&db, state), listing_sql(&db, &filter)] {
            let plan = plan(&db, &sql);
            assert!(plan.contains(&format!("INDEX jobs_{state}")), "{sql}\n{plan}");
        }
    }
    for state in [JobState::Failed, JobState::Cancelled] {
        let filter = JobFilter { state: Some(state), limit: 10, ..JobFilter::default() };
        let plan = plan(&db, &listing_sql(&db, &filter));
        assert!(plan.contains("INDEX jobs_final (state=?"), "{plan}");
    }
    let newest = plan(&db, &listing_sql(&db, &JobFilter { limit: 10, ..JobFilter::default() }));
    assert!(!newest.contains("TEMP B-TREE"), "the walk from the end stops at the limit: {newest}");
}

#[test]
fn listings_are_filtered_and_newest_first() {
    let folder = folder();
    drop(with_history(&folder));
    let reader = Reader::open(&options(&folder).path, "").expect("it opens");
    let ids = |state: Option<JobState>, job_type: Option<&str>, limit| -> Vec<i64> {
        let filter = JobFilter { state, job_type: job_type.map(str::to_owned), limit };
        let jobs = reader.jobs(&filter).expect("they are listed");
        jobs.iter().map(|job| job["id"].as_i64().expect("a number")).collect()
    };
    assert_eq!(ids(None, None, 2), [20100, 20099]);
    assert_eq!(ids(Some(JobState::Succeeded), Some("type3"), 2), [19998, 19993]);
    assert_eq!(ids(Some(JobState::Running), None, 2), [20005, 20004]);
    assert_eq!(ids(Some(JobState::Available), Some("type0"), 1), [20050]);
    assert!(ids(Some(JobState::Failed), None, 5).is_empty());
    let counts = reader.counts().expect("they are counted");
    let sum = |state| counts.iter().filter(|one| one.state == state).map(|one| one.count).sum();
    let sums: [i64; 3] = [JobState::Available, JobState::Scheduled, JobState::Running].map(sum);
    assert_eq!(sums, [45, 50, 5]);
    assert_eq!(reader.final_counts().expect("counted")[0], (JobState::Succeeded, 20_000));
}
