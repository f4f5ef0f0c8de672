//! Deliberate breakages, to see that the checks find them. A saboteur sits between the crew and
//! its world and changes what one tells the other; the world does not know.

use shiftboss::policy::event::{Action, Event};
use shiftboss::policy::moves::Move;
use shiftboss_protocol::job::{Cause, Outcome};

/// One way of breaking the policy or its shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// An outcome is not stored.
    DropMove,
    /// An outcome is stored twice.
    MoveTwice,
    /// A failure is stored as a success.
    CallFailureSuccess,
    /// The death of a worker is reported while its programs still run.
    ReportExitEarly,
    /// An attempt is given to its worker twice.
    AssignTwice,
    /// A request to cancel is not heard.
    ForgetCancel,
    /// The store moves rows without looking at the fence.
    IgnoreFence,
    /// A worker is not told that its outcome is stored.
    SkipReceipt,
    /// More is claimed than the cap over all types allows.
    IgnoreCap,
    /// More is offered than a worker has room for.
    OfferTooMuch,
    /// Crashes are counted for jobs that were not alone.
    BlameTheInnocent,
    /// A crash is not counted.
    ExcuseTheCulprit,
    /// Looks at the table stop after a while.
    ForgetToLook,
    /// A pause is not heard.
    IgnorePause,
    /// The end of a worker is not heard.
    MissExit,
    /// A worker that should be killed is not.
    SpareTheKill,
    /// An attempt whose time is over is not stopped.
    IgnoreTimeout,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::DropMove,
        Self::MoveTwice,
        Self::CallFailureSuccess,
        Self::ReportExitEarly,
        Self::AssignTwice,
        Self::ForgetCancel,
        Self::IgnoreFence,
        Self::SkipReceipt,
        Self::IgnoreCap,
        Self::OfferTooMuch,
        Self::BlameTheInnocent,
        Self::ExcuseTheCulprit,
        Self::ForgetToLook,
        Self::IgnorePause,
        Self::MissExit,
        Self::SpareTheKill,
        Self::IgnoreTimeout,
    ];
}

/// Breaks every so many occasions, in one way; in none by default.
#[derive(Debug, Default)]
pub(super) struct Saboteur {
    pub(super) kind: Option<Sabotage>,
    occasions: u64,
}

/// One occasion in so many is used: most of a run goes right.
const EVERY: u64 = 5;

impl Saboteur {
    pub(super) fn new(kind: Option<Sabotage>) -> Self {
        Self { kind, occasions: 0 }
    }

    pub(super) fn is(&self, kind: Sabotage) -> bool {
        self.kind == Some(kind)
    }

    fn strikes(&mut self) -> bool {
        self.occasions += 1;
        self.occasions.is_multiple_of(EVERY)
    }

    /// What the crew hears instead of `event`.
    pub(super) fn hears(&mut self, event: Event) -> Event {
        let lost = match (self.kind, &event) {
            (Some(Sabotage::ForgetCancel), Event::CancelAsked(_))
            | (Some(Sabotage::IgnorePause), Event::Pause(_)) => true,
            (Some(Sabotage::MissExit), Event::WorkerExited { .. }) => self.strikes(),
            (Some(Sabotage::CallFailureSuccess), Event::Finished { .. }) => {
                return self.whitewash(event);
            }
            (_, _) => false,
        };
        if lost { Event::Deadline } else { event }
    }

    fn whitewash(&mut self, event: Event) -> Event {
        match event {
            Event::Finished { worker, job, attempt, outcome: Outcome::Failed(_), usage } => {
                let outcome = Outcome::Succeeded { result: "{}".to_owned() };
                Event::Finished { worker, job, attempt, outcome, usage }
            }
            other => other,
        }
    }

    /// Changes what the crew does.
    pub(super) fn meddles(&mut self, actions: &mut Vec<Action>) {
        let Some(kind) = self.kind else { return };
        match kind {
            Sabotage::DropMove => self.drop_some(actions, |one| matches!(one, Action::Move(_))),
            Sabotage::SkipReceipt => {
                self.drop_some(actions, |one| matches!(one, Action::Record { .. }));
            }
            Sabotage::SpareTheKill => actions.retain(|one| !matches!(one, Action::KillWorker(_))),
            Sabotage::IgnoreTimeout => actions.retain(|one| {
                use shiftboss_protocol::message::StopReason::Timeout;
                !matches!(one, Action::Stop { reason: Timeout, .. })
            }),
            Sabotage::ForgetToLook => {
                self.occasions += actions.len() as u64;
                if self.occasions > 300 {
                    actions.retain(|one| !matches!(one, Action::Take(_)));
                }
            }
            Sabotage::MoveTwice => self.double(actions, |one| matches!(one, Action::Move(_))),
            Sabotage::AssignTwice => {
                self.double(actions, |one| matches!(one, Action::Assign { .. }));
            }
            Sabotage::IgnoreCap
            | Sabotage::OfferTooMuch
            | Sabotage::BlameTheInnocent
            | Sabotage::ExcuseTheCulprit => {
                for action in actions {
                    distort(kind, action);
                }
            }
            Sabotage::ReportExitEarly
            | Sabotage::ForgetCancel
            | Sabotage::IgnoreFence
            | Sabotage::IgnorePause
            | Sabotage::MissExit
            | Sabotage::CallFailureSuccess => {}
        }
    }

    fn drop_some(&mut self, actions: &mut Vec<Action>, is_meant: impl Fn(&Action) -> bool) {
        actions.retain(|one| !is_meant(one) || !self.strikes());
    }

    fn double(&mut self, actions: &mut Vec<Action>, is_meant: impl Fn(&Action) -> bool) {
        let meant: Vec<_> = actions.iter().filter(|one| is_meant(one)).cloned().collect();
        if !meant.is_empty() && self.strikes() {
            actions.extend(meant);
        }
    }
}

fn distort(kind: Sabotage, action: &mut Action) {
    match action {
        Action::Take(request) if kind == Sabotage::IgnoreCap => request.room_total = None,
        Action::Take(request) if kind == Sabotage::OfferTooMuch => {
            for offer in request.offers.iter_mut().filter(|offer| offer.only.is_empty()) {
                offer.room += 1;
            }
        }
        Action::Move(one) => match one.to {
            Move::GiveBack if kind == Sabotage::BlameTheInnocent => one.to = Move::Crash,
            Move::Crash if kind == Sabotage::ExcuseTheCulprit => {
                one.to = Move::GiveBack;
                one.record.cause = Some(Cause::Released);
            }
            _ => {}
        },
        _ => {}
    }
}
