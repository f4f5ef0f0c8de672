//! Looks at the table: promotion, claims, unknown types, counts.

use super::*;
use shiftboss_protocol::job::Attempt;

fn insert(rig: &Rig, values: &str) {
    let conn = foreign(&rig.path);
    conn.execute(&format!("INSERT INTO jobs(type, payload, priority, run_at) {values}"), [])
        .expect("the rows are good");
}

#[test]
fn a_take_claims_by_priority_then_due_time_then_id() {
    let rig = Rig::new();
    insert(
        &rig,
        "VALUES ('a', 'late', 0, 200), ('a', 'early', 0, 100), ('a', 'first', 9, 300),
                ('a', 'early too', 0, 100), ('b', 'other', 99, 1)",
    );
    let (taken, parcels) = rig.take(look(now_ms(), 3));
    let payloads: Vec<&str> = parcels.iter().map(|one| &*one.payload).collect();
    assert_eq!(payloads, ["first", "early", "early too"]);
    assert_eq!(taken.waiting, [("a".into(), 1), ("b".into(), 1)].into());
    let job = &taken.jobs[0];
    assert_eq!((job.worker, job.attempt, job.failures), (WorkerId(5), Attempt(1), 0));
    let row = rig.job(job.job);
    assert_eq!((&row["state"], &row["owner"]), (&"running".into(), &US.into()));
    assert!(row["started_at"].is_i64());
}

#[test]
fn due_jobs_become_available_and_the_next_due_time_is_told() {
    let rig = Rig::new();
    let now = now_ms();
    insert(
        &rig,
        &format!("VALUES ('a', '1', 0, {}), ('a', '2', 0, {})", now + 60_000, now + 90_000),
    );
    let (taken, _) = rig.take(look(now, 5));
    assert_eq!((taken.jobs.len(), taken.next_due_ms), (0, Some(now + 60_000)));
    let (taken, _) = rig.take(look(now + 60_000, 5));
    assert_eq!((taken.jobs.len(), taken.promoted, taken.next_due_ms), (1, 1, Some(now + 90_000)));
}

#[test]
fn a_look_that_finds_nothing_writes_nothing() {
    let rig = Rig::new();
    insert(&rig, "VALUES ('a', '1', 0, 1)");
    let watcher = Reader::open(&rig.path, "").expect("it opens");
    let before = watcher.data_version().expect("read");
    let (taken, _) = rig.take(look(now_ms(), 0));
    assert_eq!((taken.jobs.len(), taken.waiting.get("a")), (0, Some(&1)));
    assert_eq!(watcher.data_version().expect("read"), before);
    rig.claim();
    assert_ne!(watcher.data_version().expect("read"), before);
}

#[test]
fn jobs_of_unknown_types_fail_at_once_in_batches() {
    let rig = Rig::new();
    insert(
        &rig,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
         SELECT 'mystery', '{}', 0, 1 FROM n",
    );
    insert(&rig, "VALUES (CAST(x'ff00fe' AS TEXT), '{}', 0, 1), ('a', '{}', 0, 1)");
    let (taken, _) = rig.take(look(now_ms(), 1));
    assert_eq!((taken.unknown_failed, taken.more, taken.jobs.len()), (500, true, 1));
    let (taken, _) = rig.take(look(now_ms(), 1));
    assert_eq!((taken.unknown_failed, taken.more), (201, false));
    let row = rig.job(JobId(1));
    assert_eq!(row["state"], "failed");
    assert_eq!(row["last_error"], "unknown type \"mystery\": the configured types are a, b");
}

#[test]
fn a_payload_that_is_not_text_fails_alone() {
    let rig = Rig::new();
    insert(&rig, "VALUES ('a', CAST(x'c328' AS TEXT), 0, 1), ('a', '{}', 0, 2)");
    let (taken, parcels) = rig.take(look(now_ms(), 5));
    assert_eq!((taken.jobs.len(), taken.jobs[0].job, parcels.len()), (1, JobId(2), 1));
    let row = rig.job(JobId(1));
    assert_eq!(row["state"], "failed");
    assert!(row["last_error"].as_str().expect("text").starts_with("payload: is not valid UTF-8"));
    assert_eq!(rig.attempts(JobId(1))[0]["cause"], "payload");
}

#[test]
fn the_room_of_a_payload_that_is_not_text_is_looked_for_again() {
    let rig = Rig::new();
    insert(&rig, "VALUES ('a', CAST(x'c328' AS TEXT), 0, 1), ('a', '{}', 0, 2)");
    let (taken, _) = rig.take(look(now_ms(), 1));
    assert_eq!((taken.jobs.len(), taken.more, taken.waiting.get("a")), (0, true, Some(&1)));
    let (taken, _) = rig.take(look(now_ms(), 1));
    assert_eq!((taken.jobs.len(), taken.more), (1, false));
}

#[test]
fn suspects_go_only_to_the_worker_that_names_them() {
    let rig = Rig::new();
    insert(&rig, "VALUES ('a', '1', 0, 1), ('a', '2', 0, 2), ('a', '3', 0, 3)");
    let mut request = look(now_ms(), 2);
    let mut dedicated = request.offers[0].clone();
    (dedicated.worker, dedicated.only) = (WorkerId(6), vec![JobId(1)]);
    request.offers.push(dedicated);
    request.avoid = [JobId(1), JobId(2)].into();
    let (taken, _) = rig.take(request);
    let mut given: Vec<_> = taken.jobs.iter().map(|one| (one.job.0, one.worker.0)).collect();
    given.sort_unstable();
    assert_eq!(given, [(1, 6), (3, 5)]);
}

#[test]
fn the_total_bounds_claims() {
    let rig = Rig::new();
    insert(&rig, "VALUES ('a', '1', 0, 1), ('a', '2', 0, 2), ('a', '3', 0, 3)");
    let request = TakeRequest { room_total: Some(2), ..look(now_ms(), 3) };
    assert_eq!(rig.take(request).0.jobs.len(), 2);
}

#[test]
fn a_row_inserted_again_under_its_number_does_not_repeat_an_attempt() {
    let rig = Rig::new();
    insert(&rig, "VALUES ('a', '1', 0, 1)");
    let before = rig.claim();
    let conn = foreign(&rig.path);
    conn.execute("INSERT OR REPLACE INTO jobs(id, type) VALUES (1, 'a')", []).expect("replaced");
    let after = rig.claim();
    assert_eq!((after.job, after.attempt), (before.job, Attempt(2)));
    assert!(rig.apply(vec![fenced(&before, Move::Fail)])[0].stale);
    assert_eq!(rig.job(JobId(1))["state"], "running");
}

#[test]
fn columns_set_by_hand_beyond_our_bounds_do_no_harm() {
    let rig = Rig::new();
    let conn = foreign(&rig.path);
    conn.execute(
        "INSERT INTO jobs(type, max_attempts, timeout_ms, priority)
         VALUES ('a', 9223372036854775807, 9223372036854775807, -9223372036854775808)",
        [],
    )
    .expect("inserted");
    let job = rig.claim();
    assert_eq!((job.attempts_max, job.timeout_ms), (Some(u32::MAX), Some(i64::MAX as u64)));
}
