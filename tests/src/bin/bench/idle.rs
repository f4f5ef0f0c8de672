//! What a supervisor with ten idle workers costs, and that its database thread sleeps between
//! the polls: a query runs on that thread or nowhere, and the kernel counts each of its wakes.

use crate::figures::{head, row, say};
use crate::process::{Thread, resident, threads};
use shiftboss_tests::{Stage, children, wait_until};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Past our own first commits, the checkpoint after them and the re-checks that they cause.
const SETTLED: Duration = Duration::from_secs(5);
/// With the default poll: 1 s after the last sign of work, then 2, 4, 8, 16, 32 s apart.
const WATCHED: Duration = Duration::from_secs(66);
const LOOK: Duration = Duration::from_millis(50);
/// Wakes this close belong together: a poll is sent, answered, and its answer handled.
const TOGETHER: Duration = Duration::from_millis(200);

/// A moment at which threads of the supervisor ran.
struct Wake {
    at: Duration,
    last: Duration,
    sleeps: u64,
    nanos: u64,
    /// Of which by threads that may query the database.
    query_sleeps: u64,
}

pub(crate) fn idle() {
    let stage = Stage::new("[types.noop]\nworkers = { min = 10, max = 10 }");
    wait_until("ten workers are ready", || stage.log().matches("is ready").count() >= 10);
    let start = Instant::now();
    std::thread::sleep(SETTLED);
    let workers = children(stage.pid());
    let workers_before: u64 = workers.iter().map(|pid| total(&threads(*pid)).nanos).sum();
    let before = threads(stage.pid());
    let wakes = watch(stage.pid(), start);
    let after = threads(stage.pid());
    let workers_after: u64 = workers.iter().map(|pid| total(&threads(*pid)).nanos).sum();
    let watched = start.elapsed() - SETTLED;
    head(&["wake at, s", "threads woken, times", "of which database", "on a core, microseconds"]);
    for wake in &wakes {
        row(&[
            format!("{:.1}", wake.at.as_secs_f64()),
            wake.sleeps.to_string(),
            wake.query_sleeps.to_string(),
            (wake.nanos / 1000).to_string(),
        ]);
    }
    tell_gap(&wakes, start.elapsed());
    let used = total(&after).nanos - total(&before).nanos;
    let share = |nanos: u64| nanos as f64 / watched.as_nanos() as f64 * 100.0;
    let (all, own) = resident(stage.pid());
    let shares = (share(used), share(workers_after - workers_before));
    say(&format!(
        "supervisor: {:.4} % of a core over {:.0} s (target: 0.1), all its {} workers {:.4} %; \
         {all} KiB resident (target: 16384), of which {own} KiB its own and the rest program text",
        shares.0,
        watched.as_secs_f64(),
        workers.len(),
        shares.1,
    ));
}

fn total(threads: &BTreeMap<i32, Thread>) -> Thread {
    threads.values().fold(Thread::default(), |sum, one| Thread {
        name: String::new(),
        nanos: sum.nanos + one.nanos,
        sleeps: sum.sleeps + one.sleeps,
    })
}

/// The two threads that open the database.
fn may_query(thread: &Thread) -> bool {
    thread.name == "store" || thread.name == "queries"
}

/// Looks at the counters, which miss nothing, often enough to tell wakes apart.
fn watch(pid: i32, start: Instant) -> Vec<Wake> {
    let mut wakes: Vec<Wake> = Vec::new();
    let mut before = threads(pid);
    assert!(before.values().any(may_query), "the database thread has another name: {before:?}");
    while start.elapsed() < WATCHED {
        std::thread::sleep(LOOK);
        let after = threads(pid);
        let at = start.elapsed();
        for (number, thread) in &after {
            let was = before.get(number).cloned().unwrap_or_default();
            if *thread == was {
                continue;
            }
            if wakes.last().is_none_or(|wake| at - wake.last > TOGETHER) {
                wakes.push(Wake { at, last: at, sleeps: 0, nanos: 0, query_sleeps: 0 });
            }
            let wake = wakes.last_mut().expect("one was pushed when there was none");
            let sleeps = thread.sleeps - was.sleeps;
            wake.last = at;
            wake.sleeps += sleeps;
            wake.nanos += thread.nanos - was.nanos;
            wake.query_sleeps += if may_query(thread) { sleeps } else { 0 };
        }
        before = after;
    }
    wakes
}

fn tell_gap(wakes: &[Wake], end: Duration) {
    let mut last = SETTLED;
    let mut longest = (Duration::ZERO, last);
    for (at, next) in wakes.iter().map(|wake| (wake.at, wake.last)).chain([(end, end)]) {
        longest = longest.max((at.saturating_sub(last), last));
        last = next;
    }
    say(&format!(
        "\nbetween these wakes no thread of the supervisor ran, so no query did; the longest such \
         time was {:.1} s, from {:.1} s on\n",
        longest.0.as_secs_f64(),
        longest.1.as_secs_f64()
    ));
}
