//! What the crew owes after each event: checked before its actions are carried out, against the
//! ledger as it was.

use super::ledger::{Claim, Hand, Phase};
use super::process::Key;
use super::words;
use super::world::World;
use shiftboss::policy::claim::{Taken, WorkerId};
use shiftboss::policy::event::{Action, Event, Exit};
use shiftboss::policy::moves::{FencedMove, Move, Moved, RunningRow};
use shiftboss::policy::retry;
use shiftboss::policy::settings::TypeSettings;
use shiftboss_protocol::job::{Failure, Outcome};
use shiftboss_protocol::message::StopReason;
use std::collections::{BTreeMap, BTreeSet};

/// The actions after one event, by what they are about.
struct Digest<'a> {
    moves: BTreeMap<Key, &'a FencedMove>,
    stops: BTreeSet<Key>,
    assigned: BTreeMap<Key, WorkerId>,
    recorded: BTreeSet<(WorkerId, Key)>,
}

impl World {
    pub(super) fn check_duties(&mut self, event: &Event, actions: &[Action]) {
        self.count_looks(event);
        let digest = self.digest(actions);
        match event {
            Event::Taken(taken) => self.after_taken(taken, &digest),
            Event::Finished { worker, job, attempt, outcome, .. } => {
                self.after_finished(*worker, (*job, *attempt), &digest);
                self.credit((*job, *attempt), outcome);
            }
            Event::WorkerExited { worker, exit } => self.after_exit(*worker, Some(exit), &digest),
            Event::SpawnFailed { worker, .. } => self.after_exit(*worker, None, &digest),
            Event::WorkerBack { worker, held } => {
                self.after_back(*worker, held, &digest);
                self.note_strays(*worker, held, &digest);
            }
            Event::CancelAsked(jobs) => {
                for job in jobs {
                    let keys = self.ledger.claims.keys().filter(|(id, _)| id == job);
                    for key in keys.copied().collect::<Vec<_>>() {
                        self.is_unwanted(key);
                        self.must_be_stopped(key, &digest, "somebody asked to cancel it");
                    }
                }
            }
            Event::TableChanged(rows) => self.after_change(rows, &digest),
            Event::Moved(moved) => self.after_moved(moved, &digest),
            _ => {}
        }
        for (key, one) in &digest.moves {
            self.check_move(*key, one, event);
        }
        self.forget(event);
    }

    fn digest<'a>(&mut self, actions: &'a [Action]) -> Digest<'a> {
        let mut digest = Digest {
            moves: BTreeMap::new(),
            stops: BTreeSet::new(),
            assigned: BTreeMap::new(),
            recorded: BTreeSet::new(),
        };
        for action in actions {
            match action {
                Action::Move(one) => {
                    let earlier = digest.moves.insert((one.job, one.attempt), one);
                    if earlier.is_some() {
                        self.blame(format!("job {} is moved twice at once", one.job));
                    }
                }
                Action::Stop { job, attempt, .. } => drop(digest.stops.insert((*job, *attempt))),
                Action::Assign { worker, jobs } => {
                    for (job, attempt, _) in jobs {
                        if digest.assigned.insert((*job, *attempt), *worker).is_some() {
                            self.blame(format!("job {job} is assigned twice at once"));
                        }
                    }
                }
                Action::Record { worker, receipts } => {
                    let keys = receipts.iter().map(|one| (*worker, (one.job, one.attempt)));
                    digest.recorded.extend(keys);
                }
                _ => {}
            }
        }
        digest
    }

    fn after_taken(&mut self, taken: &Taken, digest: &Digest<'_>) {
        if let Some(shell) = &mut self.shell {
            shell.is_looking = false;
        }
        for one in &taken.jobs {
            let key = (one.job, one.attempt);
            let known =
                digest.moves.contains_key(&key) || digest.assigned.get(&key) == Some(&one.worker);
            if !known {
                self.blame(format!(
                    "job {} attempt {} was claimed for worker {} and is neither given to it nor \
                     given back",
                    one.job, one.attempt, one.worker
                ));
            }
        }
    }

    fn after_finished(&mut self, worker: WorkerId, key: Key, digest: &Digest<'_>) {
        let (job, attempt) = key;
        let phase = self.ledger.claims.get(&key).filter(|one| one.worker == worker);
        match phase.map(|one| one.phase) {
            Some(Phase::Running) => {
                if !digest.moves.contains_key(&key) {
                    self.blame(format!("the outcome of job {job} attempt {attempt} is lost"));
                }
                if let Some(claim) = self.ledger.claims.get_mut(&key) {
                    claim.is_reported = true;
                }
            }
            // Its answer comes with the answer to the first.
            Some(Phase::Moved) => {}
            Some(Phase::Committed) | None => {
                if !digest.recorded.contains(&(worker, key)) {
                    self.blame(format!(
                        "worker {worker} says how job {job} attempt {attempt} ended, which is not \
                         its own, and gets no answer: it keeps that for ever"
                    ));
                }
            }
        }
    }

    /// A finished job is the best proof that workers of its type are well.
    fn credit(&mut self, key: Key, outcome: &Outcome) {
        let Some(claim) = self.ledger.claims.get(&key) else { return };
        if matches!(outcome, Outcome::Succeeded { .. }) && claim.phase == Phase::Running {
            self.ledger.deaths.remove(&claim.job_type);
        }
    }

    fn after_exit(&mut self, worker: WorkerId, exit: Option<&Exit>, digest: &Digest<'_>) {
        for (job, attempt) in self.ledger.open_of(worker) {
            if !digest.moves.contains_key(&(job, attempt)) {
                self.blame(format!(
                    "worker {worker} is gone, and its job {job} attempt {attempt} is forgotten"
                ));
            }
        }
        self.note_death(worker, exit);
    }

    fn is_unwanted(&mut self, key: Key) {
        let claim = self.ledger.claims.get_mut(&key);
        if let Some(claim) = claim.filter(|one| one.phase == Phase::Running) {
            claim.is_unwanted = true;
        }
    }

    fn must_be_stopped(&mut self, key: Key, digest: &Digest<'_>, why: &str) {
        let Some(claim) = self.ledger.claims.get(&key) else { return };
        let told = claim.stop.is_some()
            || digest.stops.contains(&key)
            || digest.moves.contains_key(&key)
            || claim.phase != Phase::Running;
        if !told {
            self.blame(format!("job {} attempt {} is not stopped: {why}", key.0, key.1));
        }
    }

    fn after_change(&mut self, rows: &[RunningRow], digest: &Digest<'_>) {
        let rows: BTreeMap<_, _> = rows.iter().map(|row| (row.job, row)).collect();
        for key in self.ledger.claims.keys().copied().collect::<Vec<_>>() {
            match rows.get(&key.0) {
                Some(row) if row.attempt == key.1 && !row.cancel_requested => {}
                Some(row) if row.attempt == key.1 => {
                    self.is_unwanted(key);
                    self.must_be_stopped(key, digest, "its row asks to cancel it");
                }
                Some(_) | None => self.must_be_stopped(key, digest, "its row is not ours any more"),
            }
        }
    }

    fn after_moved(&mut self, moved: &[Moved], digest: &Digest<'_>) {
        for one in moved {
            let key = (one.job, one.attempt);
            let Some(claim) = self.ledger.claims.get(&key) else { continue };
            let (worker, reported) = (claim.worker, claim.is_reported);
            let exists = self.hand(worker).is_some();
            if reported && exists && !digest.recorded.contains(&(worker, key)) {
                self.blame(format!(
                    "worker {worker} does not hear that the outcome of job {} attempt {} is \
                     stored",
                    one.job, one.attempt
                ));
            }
        }
    }

    /// What a worker that is back does not hold never reached it, and is free again.
    fn after_back(&mut self, worker: WorkerId, held: &BTreeSet<Key>, digest: &Digest<'_>) {
        for key in self.ledger.open_of(worker) {
            if !held.contains(&key) && !digest.moves.contains_key(&key) {
                let (job, attempt) = key;
                self.blame(format!(
                    "worker {worker} is back without job {job} attempt {attempt}, which stays its"
                ));
            }
        }
    }

    /// What it holds beyond that is not ours any more: it is stopped, and watched as if it were,
    /// unless another attempt of its job is.
    fn note_strays(&mut self, worker: WorkerId, held: &BTreeSet<Key>, digest: &Digest<'_>) {
        let Some(job_type) = self.hand(worker).map(|hand| hand.job_type.clone()) else { return };
        for key in held.iter().filter(|key| !self.ledger.claims.contains_key(*key)) {
            let (job, attempt) = *key;
            if !digest.stops.contains(key) {
                let what = format!("stray attempt {attempt} of job {job} is not stopped");
                return self.blame(what);
            }
        }
        let Some(shell) = &self.shell else { return };
        let now = self.now(shell.born_us);
        let taken_in = |key: &&Key| {
            let run = shell.crew.run_view(now, key.0);
            run.is_some_and(|run| run.attempt == key.1 && run.worker == worker)
        };
        for key in held.iter().filter(taken_in) {
            if !self.ledger.claims.contains_key(key) {
                let found = Claim::found(worker, job_type.clone(), self.now_us);
                self.ledger.claims.insert(*key, Claim { is_stray: true, ..found });
                self.history.count("stray attempt taken in");
            }
        }
    }

    /// What an event ends: answered moves, workers that are gone.
    fn forget(&mut self, event: &Event) {
        match event {
            Event::Moved(moved) => {
                for one in moved {
                    self.ledger.claims.remove(&(one.job, one.attempt));
                    self.written.remove(&(one.job, one.attempt));
                }
            }
            Event::WorkerExited { worker, .. } | Event::SpawnFailed { worker, .. } => {
                let Some(shell) = &mut self.shell else { return };
                let Some(hand) = shell.hands.remove(worker) else { return };
                if let Some(pid) = hand.pid
                    && self.processes.get(&pid).is_some_and(|one| one.is_gone)
                {
                    self.processes.remove(&pid);
                }
            }
            _ => {}
        }
    }

    /// A move is of an attempt that was claimed and is open, whose programs have all ended, and
    /// it is what follows from the event.
    fn check_move(&mut self, key: Key, one: &FencedMove, event: &Event) {
        let (job, attempt) = key;
        let what = words::of_move(&one.to);
        let Some(claim) = self.ledger.claims.get(&key).cloned() else {
            self.blame(format!("{what} of job {job} attempt {attempt}, which is not claimed"));
            return;
        };
        let open = match event {
            Event::Taken(_) => claim.phase == Phase::Committed,
            _ => claim.phase == Phase::Running,
        };
        if !open {
            let phase = claim.phase;
            self.blame(format!("{what} of job {job} attempt {attempt}, which is {phase:?}"));
        }
        let runs = self.processes.iter().find(|(_, process)| process.programs.contains(&key));
        if let Some((pid, _)) = runs {
            let pid = *pid;
            self.blame(format!(
                "{what} of job {job} attempt {attempt}, while its programs run in process {pid}"
            ));
        }
        let runs_again = matches!(one.to, Move::Retry { .. } | Move::GiveBack | Move::Crash);
        if claim.is_unwanted && runs_again {
            self.blame(format!("{what} of job {job}, which somebody asked to cancel"));
        }
        let follows = match event {
            Event::Finished { worker, job: of, attempt: try_, outcome, .. }
                if (*of, *try_) == key && *worker == claim.worker =>
            {
                self.follows_from_outcome(&claim, &one.to, outcome)
            }
            Event::WorkerExited { worker, .. } | Event::SpawnFailed { worker, .. }
                if *worker == claim.worker =>
            {
                self.follows_from_loss(&claim, *worker, &one.to)
            }
            Event::Taken(_) => one.to == Move::GiveBack,
            Event::WorkerBack { worker, held } if *worker == claim.worker => {
                // A cancel wins over whatever it was stopped for first.
                let is_cancelled = one.to == Move::Cancel && claim.stop.is_some();
                !held.contains(&key) && (one.to == Move::GiveBack || is_cancelled)
            }
            _ => false,
        };
        if !follows {
            let what = format!("{:?}", one.to);
            let stop = claim.stop;
            self.blame(format!(
                "{what} of job {job} attempt {attempt} does not follow from {} (failures {}, \
                 crashes {}, told to stop: {stop:?})",
                words::of_event(event),
                claim.failures,
                claim.crash_count
            ));
        }
    }

    fn type_settings(&self, claim: &Claim) -> Option<TypeSettings> {
        let shell = self.shell.as_ref()?;
        let configured = shell.settings.types.get(&*claim.job_type).cloned();
        configured.or_else(|| self.scene.settings.types.get(&*claim.job_type).cloned())
    }

    fn follows_from_outcome(&self, claim: &Claim, to: &Move, outcome: &Outcome) -> bool {
        let cancelled = *to == Move::Cancel && claim.stop.is_some();
        match outcome {
            Outcome::Succeeded { .. } => matches!(to, Move::Succeed { .. }),
            Outcome::Failed(failure) => cancelled || self.follows_from_failure(claim, to, failure),
            Outcome::Cancelled => *to == Move::Cancel,
            Outcome::Held { .. } => *to == Move::Hold,
            Outcome::Released { .. } => cancelled || *to == Move::GiveBack,
        }
    }

    fn follows_from_failure(&self, claim: &Claim, to: &Move, failure: &Failure) -> bool {
        let Some(settings) = self.type_settings(claim) else { return false };
        let most = claim.attempts_max.unwrap_or(settings.attempts_max);
        if failure.permanent || claim.failures + 1 >= most {
            return *to == Move::Fail;
        }
        let Move::Retry { run_at_ms } = to else { return false };
        let plain = retry::delay(&settings.retry, claim.failures).as_secs_f64() * 1_000.0;
        let least = failure.retry_after_ms.unwrap_or(0) as f64;
        let wait = (*run_at_ms - self.wall_ms()) as f64;
        let spread = settings.retry.jitter;
        let (low, high) = (plain * (1.0 - spread) - 2.0, plain * (1.0 + spread) + 2.0);
        wait >= low.max(least - 2.0) && wait <= high.max(least + 2.0)
    }

    fn follows_from_loss(&self, claim: &Claim, worker: WorkerId, to: &Move) -> bool {
        let Some(hand) = self.hand(worker) else { return false };
        let retryable = |cause| Failure::retryable(cause, "");
        use shiftboss_protocol::job::Cause;
        match claim.stop {
            Some(StopReason::Cancelled) => return *to == Move::Cancel,
            Some(StopReason::Released) => return *to == Move::GiveBack,
            Some(StopReason::Timeout | StopReason::Stalled) if *to == Move::Cancel => return true,
            Some(StopReason::Timeout | StopReason::Stalled) => {
                return self.follows_from_failure(claim, to, &retryable(Cause::Timeout));
            }
            None => {}
        }
        let alone = self.ledger.open_of(worker).len() == 1;
        let uncertain = hand.may_be_dismissed || hand.is_away || self.may_be_forced(worker, hand);
        match to {
            Move::GiveBack => !alone || uncertain,
            Move::Crash | Move::Poison => {
                let after = hand.settings.poison_after;
                let is_poison = after > 0 && claim.crash_count + 1 >= after;
                alone && !hand.is_dismissed && !hand.is_away && is_poison == (*to == Move::Poison)
            }
            _ => false,
        }
    }

    /// Some attempt of it was told to stop, and then it was killed: perhaps because of that.
    fn may_be_forced(&self, worker: WorkerId, hand: &Hand) -> bool {
        let mut claims = self.ledger.claims.values();
        hand.is_kill_ordered && claims.any(|one| one.worker == worker && one.stop.is_some())
    }
}
