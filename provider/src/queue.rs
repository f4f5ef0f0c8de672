//! Who sends next: operations that wait, by class and by when they are due, under the limits of
//! each provider. One heap per provider and class, never a task or a timer per operation.
//!
//! Downloads go before cancels, cancels before submissions, submissions before polls, because a
//! link expires, a cancel saves money, and polls can wait; within a class the oldest due is first.

use crate::Moment;
use crate::breaker::Breaker;
use crate::description::Limits;
use crate::window::{Permit, Place, Window};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// A kind of request, in the order in which they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Of a file.
    Download,
    /// Of an operation.
    Cancel,
    /// Of an operation.
    Submit,
    /// Of its state or result.
    Poll,
}

impl Class {
    /// All, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Download, Self::Cancel, Self::Submit, Self::Poll];
}

/// A provider's place in a [`Queue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line(usize);

/// An operation that may send now. Give it back with [`Queue::ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The number that it was queued under.
    pub operation: u64,
    /// The class.
    pub class: Class,
    /// How long it has been due.
    pub lag: Duration,
    /// The provider's.
    pub line: Line,
    permit: Option<Permit>,
}

/// How a turn ended, for the breaker of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Something that works has answered.
    Worked,
    /// Nothing has, or it was an error of the server.
    Failed,
    /// Neither is known.
    Unknown,
}

/// What waits, and what is under way.
#[derive(Debug)]
pub struct Queue {
    buckets: Vec<Bucket>,
    breakers: Vec<Breaker>,
    /// Of each operation that waits: the number of its newest entry. Older ones are passed over.
    newest: HashMap<u64, u64>,
    next: u64,
    in_flight: usize,
    in_flight_max: usize,
}

#[derive(Debug)]
struct Bucket {
    class: Class,
    line: Line,
    window: Option<Window>,
    paused_until: Moment,
    /// Oldest due first, then first come.
    heap: BinaryHeap<Reverse<(Moment, u64, u64)>>,
    in_flight: u32,
    in_flight_max: u32,
}

impl Queue {
    /// An empty one that has at most `in_flight_max` requests under way.
    #[must_use]
    pub fn new(in_flight_max: usize) -> Self {
        Self {
            buckets: Vec::new(),
            breakers: Vec::new(),
            newest: HashMap::new(),
            next: 0,
            in_flight: 0,
            in_flight_max,
        }
    }

    /// Adds a provider.
    pub fn add(&mut self, limits: &Limits) -> Line {
        let line = Line(self.breakers.len());
        self.breakers.push(Breaker::default());
        for class in Class::ALL {
            let rate = match class {
                Class::Download => limits.download,
                Class::Cancel => limits.cancel,
                Class::Submit => limits.submit,
                Class::Poll => limits.poll,
            };
            self.buckets.push(Bucket {
                class,
                line,
                window: rate.map(Window::new).map(|window| match class {
                    Class::Poll => window.spread(),
                    // Whoever submits a few wants them at once.
                    Class::Download | Class::Cancel | Class::Submit => window,
                }),
                paused_until: Moment::ZERO,
                heap: BinaryHeap::new(),
                in_flight: 0,
                in_flight_max: limits.in_flight,
            });
        }
        line
    }

    fn bucket(&mut self, line: Line, class: Class) -> &mut Bucket {
        let at = line.0 * Class::ALL.len() + class as usize;
        &mut self.buckets[at]
    }

    /// Lets an operation wait, in the place of where it waited before.
    pub fn push(&mut self, line: Line, class: Class, operation: u64, due: Moment) {
        let entry = self.next;
        self.next += 1;
        self.newest.insert(operation, entry);
        self.bucket(line, class).heap.push(Reverse((due, entry, operation)));
    }

    /// Lets it wait no more.
    pub fn remove(&mut self, operation: u64) {
        self.newest.remove(&operation);
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.newest.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Nothing of this class is sent to this provider before `until`.
    pub fn pause(&mut self, line: Line, class: Class, until: Moment) {
        let bucket = self.bucket(line, class);
        bucket.paused_until = bucket.paused_until.max(until);
    }

    /// Who sends now: of the most urgent class the one that is due longest.
    pub fn pop(&mut self, now: Moment) -> Option<Turn> {
        if self.in_flight >= self.in_flight_max {
            return None;
        }
        let mut best: Option<(Class, Moment, usize)> = None;
        for at in 0..self.buckets.len() {
            let Some((due, ready)) = self.head(at, now) else { continue };
            let class = self.buckets[at].class;
            let is_better = best.is_none_or(|(other, since, _)| (class, due) < (other, since));
            if ready <= now && is_better {
                best = Some((class, due, at));
            }
        }
        let (class, due, at) = best?;
        let bucket = &mut self.buckets[at];
        let Reverse((_, _, operation)) = bucket.heap.pop()?;
        bucket.in_flight += 1;
        let permit = bucket.window.as_mut().map(|window| window.take(now));
        let line = bucket.line;
        self.newest.remove(&operation);
        self.in_flight += 1;
        if class != Class::Download {
            self.breakers[line.0].sent();
        }
        Some(Turn { operation, class, lag: now.saturating_sub(due), line, permit })
    }

    /// How long the oldest due of this class has waited, over all providers.
    pub fn lag(&mut self, class: Class, now: Moment) -> Duration {
        let dues = (0..self.buckets.len()).filter_map(|at| {
            let is_asked = self.buckets[at].class == class;
            is_asked.then(|| self.due(at)).flatten()
        });
        dues.map(|due| now.saturating_sub(due)).max().unwrap_or_default()
    }

    /// When the head of this bucket is due; `None`: nobody waits.
    fn due(&mut self, at: usize) -> Option<Moment> {
        let (buckets, newest) = (&mut self.buckets, &self.newest);
        let heap = &mut buckets[at].heap;
        // Superseded and removed entries are dropped when they come up, never searched for.
        loop {
            let Reverse((due, entry, operation)) = heap.peek().copied()?;
            if newest.get(&operation) == Some(&entry) {
                return Some(due);
            }
            heap.pop();
        }
    }

    /// When the head of this bucket was due and may be sent; `None`: nobody waits, or it takes
    /// the end of a request.
    fn head(&mut self, at: usize, now: Moment) -> Option<(Moment, Moment)> {
        let due = self.due(at)?;
        let bucket = &mut self.buckets[at];
        // Half of what may be under way is kept for others: downloads are long.
        let downloads_max = u32::try_from(self.in_flight_max / 2).unwrap_or(u32::MAX).max(1);
        let most = match bucket.class {
            Class::Download => bucket.in_flight_max.min(downloads_max),
            Class::Cancel | Class::Submit | Class::Poll => bucket.in_flight_max,
        };
        if bucket.in_flight >= most {
            return None;
        }
        let mut ready = due.max(bucket.paused_until);
        if let Some(at) = bucket.window.as_mut().and_then(|window| window.wait_until(now)) {
            ready = ready.max(at);
        }
        // Files lie on other hosts.
        if bucket.class != Class::Download {
            match self.breakers[bucket.line.0].wait_until(now) {
                Some(Moment::MAX) => return None,
                Some(at) => ready = ready.max(at),
                None => {}
            }
        }
        Some((due, ready))
    }

    /// When [`Self::pop`] may find somebody, if nothing ends before.
    pub fn next(&mut self, now: Moment) -> Option<Moment> {
        if self.in_flight >= self.in_flight_max {
            return None;
        }
        let heads = (0..self.buckets.len()).filter_map(|at| self.head(at, now));
        heads.map(|(_, ready)| ready).min()
    }

    /// Counts requests of this class that an earlier process has sent, each until its moment;
    /// returns those that still count. Call it before the first turn of `line`.
    pub fn resume(
        &mut self,
        (line, class): (Line, Class),
        untils: &[Moment],
        now: Moment,
    ) -> Vec<Place> {
        let Some(window) = &mut self.bucket(line, class).window else { return Vec::new() };
        window.resume(untils, now);
        window.places().collect()
    }

    /// What a file must remember of a turn's request, so that the limits outlive this process;
    /// `None` where there is no limit, or it counts no more.
    pub fn place(&mut self, turn: &Turn) -> Option<Place> {
        let permit = turn.permit?;
        self.bucket(turn.line, turn.class).window.as_ref()?.place(permit)
    }

    /// The request of a turn is sent only now.
    pub fn sent(&mut self, turn: &Turn, now: Moment) {
        let Some(permit) = turn.permit else { return };
        if let Some(window) = &mut self.bucket(turn.line, turn.class).window {
            window.sent(permit, now);
        }
    }

    /// A turn is over; `arrived` says that the provider has had its request by now.
    pub fn ended(&mut self, turn: &Turn, now: Moment, arrived: bool, verdict: Verdict) {
        self.in_flight -= 1;
        let bucket = self.bucket(turn.line, turn.class);
        bucket.in_flight -= 1;
        if let (Some(permit), Some(window), true) = (turn.permit, &mut bucket.window, arrived) {
            window.answered(permit, now);
        }
        if turn.class == Class::Download {
            return;
        }
        let breaker = &mut self.breakers[turn.line.0];
        match verdict {
            Verdict::Worked => breaker.worked(),
            Verdict::Failed => breaker.failed(now),
            Verdict::Unknown => breaker.gave_up(),
        }
    }
}

#[cfg(test)]
mod tests;
