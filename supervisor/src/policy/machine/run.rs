//! Life of an attempt that is ours, as a state machine: every state answers every event.

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunState {
    /// Given to its worker.
    Running,
    /// Its worker was told to stop it.
    Stopping,
    /// It did not stop: its worker is being killed.
    Forcing,
    /// How it ended is decided and being stored.
    Ending,
    /// Stored; nothing is left to do.
    Over,
}

/// What happens to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunEvent {
    /// Cancelled, timed out, stalled, or its row is lost.
    StopAsked,
    /// It did not stop in time.
    GraceOver,
    /// Its worker reports the outcome.
    Finished,
    /// Its worker is gone, its tree too.
    WorkerGone,
    /// The store says what became of its outcome.
    Stored,
}

/// What is done about an attempt when it changes its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOrder {
    /// Nothing.
    Nothing,
    /// Tell the worker to stop it.
    Stop,
    /// Kill the worker that does not stop it.
    KillWorker,
    /// Store the reported outcome.
    StoreOutcome,
    /// Store what follows from the loss of its worker.
    StoreLoss,
    /// Tell the worker that it may forget the outcome, and forget it too.
    Forget,
}

impl RunState {
    /// All states, in the order of life.
    pub const ALL: [Self; 5] =
        [Self::Running, Self::Stopping, Self::Forcing, Self::Ending, Self::Over];

    /// The next state and what is done.
    #[must_use]
    pub const fn on(self, event: RunEvent) -> (Self, RunOrder) {
        use {RunEvent as E, RunOrder as O, RunState as S};
        match (self, event) {
            (S::Running, E::StopAsked) => (S::Stopping, O::Stop),
            (S::Running, E::GraceOver | E::Stored) => (S::Running, O::Nothing),
            (S::Stopping, E::GraceOver) => (S::Forcing, O::KillWorker),
            (S::Stopping, E::StopAsked | E::Stored) => (S::Stopping, O::Nothing),
            (S::Forcing, E::StopAsked | E::GraceOver | E::Stored) => (S::Forcing, O::Nothing),
            (S::Running | S::Stopping | S::Forcing, E::Finished) => (S::Ending, O::StoreOutcome),
            (S::Running | S::Stopping | S::Forcing, E::WorkerGone) => (S::Ending, O::StoreLoss),
            (S::Ending, E::Stored) => (S::Over, O::Forget),
            // The first outcome counts: a second one, or the worker's death, changes nothing.
            (S::Ending, E::StopAsked | E::GraceOver | E::Finished | E::WorkerGone) => {
                (S::Ending, O::Nothing)
            }
            (S::Over, E::StopAsked | E::GraceOver | E::Finished | E::WorkerGone | E::Stored) => {
                (S::Over, O::Nothing)
            }
        }
    }
}

impl RunEvent {
    /// All events.
    pub const ALL: [Self; 5] =
        [Self::StopAsked, Self::GraceOver, Self::Finished, Self::WorkerGone, Self::Stored];
}
