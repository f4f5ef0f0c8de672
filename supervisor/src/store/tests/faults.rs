//! A database that is taken away, replaced, damaged or full: outcomes are kept, whoever waits
//! gets an answer, nothing is written where nobody would find it.

use super::*;
use crate::store::care::{self, Depth};
use crate::store::direct::Direct;
use crate::store::writer::tests::{Alone, writer_alone};
use std::path::Path;

type Answers = Receiver<Result<Vec<JobId>, Error>>;

fn enqueue(job: NewJob) -> (Op, Answers) {
    let (sender, answers) = mpsc::channel();
    let op = Op::Enqueue(vec![job], Box::new(move |answer| drop(sender.send(answer))));
    (op, answers)
}

fn refusal(answers: &Answers) -> String {
    let answer = answers.try_recv().expect("an answer has come");
    answer.expect_err("it was refused").to_string()
}

/// A writer with one job that runs.
fn writer_with_a_run() -> (Alone, Sender, Receiver<Event>, TakenJob) {
    let (mut writer, sender, events) = writer_alone();
    writer.accept_all(vec![enqueue(new_job("a")).0, Op::Take(look(now_ms(), 1))]);
    let job = events.try_iter().find_map(|event| match event {
        Event::Taken(mut taken, _) => taken.jobs.pop(),
        _ => None,
    });
    (writer, sender, events, job.expect("a job was claimed"))
}

type Sender = mpsc::Sender<Op>;

fn succeed(job: &TakenJob) -> Op {
    Op::Move(vec![fenced(job, Move::Succeed { result: "1".to_owned() })])
}

fn troubles(events: &Receiver<Event>) -> Vec<(String, bool)> {
    let trouble = |event| match event {
        Event::Trouble { text, needs_a_hand } => Some((text, needs_a_hand)),
        _ => None,
    };
    events.try_iter().filter_map(trouble).collect()
}

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("both are ours");
}

#[test]
fn a_database_that_was_moved_away_gets_its_outcomes_when_it_is_back() {
    let (mut writer, sender, events, job) = writer_with_a_run();
    let path = writer.path().to_owned();
    let aside = path.with_extension("aside");
    rename(&path, &aside);
    writer.accept_all(vec![succeed(&job)]);
    let (op, answers) = enqueue(new_job("b"));
    writer.accept_all(vec![op, Op::Progress(Vec::new())]);
    assert!(refusal(&answers).starts_with("nothing was stored: database"));
    let said = troubles(&events);
    assert!(matches!(&said[..], [(text, true)] if text.contains("moved away")), "{said:?}");
    assert_eq!(writer.queued(), 1, "the outcome is kept, and nothing else");
    assert!(!path.exists(), "no new database is made in its place");
    rename(&aside, &path);
    writer.retry();
    let said: Vec<Event> = events.try_iter().collect();
    assert!(matches!(&said[..], [Event::TroubleOver(_), Event::Moved(moved)] if !moved[0].stale));
    drop(sender);
}

#[test]
fn nothing_is_written_into_a_database_that_took_the_place_of_ours() {
    let (mut writer, sender, events, job) = writer_with_a_run();
    let path = writer.path().to_owned();
    rename(&path, &path.with_extension("aside"));
    std::fs::write(&path, "a file of somebody").expect("written");
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    assert!(std::fs::metadata(&log).expect("it is there").len() > 0);
    writer.accept_all(vec![succeed(&job), Op::Take(look(now_ms(), 1))]);
    let said = troubles(&events);
    assert!(matches!(&said[..], [(text, true)] if text.contains("replaced by another file")));
    for _ in 0..5 {
        writer.retry();
    }
    assert_eq!(events.try_iter().count(), 0, "neither claimed nor stored nor said again");
    assert_eq!(std::fs::read(&path).expect("it is there"), b"a file of somebody");
    let bytes = std::fs::metadata(&log).expect("it is there").len();
    assert_eq!(bytes, 0, "our log must not be laid over the other database");
    drop(sender);
}

#[test]
fn a_log_that_another_program_may_have_written_for_the_new_database_is_left_alone() {
    let (mut writer, sender, events, _) = writer_with_a_run();
    let path = writer.path().to_owned();
    let other = foreign(&path);
    let insert = "INSERT INTO jobs(type) VALUES ('b')";
    rename(&path, &path.with_extension("aside"));
    std::fs::write(&path, "a file of somebody").expect("written");
    other.execute(insert, []).expect("it has the old one open");
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    let bytes = || std::fs::metadata(&log).expect("it is there").len();
    let before = bytes();
    writer.accept_all(vec![Op::Touched]);
    assert_eq!((troubles(&events).len(), bytes()), (1, before));
    drop((other, sender));
}

#[test]
fn a_commit_into_a_file_that_was_just_moved_away_is_not_acknowledged() {
    let (mut writer, sender, events, _) = writer_with_a_run();
    let path = writer.path().to_owned();
    let aside = path.with_extension("aside");
    let (from, to) = (path.clone(), aside.clone());
    writer.after_next_commit(move || {
        rename(&from, &to);
        Ok(())
    });
    let (op, answers) = enqueue(new_job("b"));
    writer.accept_all(vec![op]);
    assert!(answers.try_recv().is_err(), "the commit went where nobody sees it");
    assert_eq!(troubles(&events).len(), 1);
    rename(&aside, &path);
    writer.retry();
    assert_eq!(answers.try_recv().expect("an answer comes").expect("stored"), [JobId(2)]);
    assert_eq!(writer.count_jobs(), 2, "it was not done twice");
    drop(sender);
}

#[test]
fn a_request_in_doubt_is_told_so_in_time_and_is_not_done_later() {
    let (mut writer, sender, _events, _) = writer_with_a_run();
    let path = writer.path().to_owned();
    let aside = path.with_extension("aside");
    let (from, to) = (path.clone(), aside.clone());
    writer.after_next_commit(move || {
        rename(&from, &to);
        Ok(())
    });
    let (op, answers) = enqueue(new_job("b"));
    writer.accept_all(vec![op]);
    writer.age(Duration::from_secs(21));
    writer.retry();
    assert!(refusal(&answers).contains("it is not known whether this was stored"));
    // The commit is undone, as a power cut may do.
    writer.batch("DELETE FROM meta WHERE key LIKE 'commit:%'; DELETE FROM jobs WHERE id = 2");
    rename(&aside, &path);
    writer.retry();
    assert_eq!((writer.queued(), writer.count_jobs()), (0, 1));
    drop(sender);
}

#[test]
fn what_a_deleted_log_held_is_saved_in_the_database() {
    let (mut writer, sender, events, job) = writer_with_a_run();
    let path = writer.path().to_owned();
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    std::fs::remove_file(&log).expect("it is there");
    writer.accept_all(vec![Op::Touched, succeed(&job)]);
    let said = troubles(&events);
    assert!(matches!(&said[..], [(text, true)] if text.contains("-wal was deleted")), "{said:?}");
    assert_eq!(writer.queued(), 1, "the outcome is kept");
    let reader = Reader::open(&path, "").expect("another program opens it");
    let row = reader.job(job.job).expect("read").expect("it was in the log alone");
    assert_eq!(row["state"], "running");
    drop((reader, sender));
}

#[test]
fn while_locked_requests_wait_for_a_while_and_are_then_refused() {
    let (mut writer, sender, _events, job) = writer_with_a_run();
    writer.batch("PRAGMA busy_timeout = 1");
    let lock = foreign(writer.path());
    lock.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
    let (op, answers) = enqueue(new_job("b"));
    writer.accept_all(vec![op, succeed(&job)]);
    assert!(answers.try_recv().is_err(), "a lock mostly ends soon");
    writer.age(Duration::from_secs(21));
    writer.retry();
    let said = refusal(&answers);
    assert!(said.starts_with("nothing was stored: ") && said.contains("locked"), "{said}");
    assert_eq!(writer.queued(), 1);
    lock.execute_batch("ROLLBACK").expect("unlocked");
    writer.retry();
    assert_eq!((writer.queued(), writer.count_jobs()), (0, 1));
    drop(sender);
}

#[test]
fn a_full_disk_refuses_requests_at_once_and_says_when_it_is_over() {
    let (mut writer, sender, events, _) = writer_with_a_run();
    writer.limit_pages();
    let payload = "x".repeat(400_000);
    let (op, answers) = enqueue(NewJob { payload, ..new_job("b") });
    writer.accept_all(vec![op]);
    let said = refusal(&answers);
    assert!(said.starts_with("nothing was stored: ") && said.contains("full"), "{said}");
    assert_eq!(troubles(&events).len(), 1);
    writer.unlimit_pages();
    writer.batch(
        "CREATE TRIGGER no_room BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'still'); END",
    );
    writer.retry();
    let said: Vec<Event> = events.try_iter().collect();
    assert!(matches!(&said[..], [Event::Trouble { .. }]), "only a write proves it: {said:?}");
    writer.batch("DROP TRIGGER no_room");
    writer.retry();
    let said: Vec<Event> = events.try_iter().collect();
    assert!(matches!(&said[..], [Event::TroubleOver(_)]), "{said:?}");
    assert_eq!(writer.count_jobs(), 1);
    drop(sender);
}

#[test]
fn a_checkpoint_is_not_confirmed_before_there_is_room_for_it() {
    let (mut writer, sender, events, job) = writer_with_a_run();
    writer.limit_pages();
    let (job, attempt, data) = (job.job, job.attempt, vec![7; 400_000]);
    writer.accept_all(vec![Op::Checkpoint { job, attempt, data }]);
    for _ in 0..3 {
        writer.retry();
    }
    let said: Vec<Event> = events.try_iter().collect();
    assert!(matches!(&said[..], [Event::Trouble { needs_a_hand: false, .. }]), "{said:?}");
    writer.unlimit_pages();
    writer.retry();
    let said: Vec<Event> = events.try_iter().collect();
    assert!(
        matches!(&said[..], [Event::TroubleOver(_), Event::CheckpointStored { stale: false, .. }]),
        "{said:?}"
    );
    drop(sender);
}

#[test]
fn damage_ends_all_writing_and_names_the_remedy() {
    let (mut writer, sender, events, job) = writer_with_a_run();
    writer.batch(
        "PRAGMA writable_schema = on;
         UPDATE sqlite_schema SET rootpage = 100000 WHERE name = 'attempts';
         PRAGMA writable_schema = reset",
    );
    writer.accept_all(vec![succeed(&job)]);
    let said = troubles(&events);
    assert!(
        matches!(&said[..], [(text, true)] if text.contains("shiftboss db restore")),
        "{said:?}"
    );
    assert!(writer.is_halted());
    let (op, answers) = enqueue(new_job("b"));
    writer.accept_all(vec![op]);
    assert!(refusal(&answers).contains("shiftboss db restore"));
    assert_eq!(writer.queued(), 1, "the outcome is kept");
    drop(sender);
}

/// Overwrites the first page of table `jobs` in a database that nobody uses.
fn overwrite_jobs(path: &Path) {
    let conn = foreign(path);
    let page = "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'";
    let page: u32 = conn.query_row(page, [], |row| row.get(0)).expect("it has one");
    conn.close().expect("closed");
    let page = page as usize;
    let mut bytes = std::fs::read(path).expect("nobody uses it");
    bytes[(page - 1) * 4096..page * 4096].fill(0x5A);
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn a_small_damaged_database_is_refused_at_the_start() {
    let folder = folder();
    let path = options(&folder).path;
    drop(database(&folder));
    overwrite_jobs(&path);
    let refused = writer::start(options(&folder), instance(US), Box::new(drop));
    let error = refused.expect_err("it is damaged");
    assert!(error.is_damage() && error.to_string().contains("shiftboss db restore"), "{error}");
}

#[test]
fn a_restore_sets_a_damaged_database_aside_as_it_is() {
    let folder = folder();
    let path = options(&folder).path;
    let [copy, safety] = ["copy.db", "safety.db"].map(|name| folder.path().join(name));
    Direct::open(&options(&folder)).expect("opens").enqueue(&[new_job("a")]).expect("inserted");
    care::backup(&path, "", &copy).expect("copied");
    for is_header_lost in [true, false] {
        if is_header_lost {
            std::fs::write(&path, "no database at all ".repeat(500)).expect("written");
        } else {
            overwrite_jobs(&path);
        }
        let damaged = std::fs::read(&path).expect("nobody uses it");
        let refused = care::check(&path, "", Depth::Full).map(|report| report.problems);
        assert!(!matches!(refused, Ok(problems) if problems.is_empty()));
        care::restore(&options(&folder), &copy, &safety).expect("restored");
        let report = care::check(&path, "", Depth::Full).expect("sound");
        assert_eq!((report.jobs, report.problems), (1, vec![]));
        assert!(std::fs::read(&safety).expect("it is kept") == damaged);
        std::fs::remove_file(&safety).expect("it is ours");
    }
}
