//! The operations that the simulator has accepted.

use super::Behaviour;
use super::shape::State;
use std::collections::HashMap;

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) tag: String,
    pub(super) mode: String,
    pub(super) polls: u64,
    pub(super) downloads: u64,
    cancelled: bool,
}

#[derive(Debug, Default)]
pub(super) struct Operations {
    by_id: HashMap<String, Operation>,
    by_key: HashMap<String, String>,
}

impl Operations {
    /// Accepts one, or finds the one that has this key; true when it is new.
    pub(super) fn accept(&mut self, key: &str, tag: &str, mode: &str) -> (String, bool) {
        if let Some(id) = self.by_key.get(key).filter(|_| !key.is_empty()) {
            return (id.clone(), false);
        }
        let id = format!("op-{}", self.by_id.len() + 1);
        let operation = Operation {
            tag: tag.to_owned(),
            mode: mode.to_owned(),
            polls: 0,
            downloads: 0,
            cancelled: false,
        };
        self.by_id.insert(id.clone(), operation);
        self.by_key.insert(key.to_owned(), id.clone());
        (id, true)
    }

    pub(super) fn get(&mut self, id: &str) -> Option<&mut Operation> {
        self.by_id.get_mut(id)
    }

    pub(super) fn cancel(&mut self, id: &str) {
        if let Some(operation) = self.by_id.get_mut(id) {
            operation.cancelled = true;
        }
    }

    /// Its state at the next poll.
    pub(super) fn poll(&mut self, id: &str, behaviour: &Behaviour) -> Option<State> {
        let operation = self.by_id.get_mut(id)?;
        operation.polls += 1;
        Some(if operation.cancelled {
            State::Cancelled
        } else if operation.mode == "for-ever" || operation.polls < behaviour.polls {
            if operation.polls == 1 { State::Queued } else { State::Running }
        } else if operation.mode == "fail" {
            State::Failed
        } else {
            State::Done
        })
    }
}
