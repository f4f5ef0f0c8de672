//! Commits of other programs: seen, all of them, and soon.

use super::*;
use crate::store::op::RunningRow;

fn changed(rig: &Rig) -> Vec<RunningRow> {
    rig.wait("the change by another program", |event| match event {
        Event::Changed { running } => Some(running.clone()),
        _ => None,
    })
}

#[test]
fn a_replaced_running_job_is_missing_from_the_next_change() {
    let rig = Rig::new();
    let keyed = NewJob { unique_key: Some("k".to_owned()), ..new_job("a") };
    rig.enqueue(vec![keyed, new_job("a")]);
    let (replaced, kept) = (rig.claim(), rig.claim());
    let conn = foreign(&rig.path);
    conn.execute("INSERT OR REPLACE INTO jobs(type, unique_key) VALUES ('a', 'k')", [])
        .expect("it replaces the running row");
    rig.handle.send(Op::Touched);
    let row = RunningRow { job: kept.job, attempt: kept.attempt, cancel_requested: false };
    assert_eq!(changed(&rig), [row]);
    assert!(rig.apply(vec![fenced(&replaced, Move::Crash)])[0].stale);
    conn.execute("UPDATE jobs SET cancel_requested_at = 1 WHERE id = ?1", [kept.job.0])
        .expect("it is marked");
    rig.handle.send(Op::Touched);
    assert_eq!(changed(&rig), [RunningRow { cancel_requested: true, ..row }]);
}

#[test]
fn back_to_back_commits_are_all_seen_although_the_touch_comes_first() {
    let folder = folder();
    drop(database(&folder));
    let path = options(&folder).path;
    // What a program sees that reads the table at each change, and only then.
    let (sender, counts) = mpsc::channel();
    let reader = Reader::open(&path, "").expect("it opens");
    let on_change = move |event| {
        if matches!(event, Event::Changed { .. }) {
            let count: i64 = reader.counts().expect("counted").iter().map(|one| one.count).sum();
            let _ = sender.send(count);
        }
    };
    let started = writer::start(options(&folder), instance(US), Box::new(on_change));
    let started = started.expect("the writer starts");
    let conn = foreign(&path);
    let mut seen = 0;
    for round in 1..=75 {
        // The watch fires when the log is written, before either commit is visible; nothing
        // tells of the second one.
        started.handle.send(Op::Touched);
        for _ in 0..2 {
            conn.execute("INSERT INTO jobs(type) VALUES ('a')", []).expect("inserted");
        }
        while seen < round * 2 {
            seen = counts.recv_timeout(PATIENCE).expect("a commit was not seen");
        }
    }
    assert_eq!(seen, 150);
}

#[test]
fn a_change_shows_after_our_own_commit_too_when_nothing_watches_the_log() {
    let rig = Rig::new();
    let conn = foreign(&rig.path);
    conn.execute("INSERT INTO jobs(type) VALUES ('a')", []).expect("inserted");
    rig.take(look(now_ms(), 1));
    assert!(changed(&rig).len() <= 1);
}

#[test]
fn our_own_commits_are_no_change() {
    let rig = Rig::new();
    rig.enqueue(vec![new_job("a")]);
    rig.handle.send(Op::Touched);
    rig.claim();
    let folder = rig.folder.path().to_owned();
    rig.handle.send(Op::Stop);
    let is_change = |event: &Event| matches!(event, Event::Changed { .. });
    // The channel ends with the writer, so nothing can come later.
    assert!(!rig.events.iter().any(|event| is_change(&event)));
    assert!(folder.join("jobs.db").exists());
}
