//! The state machines as Markdown tables, for ARCHITECTURE.md: generated, so they stay true.

use super::run::{RunEvent, RunOrder, RunState};
use super::worker::{WorkerEvent, WorkerOrder, WorkerState};
use std::fmt::{Debug, Write};

/// Life of a worker: states down, events across.
#[must_use]
pub fn worker_table() -> String {
    table(&WorkerState::ALL, &WorkerEvent::ALL, |state, event| {
        let (next, order) = state.on(event);
        (next, (order != WorkerOrder::Nothing).then_some(order))
    })
}

/// Life of an attempt: states down, events across.
#[must_use]
pub fn run_table() -> String {
    table(&RunState::ALL, &RunEvent::ALL, |state, event| {
        let (next, order) = state.on(event);
        (next, (order != RunOrder::Nothing).then_some(order))
    })
}

fn table<S, E, O>(states: &[S], events: &[E], on: impl Fn(S, E) -> (S, Option<O>)) -> String
where
    S: Copy + Debug + PartialEq,
    E: Copy + Debug,
    O: Debug,
{
    let mut text = String::from("| |");
    for event in events {
        let _ = write!(text, " {event:?} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(events.len()));
    text.push('\n');
    for state in states {
        let _ = write!(text, "| **{state:?}** |");
        for event in events {
            let cell = match on(*state, *event) {
                (next, None) if next == *state => "-".to_owned(),
                (next, None) => format!("{next:?}"),
                (next, Some(order)) => format!("{next:?}, *{order:?}*"),
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}
