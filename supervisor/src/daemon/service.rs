//! What the service manager is told: ready, busy with what, reloading, stopping, alive.
//!
//! The sign of life is sent by the main loop itself, so a loop that hangs is noticed.

use super::{Daemon, Leaving};
use crate::os::notify::{self, Notifier};
use std::time::{Duration, Instant};

/// The status line changes at most so often.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The service manager, if one listens.
#[derive(Debug)]
pub(super) struct Manager {
    notifier: Option<Notifier>,
    watchdog: Option<Duration>,
    next_sign: Option<Instant>,
    /// When the status may be looked at again.
    next_status: Instant,
    /// Turns have passed since the last look at the status.
    behind: bool,
    status: String,
    /// READY has not reached the manager yet.
    owes_ready: bool,
    stopping: bool,
}

impl Manager {
    pub(super) fn from_environment() -> Self {
        let notifier = Notifier::from_environment().unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager cannot be told anything: NOTIFY_SOCKET");
            None
        });
        if notify::lacks_subgroup() {
            tracing::warn!(
                "SYSTEMD IS OLDER THAN 254, or the unit lacks DelegateSubgroup=supervisor: work \
                 does not survive a crash or restart of the supervisor as a service. With \
                 KillMode=mixed and RestartKillSignal=SIGTERM in a drop-in, systemd ends the \
                 workers and their jobs go back to the table; without, a new start may fail \
                 while they live"
            );
        }
        let watchdog = notifier.as_ref().and_then(|_| notify::watchdog_interval());
        let now = Instant::now();
        let next_sign = watchdog.map(|_| now);
        Self {
            notifier,
            watchdog,
            next_sign,
            next_status: now,
            behind: false,
            status: String::new(),
            owes_ready: false,
            stopping: false,
        }
    }

    /// True unless a manager listens and did not take it.
    fn tell(&self, text: &str) -> bool {
        if let Some(notifier) = &self.notifier
            && let Err(error) = notifier.send(text)
        {
            tracing::debug!(%error, "the service manager was not told {text:?}");
            return false;
        }
        true
    }

    /// When something is to be said, if nothing happens before.
    pub(super) fn next(&self) -> Option<Instant> {
        let status = (self.behind || self.owes_ready).then_some(self.next_status);
        [self.next_sign, status].into_iter().flatten().min()
    }

    /// It reads its configuration, or becomes another program; ends with [`Self::ready`].
    pub(super) fn reloading(&self) {
        let _ = self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", notify::monotonic_usec()));
    }

    /// The pid is named for the program that took another one's place.
    pub(super) fn ready(&mut self) {
        self.owes_ready = !self.tell(&format!("READY=1\nMAINPID={}", std::process::id()));
    }
}

impl Daemon {
    /// Sends what is due; called once per turn of the loop.
    pub(super) fn tell_manager(&mut self) {
        if self.manager.notifier.is_none() {
            return;
        }
        let now = Instant::now();
        if let Some(every) = self.manager.watchdog
            && self.manager.next_sign.is_some_and(|at| at <= now)
        {
            let _ = self.manager.tell("WATCHDOG=1");
            self.manager.next_sign = Some(now + every);
        }
        if self.stops > 0 && !self.manager.stopping {
            self.manager.stopping = self.manager.tell("STOPPING=1");
        }
        self.manager.behind = self.manager.next_status > now;
        if self.manager.behind {
            return;
        }
        if self.manager.owes_ready {
            self.manager.ready();
        }
        self.manager.next_status = now + STATUS_EVERY;
        let view = self.crew.status_view();
        let status = match &self.trouble {
            Some(trouble) => format!("trouble: {}", trouble.text.replace('\n', " ")),
            None => format!("{}: {} jobs run, {} workers", view.state, view.running, view.workers),
        };
        if status != self.manager.status && self.manager.tell(&format!("STATUS={status}")) {
            self.manager.status = status;
        }
    }

    /// The last words.
    pub(super) fn tell_manager_the_end(&self) {
        match self.leaving {
            Leaving::Upgrade => self.manager.reloading(),
            Leaving::Stop | Leaving::HandOver if self.manager.stopping => {}
            Leaving::Stop | Leaving::HandOver => {
                let _ = self.manager.tell("STOPPING=1");
            }
        }
    }
}
