//! A database that cannot be written for a while loses nothing.

use super::*;
use crate::store::writer::tests::writer_alone;

fn trouble(rig: &Rig) -> String {
    rig.wait("the report of trouble", |event| match event {
        Event::Trouble { text, .. } => Some(text.clone()),
        _ => None,
    })
}

#[test]
fn a_locked_database_delays_everything_and_loses_nothing() {
    let rig = Rig::new();
    rig.enqueue(vec![new_job("a"), new_job("a")]);
    let (first, second) = (rig.claim(), rig.claim());
    let conn = foreign(&rig.path);
    conn.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
    let (sender, ids) = mpsc::channel();
    let reply = Box::new(move |answer| drop(sender.send(answer)));
    rig.handle.send(Op::Move(vec![fenced(&first, Move::Succeed { result: "1".to_owned() })]));
    rig.handle.send(Op::Enqueue(vec![new_job("b")], reply));
    rig.handle.send(Op::Move(vec![fenced(&second, Move::Fail)]));
    assert!(trouble(&rig).contains("database is locked"));
    assert!(ids.try_recv().is_err(), "nothing is acknowledged before it is stored");
    conn.execute_batch("ROLLBACK").expect("the lock is released");
    let inserted = ids.recv_timeout(PATIENCE).expect("an answer comes").expect("it is stored");
    let spell_ms = rig.wait("the end of the trouble", |event| match event {
        Event::TroubleOver(spell_ms) => Some(*spell_ms),
        _ => None,
    });
    assert!(spell_ms > 0);
    for job in [&first, &second] {
        let moved = rig.wait("the answer to a move", |event| match event {
            Event::Moved(moved) => Some(moved.clone()),
            _ => None,
        });
        assert_eq!((moved[0].job, moved[0].stale), (job.job, false));
    }
    assert_eq!(rig.job(first.job)["state"], "succeeded");
    assert_eq!(rig.job(second.job)["state"], "failed");
    assert_eq!(rig.job(inserted[0])["state"], "available");
}

#[test]
fn a_full_database_keeps_outcomes_until_there_is_room() {
    let (mut writer, sender, events) = writer_alone();
    writer.accept_all(vec![Op::Enqueue(vec![new_job("a")], Box::new(drop))]);
    writer.accept_all(vec![Op::Take(look(now_ms(), 1))]);
    let job = taken(&events);
    writer.limit_pages();
    let result = "x".repeat(400_000);
    let done = fenced(&job, Move::Succeed { result });
    writer.accept_all(vec![Op::Move(vec![done])]);
    let said: Vec<Event> = events.try_iter().collect();
    assert!(
        matches!(&said[..], [Event::Trouble { text, needs_a_hand: false }] if text.contains("full")),
        "{said:?}"
    );
    writer.unlimit_pages();
    writer.accept_all(Vec::new());
    let said: Vec<Event> = events.try_iter().collect();
    assert!(matches!(&said[..], [Event::TroubleOver(_), Event::Moved(moved)] if !moved[0].stale));
    drop(sender);
}

#[test]
fn a_commit_whose_answer_was_lost_is_looked_up_and_not_done_twice() {
    let (mut writer, sender, events) = writer_alone();
    writer.lose_next_commit_answer();
    let (reply, ids) = mpsc::channel();
    let jobs = vec![new_job("a"), new_job("a")];
    let send = Box::new(move |answer| drop(reply.send(answer)));
    writer.accept_all(vec![Op::Enqueue(jobs, send)]);
    assert!(ids.try_recv().is_err(), "it is not known whether it was stored");
    assert!(matches!(events.try_recv(), Ok(Event::Trouble { .. })));
    writer.accept_all(Vec::new());
    let ids = ids.try_recv().expect("the answer comes now").expect("it was stored");
    assert_eq!(ids, [JobId(1), JobId(2)]);
    assert_eq!(writer.count_jobs(), 2);
    writer.lose_next_commit_answer();
    writer.accept_all(vec![Op::Take(look(now_ms(), 5))]);
    writer.accept_all(Vec::new());
    let jobs = events.try_iter().find_map(|event| match event {
        Event::Taken(taken, _) => Some(taken.jobs.len()),
        _ => None,
    });
    assert_eq!(jobs, Some(2), "claims are known to whom they were made for");
    drop(sender);
}

#[test]
fn a_move_that_the_table_refuses_fails_alone_and_is_kept() {
    let (mut writer, sender, events) = writer_alone();
    writer.accept_all(vec![Op::Enqueue(vec![new_job("a"), new_job("a")], Box::new(drop))]);
    writer.accept_all(vec![Op::Take(look(now_ms(), 2))]);
    let jobs = loop {
        match events.try_recv().expect("the jobs are claimed") {
            Event::Taken(taken, _) => break taken.jobs,
            _ => continue,
        }
    };
    writer.batch(
        "CREATE TRIGGER users_own BEFORE UPDATE ON jobs WHEN NEW.result = '13'
         BEGIN SELECT RAISE(ABORT, 'unlucky'); END",
    );
    let succeed = |job, result: &str| fenced(job, Move::Succeed { result: result.to_owned() });
    writer.accept_all(vec![Op::Move(vec![succeed(&jobs[0], "13"), succeed(&jobs[1], "14")])]);
    writer.accept_all(Vec::new());
    let stored = |event| match event {
        Event::Moved(moved) => Some(moved[0].job),
        _ => None,
    };
    let moved: Vec<_> = events.try_iter().filter_map(stored).collect();
    assert_eq!(moved, [jobs[1].job]);
    writer.batch("DROP TRIGGER users_own");
    writer.accept_deferred();
    let moved: Vec<_> = events.try_iter().filter_map(stored).collect();
    assert_eq!(moved, [jobs[0].job]);
    drop(sender);
}

#[test]
fn a_group_is_answered_in_order_and_a_bad_request_fails_alone() {
    let (mut writer, sender, events) = writer_alone();
    let (reply, answers) = mpsc::channel();
    let enqueue = |job_type: &str| {
        let reply = reply.clone();
        Op::Enqueue(vec![new_job(job_type)], Box::new(move |answer| drop(reply.send(answer))))
    };
    writer.accept_all(vec![enqueue("a"), enqueue(""), enqueue("b"), Op::Take(look(now_ms(), 9))]);
    let answers: Vec<_> = answers.try_iter().map(|answer| answer.ok()).collect();
    assert_eq!(answers, [Some(vec![JobId(1)]), None, Some(vec![JobId(2)])]);
    let last = events.try_iter().last().expect("there are events");
    assert!(matches!(last, Event::Taken(taken, _) if taken.jobs.len() == 1));
    assert_eq!(writer.groups(), 1, "they shared one transaction");
    drop(sender);
}

#[test]
fn after_the_end_requests_are_refused() {
    let rig = Rig::new();
    let handle = rig.handle.clone();
    let folder = rig.stop();
    let (sender, answers) = mpsc::channel();
    let reply = Box::new(move |answer| drop(sender.send(answer)));
    handle.send(Op::Enqueue(vec![new_job("a")], reply));
    assert!(matches!(answers.recv_timeout(PATIENCE), Ok(Err(Error::Stopped))));
    drop(folder);
}

#[test]
fn a_stop_stores_what_was_queued_before_it() {
    let rig = Rig::new();
    for _ in 0..50 {
        rig.handle.send(Op::Enqueue(vec![new_job("a")], Box::new(drop)));
    }
    let folder = rig.stop();
    let reader = Reader::open(&options(&folder).path, "").expect("it opens");
    assert_eq!(reader.counts().expect("counted")[0].count, 50);
}

fn taken(events: &Receiver<Event>) -> TakenJob {
    let job = events.try_iter().find_map(|event| match event {
        Event::Taken(mut taken, _) => taken.jobs.pop(),
        _ => None,
    });
    job.expect("a job was claimed")
}
