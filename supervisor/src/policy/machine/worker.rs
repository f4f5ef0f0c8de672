//! Life of a worker as a state machine: every state answers every event.

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerState {
    /// Asked for; not Ready yet.
    Starting,
    /// Left alive by a supervisor that died; it has not found this one yet.
    Returning,
    /// Ready, holds no attempt.
    Idle,
    /// Ready, holds attempts.
    Busy,
    /// Told to finish what it holds and exit.
    Draining,
    /// Got SIGTERM.
    Stopping,
    /// Got SIGKILL, its whole tree with it.
    Killing,
    /// Its process and its tree are gone.
    Gone,
}

/// What happens to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerEvent {
    /// It said Ready.
    Ready,
    /// Attempts were given to it.
    Assigned,
    /// Its last attempt ended.
    Emptied,
    /// It is not wanted any more: retired, recycled, or the supervisor drains.
    Drain,
    /// The time for the present step is over.
    GraceOver,
    /// It must stop now.
    Terminate,
    /// It cannot be trusted or does not answer.
    Kill,
    /// Its process and its tree are gone.
    Exited,
}

/// What is done to the worker when it changes its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerOrder {
    /// Nothing.
    Nothing,
    /// Say Drain.
    Drain,
    /// Send SIGTERM.
    Terminate,
    /// Send SIGKILL to its tree.
    Kill,
}

impl WorkerState {
    /// All states, in the order of life.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Returning,
        Self::Idle,
        Self::Busy,
        Self::Draining,
        Self::Stopping,
        Self::Killing,
        Self::Gone,
    ];

    /// The word that listings show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Returning => "returning",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Killing => "killing",
            Self::Gone => "gone",
        }
    }

    /// True while it may be given attempts.
    #[must_use]
    pub const fn is_open(self) -> bool {
        match self {
            Self::Idle | Self::Busy => true,
            Self::Starting
            | Self::Returning
            | Self::Draining
            | Self::Stopping
            | Self::Killing
            | Self::Gone => false,
        }
    }

    /// True while it counts as one of its type's wanted workers.
    #[must_use]
    pub const fn is_live(self) -> bool {
        match self {
            Self::Starting | Self::Returning | Self::Idle | Self::Busy => true,
            Self::Draining | Self::Stopping | Self::Killing | Self::Gone => false,
        }
    }

    /// The next state and what is done.
    #[must_use]
    pub const fn on(self, event: WorkerEvent) -> (Self, WorkerOrder) {
        use {WorkerEvent as E, WorkerOrder as O, WorkerState as S};
        match (self, event) {
            (S::Starting, E::Ready) => (S::Idle, O::Nothing),
            // It has nothing to finish and does not read messages before Ready.
            (S::Starting, E::Drain | E::Terminate) => (S::Stopping, O::Terminate),
            (S::Starting, E::GraceOver | E::Kill) => (S::Killing, O::Kill),
            (S::Starting, E::Assigned | E::Emptied) => (S::Starting, O::Nothing),

            (S::Returning, E::Ready) => (S::Idle, O::Nothing),
            // It hears no message before it is back, but every signal.
            (S::Returning, E::Drain | E::Terminate) => (S::Stopping, O::Terminate),
            (S::Returning, E::GraceOver | E::Kill) => (S::Killing, O::Kill),
            (S::Returning, E::Assigned | E::Emptied) => (S::Returning, O::Nothing),

            (S::Idle, E::Assigned) => (S::Busy, O::Nothing),
            (S::Idle, E::Ready | E::Emptied | E::GraceOver) => (S::Idle, O::Nothing),
            (S::Busy, E::Emptied) => (S::Idle, O::Nothing),
            (S::Busy, E::Ready | E::Assigned | E::GraceOver) => (S::Busy, O::Nothing),
            (S::Idle | S::Busy, E::Drain) => (S::Draining, O::Drain),
            (S::Idle | S::Busy, E::Terminate) => (S::Stopping, O::Terminate),
            (S::Idle | S::Busy, E::Kill) => (S::Killing, O::Kill),

            (S::Draining, E::GraceOver | E::Terminate) => (S::Stopping, O::Terminate),
            (S::Draining, E::Kill) => (S::Killing, O::Kill),
            (S::Draining, E::Ready | E::Assigned | E::Emptied | E::Drain) => {
                (S::Draining, O::Nothing)
            }

            (S::Stopping, E::GraceOver | E::Kill) => (S::Killing, O::Kill),
            (S::Stopping, E::Ready | E::Assigned | E::Emptied | E::Drain | E::Terminate) => {
                (S::Stopping, O::Nothing)
            }

            // A process in an uninterruptible sleep survives SIGKILL for a while: ask again.
            (S::Killing, E::GraceOver) => (S::Killing, O::Kill),
            (
                S::Killing,
                E::Ready | E::Assigned | E::Emptied | E::Drain | E::Terminate | E::Kill,
            ) => (S::Killing, O::Nothing),

            (
                S::Starting
                | S::Returning
                | S::Idle
                | S::Busy
                | S::Draining
                | S::Stopping
                | S::Killing
                | S::Gone,
                E::Exited,
            ) => (S::Gone, O::Nothing),
            (
                S::Gone,
                E::Ready
                | E::Assigned
                | E::Emptied
                | E::Drain
                | E::GraceOver
                | E::Terminate
                | E::Kill,
            ) => (S::Gone, O::Nothing),
        }
    }
}

impl WorkerEvent {
    /// All events.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Assigned,
        Self::Emptied,
        Self::Drain,
        Self::GraceOver,
        Self::Terminate,
        Self::Kill,
        Self::Exited,
    ];
}
