//! Jobs of instances that died.

use super::*;
use crate::store::op::Adoption;

#[test]
fn jobs_of_a_dead_instance_are_listed_and_come_back_in_batches() {
    let rig = Rig::new();
    rig.enqueue(vec![new_job("a"); 1200]);
    let mut claimed = 0;
    while claimed < 1200 {
        claimed += rig.take(look(now_ms(), 1200)).0.jobs.len();
    }
    let folder = rig.stop();
    let (sender, events) = mpsc::channel();
    let send = move |event| drop(sender.send(event));
    let started =
        writer::start(options(&folder), instance("next"), Box::new(send)).expect("it starts");
    assert_eq!(started.others.len(), 1);
    let dead = &started.others[0];
    assert_eq!((&*dead.id, dead.running.len()), (US, 1200));
    assert_eq!(dead.row, Some(instance(US)));
    let job = &dead.running[0];
    assert_eq!((job.worker.as_deref(), job.pid, &*job.job_type), (Some("5"), Some(4321), "a"));
    let (sender, receiver) = mpsc::channel();
    let reply = Box::new(move |answer| drop(sender.send(answer)));
    started.handle.send(Op::Rescue(vec![US.to_owned()], reply));
    let rescued = receiver.recv_timeout(PATIENCE).expect("an answer comes");
    assert_eq!(rescued.expect("it is done"), 1200);
    assert!(matches!(events.recv_timeout(PATIENCE), Ok(Event::OwnRows)));
    let reader = Reader::open(&options(&folder).path, "").expect("it opens");
    let row = reader.job(JobId(7)).expect("read").expect("it exists");
    assert_eq!((&row["state"], &row["crash_count"]), (&"available".into(), &0.into()));
    let attempt = &reader.attempts(JobId(7)).expect("read")[0];
    assert_eq!((&attempt["outcome"], &attempt["cause"]), (&"released".into(), &"released".into()));
    assert_eq!(attempt["error"], "its supervisor died");
    let conn = foreign(&options(&folder).path);
    let left: i64 = conn
        .query_row("SELECT count(*) FROM instances WHERE id <> 'next'", [], |row| row.get(0))
        .expect("read");
    assert_eq!(left, 0);
}

#[test]
fn an_adopted_job_obeys_its_new_owner_only() {
    let rig = Rig::new();
    rig.enqueue(vec![new_job("a")]);
    let job = rig.claim();
    let next = Rig::within(rig.stop(), "next");
    assert!(next.apply(vec![fenced(&job, Move::Fail)])[0].stale);
    let adoption = Adoption { job: job.job, attempt: job.attempt, owner: US.to_owned() };
    let wrong = Adoption { owner: "other".to_owned(), ..adoption.clone() };
    let adopted = next.ask(|reply| Op::Adopt(vec![wrong, adoption], reply)).expect("answered");
    assert_eq!(adopted, [false, true]);
    assert!(!next.apply(vec![fenced(&job, Move::Fail)])[0].stale);
    assert_eq!(next.job(job.job)["state"], "failed");
}
