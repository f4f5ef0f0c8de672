//! Events, actions and notices in words: for the timeline, and as kinds for counting.

use shiftboss::policy::event::{Action, Event, Notice};
use shiftboss::policy::moves::Move;

pub(super) fn of_event(event: &Event) -> String {
    match event {
        Event::Taken(taken) => {
            let jobs: Vec<_> = taken
                .jobs
                .iter()
                .map(|one| format!("{}.{} for worker {}", one.job, one.attempt, one.worker))
                .collect();
            let waiting = &taken.waiting;
            format!(
                "Taken [{}], waiting {waiting:?}, more {}, due {:?}",
                jobs.join(", "),
                taken.more,
                taken.next_due_ms
            )
        }
        Event::Finished { worker, job, attempt, outcome, .. } => {
            format!("Finished {job}.{attempt} by worker {worker}: {outcome:?}")
        }
        Event::Moved(moved) => {
            let jobs: Vec<_> = moved
                .iter()
                .map(|one| {
                    let stale = if one.stale { " stale" } else { "" };
                    format!("{}.{}{stale}", one.job, one.attempt)
                })
                .collect();
            format!("Moved [{}]", jobs.join(", "))
        }
        Event::TableChanged(rows) => {
            let jobs: Vec<_> = rows
                .iter()
                .map(|one| {
                    let cancel = if one.cancel_requested { " cancel" } else { "" };
                    format!("{}.{}{cancel}", one.job, one.attempt)
                })
                .collect();
            format!("TableChanged, ours are [{}]", jobs.join(", "))
        }
        Event::Reload(settings) => {
            let types: Vec<_> = settings
                .types
                .iter()
                .map(|(name, one)| {
                    let (workers, attempts) = (one.workers_max, one.concurrency);
                    format!("{name} {workers}x{attempts} enabled {}", one.enabled)
                })
                .collect();
            format!("Reload cap {:?}, {}", settings.running_max, types.join(", "))
        }
        other => format!("{other:?}"),
    }
}

pub(super) fn of_action(action: &Action) -> String {
    match action {
        Action::Take(request) => {
            let offers: Vec<_> = request
                .offers
                .iter()
                .map(|one| {
                    let only = if one.only.is_empty() {
                        String::new()
                    } else {
                        format!(" only {:?}", one.only)
                    };
                    format!("worker {} has room for {}{only}", one.worker, one.room)
                })
                .collect();
            let (total, avoid) = (request.room_total, &request.avoid);
            format!("Take [{}], in all {total:?}, avoid {avoid:?}", offers.join(", "))
        }
        Action::Move(one) => format!("Move {}.{} {:?}", one.job, one.attempt, one.to),
        Action::Record { worker, receipts } => {
            let jobs: Vec<_> =
                receipts.iter().map(|one| format!("{}.{}", one.job, one.attempt)).collect();
            format!("Record to worker {worker}: [{}]", jobs.join(", "))
        }
        other => format!("{other:?}"),
    }
}

pub(super) fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::Started => "event Started",
        Event::Watched(_) => "event Watched",
        Event::TableChanged(_) => "event TableChanged",
        Event::OwnRows => "event OwnRows",
        Event::Taken(_) => "event Taken",
        Event::Moved(_) => "event Moved",
        Event::WorkerSpawned { .. } => "event WorkerSpawned",
        Event::SpawnFailed { .. } => "event SpawnFailed",
        Event::WorkerReady { .. } => "event WorkerReady",
        Event::WorkerHeard(_) => "event WorkerHeard",
        Event::WorkerBroken { .. } => "event WorkerBroken",
        Event::WorkerFound(_) => "event WorkerFound",
        Event::WorkerBack { .. } => "event WorkerBack",
        Event::WorkerOutdated(_) => "event WorkerOutdated",
        Event::MemoryUsed { .. } => "event MemoryUsed",
        Event::WorkerExited { .. } => "event WorkerExited",
        Event::Progress { .. } => "event Progress",
        Event::Finished { .. } => "event Finished",
        Event::CancelAsked(_) => "event CancelAsked",
        Event::RestartWorker(_) => "event RestartWorker",
        Event::Pause(_) => "event Pause",
        Event::Resume(_) => "event Resume",
        Event::Drain(_) => "event Drain",
        Event::Hurry => "event Hurry",
        Event::Reload(_) => "event Reload",
        Event::Deadline => "event Deadline",
    }
}

pub(super) fn of_move(to: &Move) -> &'static str {
    match to {
        Move::Succeed { .. } => "move Succeed",
        Move::Retry { .. } => "move Retry",
        Move::Fail => "move Fail",
        Move::Cancel => "move Cancel",
        Move::Hold => "move Hold",
        Move::GiveBack => "move GiveBack",
        Move::Crash => "move Crash",
        Move::Poison => "move Poison",
    }
}

pub(super) fn notice(notice: &Notice) -> &'static str {
    match notice {
        Notice::Pace(_) => "notice Pace",
        Notice::Starting { .. } => "notice Starting",
        Notice::Retiring { .. } => "notice Retiring",
        Notice::Found { .. } => "notice Found",
        Notice::Left { .. } => "notice Left",
        Notice::Died { .. } => "notice Died",
        Notice::BreakerOpened { .. } => "notice BreakerOpened",
        Notice::BreakerClosed(_) => "notice BreakerClosed",
        Notice::AttemptFailed { .. } => "notice AttemptFailed",
        Notice::Stopping { .. } => "notice Stopping",
        Notice::Stale { .. } => "notice Stale",
        Notice::RowLost(_) => "notice RowLost",
        Notice::UnknownTypes(_) => "notice UnknownTypes",
        Notice::Late { .. } => "notice Late",
        Notice::Draining { .. } => "notice Draining",
    }
}
