//! A job table that cannot be written: said in the log and in `status`, and what a stop does
//! about outcomes that cannot be stored.

use crate::daemon::Daemon;
use std::time::{Duration, Instant};

/// How long a stop waits for a trouble that may end by itself, once nothing else is left to do.
const WAIT: Duration = Duration::from_secs(30);

/// What is wrong with the job table.
#[derive(Debug)]
pub(in crate::daemon) struct Trouble {
    pub(in crate::daemon) text: String,
    /// It does not end before a person does something.
    needs_a_hand: bool,
    /// Since when a stop waits for nothing else.
    stop_waits_since: Option<Instant>,
}

impl Daemon {
    pub(in crate::daemon) fn on_trouble(&mut self, text: String, needs_a_hand: bool) {
        if needs_a_hand {
            tracing::error!("{text}");
        } else {
            tracing::warn!("{text}");
        }
        let stop_waits_since = self.trouble.take().and_then(|trouble| trouble.stop_waits_since);
        self.trouble = Some(Trouble { text, needs_a_hand, stop_waits_since });
    }

    /// When a stop gives up what it cannot store: at once where a person is needed, or says so
    /// with a second signal.
    pub(in crate::daemon) fn give_up_at(&self) -> Option<Instant> {
        let trouble = self.trouble.as_ref()?;
        let since = trouble.stop_waits_since?;
        let is_hopeless = trouble.needs_a_hand || self.stops > 1;
        Some(if is_hopeless { since } else { since + WAIT })
    }

    pub(in crate::daemon) fn give_up_when_due(&mut self) {
        if self.trouble.is_some() {
            let status = self.crew.status_view();
            let waits = status.state == "draining" && status.workers == 0;
            let now = Instant::now();
            if let Some(trouble) = &mut self.trouble {
                trouble.stop_waits_since = waits.then(|| trouble.stop_waits_since.unwrap_or(now));
            }
            self.exiting |= self.give_up_at().is_some_and(|at| at <= now);
        }
    }

    /// An end in trouble is no success, also where only the next job would have met it.
    pub(in crate::daemon) fn note_unstored(&mut self) {
        let tells = |trouble: &Trouble| trouble.needs_a_hand || trouble.stop_waits_since.is_some();
        self.unstored = self.trouble.take().filter(tells).map(|trouble| trouble.text);
    }
}
