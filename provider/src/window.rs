//! A limit that holds in every window: at most `count` requests arrive within `window` of each
//! other, wherever the window is laid.
//!
//! Counted is not when a request was sent but when it must have arrived, because a slow request
//! followed by quick ones would break the limit where it is kept: at the provider. It has arrived
//! when it is answered; one that is not is taken to have arrived after [`TRAVEL_MAX`].

use crate::Moment;
use crate::measure::Rate;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How long a request may be under way without being answered before it is taken to have arrived.
pub const TRAVEL_MAX: Duration = Duration::from_millis(250);

/// Spread of the clocks of two machines over one window, and of wake-ups: added to the window.
const MARGIN: Duration = Duration::from_millis(2);

/// The right to send one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Permit(u64);

/// The requests of one window, one entry each; at most [`Rate::count`] of them.
#[derive(Clone, Debug)]
pub struct Window {
    rate: Rate,
    /// When each permit is free again, earliest first.
    ends: BTreeSet<(Moment, Permit)>,
    end_of: HashMap<Permit, Moment>,
    next: u64,
}

impl Window {
    /// A window in which nothing has been sent.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, ends: BTreeSet::new(), end_of: HashMap::new(), next: 0 }
    }

    /// When the next request may be sent, if it is later than `now`.
    #[must_use]
    pub fn wait_until(&mut self, now: Moment) -> Option<Moment> {
        while let Some((end, permit)) = self.ends.first().copied()
            && end <= now
        {
            self.ends.pop_first();
            self.end_of.remove(&permit);
        }
        let is_full = self.ends.len() >= self.rate.count as usize;
        is_full.then(|| self.ends.first().map_or(now, |(end, _)| *end))
    }

    /// Takes a permit; call it only when [`Self::wait_until`] says `None`.
    pub fn take(&mut self, now: Moment) -> Permit {
        let permit = Permit(self.next);
        self.next += 1;
        self.put(permit, now + TRAVEL_MAX);
        permit
    }

    /// The request of this permit is sent only now.
    pub fn sent(&mut self, permit: Permit, now: Moment) {
        self.put(permit, now + TRAVEL_MAX);
    }

    /// The request of this permit was answered, so that it has arrived by now.
    pub fn answered(&mut self, permit: Permit, now: Moment) {
        let end = now + self.rate.window + MARGIN;
        if self.end_of.get(&permit).is_some_and(|known| end < *known) {
            self.put(permit, now);
        }
    }

    fn put(&mut self, permit: Permit, arrived: Moment) {
        let end = arrived + self.rate.window + MARGIN;
        if let Some(known) = self.end_of.insert(permit, end) {
            self.ends.remove(&(known, permit));
        }
        self.ends.insert((end, permit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn ten_a_second_are_ten_in_every_second_and_almost_ten_on_average() {
        let mut window = Window::new(Rate { count: 10, window: ms(1_000) });
        let (mut now, mut sent) = (Duration::ZERO, 0_u32);
        while now < Duration::from_secs(100) {
            match window.wait_until(now) {
                Some(at) => now = at,
                None => {
                    let permit = window.take(now);
                    window.answered(permit, now + ms(2));
                    sent += 1;
                }
            }
        }
        assert!((990..=1_000).contains(&sent), "{sent} in 100 s");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_window_holds_more_than_it_may_wherever_the_requests_were_held_up(
            count in 1_u32..12,
            window_ms in 1_u64..2_000,
            steps in proptest::collection::vec((0_u64..300, 0_u64..250, 0_u64..400), 1..300),
        ) {
            let rate = Rate { count, window: ms(window_ms) };
            let mut window = Window::new(rate);
            let mut now = Duration::ZERO;
            let mut arrived = Vec::new();
            let mut answers: Vec<(Moment, Permit)> = Vec::new();
            for (idle, travel, answer) in steps {
                now += ms(idle);
                if let Some(at) = window.wait_until(now) {
                    now = at;
                }
                answers.retain(|(at, permit)| {
                    if *at <= now { window.answered(*permit, *at); }
                    *at > now
                });
                if window.wait_until(now).is_some() {
                    continue;
                }
                let permit = window.take(now);
                arrived.push(now + ms(travel));
                answers.push((now + ms(travel + answer), permit));
            }
            arrived.sort_unstable();
            for group in arrived.windows(count as usize + 1) {
                let spread = group[count as usize] - group[0];
                prop_assert!(spread >= rate.window, "{} in {spread:?}", group.len());
            }
        }
    }
}
