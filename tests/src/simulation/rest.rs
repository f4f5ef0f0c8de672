//! The end of a run: faults stop, and everything must come to rest in the right state.

use super::world::World;
use super::writer::Op;
use shiftboss::policy::event::{DrainLimit, Event};
use shiftboss_protocol::job::JobState;

const HOUR_US: u64 = 3_600_000_000;
const MINUTE_US: u64 = 60_000_000;

/// Longest time until every job has ended: the wall clock may be four hours away from a
/// `run_at`, and each poison job may open a breaker a few times.
const SETTLED_WITHIN_US: u64 = 12 * HOUR_US;

/// Steps that this may take: each row has a bounded number of attempts.
const SETTLED_STEPS_MAX: u64 = 200_000;

/// Events of ten minutes at rest: a fallback poll a minute, and a spare that goes.
const EVENTS_AT_REST_MAX: u64 = 40;

impl World {
    /// Stops all faults and lets the world come to rest.
    pub(super) fn settle(&mut self) {
        self.note(|| "from here on nothing new goes wrong".to_owned());
        self.is_quiet = true;
        self.fuse = None;
        self.writer.trouble_until_us = 0;
        // What a dead supervisor left, and a draining one, ends with the next start.
        let is_closed = self.shell.as_ref().is_some_and(|shell| shell.is_draining);
        if is_closed || self.dead.len() > usize::from(self.shell.is_none()) {
            self.die();
        }
        self.wait_for_supervisor();
        self.heal();
        let (until_us, steps) = (self.now_us + SETTLED_WITHIN_US, self.steps);
        while self.violation.is_none() && !self.is_settled() {
            if !self.advance(until_us) || self.steps > steps + SETTLED_STEPS_MAX {
                let open = self.open_rows();
                self.blame(format!("no rest after the last fault: {open}"));
            }
        }
        self.check_rest();
    }

    fn wait_for_supervisor(&mut self) {
        let until_us = self.now_us + HOUR_US;
        while self.violation.is_none() && self.shell.is_none() {
            if !self.advance(until_us) {
                self.blame("no supervisor starts");
            }
        }
    }

    /// The settings are what they were, nothing is paused, and a process that does not go on by
    /// itself is left to the supervisor.
    fn heal(&mut self) {
        let life = self.life;
        let settings = self.scene.settings.clone();
        for name in settings.types.keys() {
            // Behind a pause that still waits for its commit.
            self.queue(Op::Pause(name.as_str().into(), false));
        }
        self.arrive(life, Event::Reload(Box::new(settings)));
    }

    fn is_settled(&self) -> bool {
        let open = self.table.rows.values().any(|row| !is_at_rest(row.state));
        let dying = self.processes.values().any(|one| !one.is_alive || one.is_killed);
        !open && !dying && self.ledger.claims.is_empty() && self.shell.is_some()
    }

    fn open_rows(&self) -> String {
        let open = self.table.rows.iter().filter(|(_, row)| !is_at_rest(row.state));
        let mut texts: Vec<String> = open
            .take(5)
            .map(|(job, row)| {
                let (name, state, attempt) = (&row.job_type, row.state, row.attempt);
                let wait_ms = row.run_at_ms - self.wall_ms();
                format!("job {job} ({name}) is {state}, attempt {attempt}, due in {wait_ms} ms")
            })
            .collect();
        let claims = self.ledger.claims.iter().take(3);
        texts.extend(claims.map(|((job, attempt), one)| {
            format!("job {job} attempt {attempt} is {:?} in worker {}", one.phase, one.worker)
        }));
        if let Some(shell) = &self.shell {
            let status = shell.crew.status_view();
            texts.push(format!("{} workers, {} running", status.workers, status.running));
        }
        texts.join("; ")
    }

    /// At rest nothing moves but the fallback poll, and nothing is left behind.
    fn check_rest(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.run_for(20 * MINUTE_US);
        if !self.is_settled() && self.violation.is_none() {
            let open = self.open_rows();
            self.blame(format!("rest does not last: {open}"));
        }
        let keeps = |one: &&super::process::Process| one.is_alive && !one.unrecorded.is_empty();
        let kept = self.processes.values().find(keeps);
        if let Some(kept) = kept {
            let worker = kept.worker;
            self.blame(format!("worker {worker} still keeps outcomes: nobody answered it"));
        }
        let before = self.crew_events;
        self.run_for(10 * MINUTE_US);
        let events = self.crew_events - before;
        let polls_fast = self.shell.as_ref().is_some_and(|shell| !shell.is_watched);
        let most = if polls_fast { 3 * 600 } else { EVENTS_AT_REST_MAX };
        if events > most && self.violation.is_none() {
            self.blame(format!("{events} events in ten minutes at rest, {most} are allowed"));
        }
        self.check_books();
        self.drain_at_the_end();
    }

    fn check_books(&mut self) {
        let Some(shell) = &self.shell else { return };
        let status = shell.crew.status_view();
        let now = self.now(shell.born_us);
        let busy: u32 = shell.crew.types_view(now).iter().map(|one| one.running).sum();
        let (running, workers, hands) = (status.running, status.workers, shell.hands.len());
        if running > 0 || busy > 0 {
            self.blame(format!("{running} attempts, {busy} by type, in the books, none in truth"));
        } else if workers != hands {
            self.blame(format!("{workers} workers in the books, {hands} in truth"));
        }
    }

    /// A drain of a supervisor at rest ends within all graces.
    fn drain_at_the_end(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let life = self.life;
        self.arrive(life, Event::Drain(DrainLimit::Grace));
        let until_us = self.now_us + 2 * MINUTE_US;
        while self.violation.is_none() && self.life == life && self.shell.is_some() {
            if !self.advance(until_us) {
                self.blame("a drain at rest does not end");
            }
        }
    }

    pub(super) fn run_for(&mut self, time_us: u64) {
        let until_us = self.now_us + time_us;
        while self.violation.is_none() && self.advance(until_us) {}
        self.now_us = self.now_us.max(until_us);
    }
}

fn is_at_rest(state: JobState) -> bool {
    state.is_final() || state == JobState::Held
}
