//! A limit that holds in every window: at most `count` requests arrive within `window` of each
//! other, wherever the window is laid.
//!
//! Counted is when a request must have arrived: when it is answered, else [`TRAVEL_MAX`] after it
//! was sent. By when it was sent, a slow request and quick ones after it would break the limit at
//! the provider. What counts has a [`Place`], by which a file remembers it for the next process.

use crate::Moment;
use crate::measure::Rate;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How long a request may be under way without being answered before it is taken to have arrived.
pub const TRAVEL_MAX: Duration = Duration::from_millis(250);

/// Spread of the clocks of two machines over one window, and of wake-ups: added to the window.
const MARGIN: Duration = Duration::from_millis(2);

/// Shorter gaps between the requests of a spread window are not kept: timers are not finer.
const GAP_MIN: Duration = Duration::from_millis(5);

/// Longer windows are not spread: their gaps would be felt by whoever has few operations.
const SPREAD_MAX: Duration = Duration::from_secs(10);

/// The right to send one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Permit(u64);

/// The requests of one window, one entry each; at most [`Rate::count`] of them.
#[derive(Clone, Debug)]
pub struct Window {
    rate: Rate,
    /// When each permit is free again, earliest first.
    ends: BTreeSet<(Moment, Permit)>,
    known: HashMap<Permit, Place>,
    next: u64,
    /// Slots below `slots` that no permit is in.
    free: Vec<u32>,
    slots: u32,
    /// Until when the next request is held back so that the window is not used up at once.
    spread_until: Option<Moment>,
}

/// What must be remembered of a request for as long as it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Below [`Rate::count`], and of no other request that counts.
    pub slot: u32,
    /// When it counts no more.
    pub until: Moment,
}

impl Window {
    /// A window in which nothing has been sent.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            ends: BTreeSet::new(),
            known: HashMap::new(),
            next: 0,
            free: Vec::new(),
            slots: 0,
            spread_until: None,
        }
    }

    /// Spreads the second half of its requests over the time until the first one is free again.
    /// None is lost by that, and nobody waits for almost a whole window, as after a burst: neither
    /// the next operation that is due nor a new process after the death of one.
    #[must_use]
    pub fn spread(mut self) -> Self {
        self.spread_until = (self.rate.window <= SPREAD_MAX).then_some(Moment::ZERO);
        self
    }

    /// Counts requests of an earlier process, each until its moment; those that count no more are
    /// passed over. Call it before the first [`Self::take`].
    pub fn resume(&mut self, untils: &[Moment], now: Moment) {
        let mut untils: Vec<_> = untils.iter().copied().filter(|until| *until > now).collect();
        untils.sort_unstable_by(|one, other| other.cmp(one));
        // No request counts longer, whatever was remembered.
        let longest = now + TRAVEL_MAX + self.rate.window + MARGIN;
        for until in untils.into_iter().take(self.rate.count as usize) {
            let permit = self.new_permit();
            self.put(permit, until.min(longest));
        }
    }

    /// What must be remembered of a permit's request; `None` once it counts no more.
    #[must_use]
    pub fn place(&self, permit: Permit) -> Option<Place> {
        self.known.get(&permit).copied()
    }

    /// All requests that count.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.known.values().copied()
    }

    /// When the next request may be sent, if it is later than `now`.
    #[must_use]
    pub fn wait_until(&mut self, now: Moment) -> Option<Moment> {
        while let Some((end, permit)) = self.ends.first().copied()
            && end <= now
        {
            self.ends.pop_first();
            self.free.extend(self.known.remove(&permit).map(|place| place.slot));
        }
        let is_full = self.ends.len() >= self.rate.count as usize;
        if is_full {
            return Some(self.ends.first().map_or(now, |(end, _)| *end));
        }
        let is_half = self.ends.len() * 2 >= self.rate.count as usize;
        self.spread_until.filter(|until| is_half && *until > now)
    }

    /// Takes a permit; call it only when [`Self::wait_until`] says `None`.
    pub fn take(&mut self, now: Moment) -> Permit {
        let permit = self.new_permit();
        self.put(permit, self.end(now + TRAVEL_MAX));
        if self.spread_until.is_some() {
            self.spread_until = Some(now + self.gap(now));
        }
        permit
    }

    /// What keeps the requests that are left apart until one more is free.
    fn gap(&self, now: Moment) -> Duration {
        let left = (self.rate.count as usize).saturating_sub(self.ends.len());
        let next = self.ends.first().map_or(now, |(end, _)| *end);
        let parts = u32::try_from(left + 1).unwrap_or(u32::MAX);
        let gap = next.saturating_sub(now) / parts;
        if gap < GAP_MIN { Duration::ZERO } else { gap }
    }

    /// The request of this permit is sent only now.
    pub fn sent(&mut self, permit: Permit, now: Moment) {
        self.put(permit, self.end(now + TRAVEL_MAX));
    }

    /// The request of this permit was answered, so that it has arrived by now.
    pub fn answered(&mut self, permit: Permit, now: Moment) {
        let end = self.end(now);
        if self.known.get(&permit).is_some_and(|place| end < place.until) {
            self.put(permit, end);
        }
    }

    /// When a request that arrived then counts no more.
    fn end(&self, arrived: Moment) -> Moment {
        arrived + self.rate.window + MARGIN
    }

    fn new_permit(&mut self) -> Permit {
        let permit = Permit(self.next);
        self.next += 1;
        permit
    }

    fn put(&mut self, permit: Permit, until: Moment) {
        let slot = match self.known.get(&permit) {
            Some(place) => {
                self.ends.remove(&(place.until, permit));
                place.slot
            }
            None => self.free.pop().unwrap_or_else(|| {
                self.slots += 1;
                self.slots - 1
            }),
        };
        self.known.insert(permit, Place { slot, until });
        self.ends.insert((until, permit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn note(file: &mut [Moment], window: &Window, permit: Permit) {
        if let Some(place) = window.place(permit) {
            file[place.slot as usize] = place.until;
        }
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

    #[test]
    fn what_an_earlier_process_sent_counts_for_as_long_as_it_would_have() {
        let rate = Rate { count: 3, window: ms(1_000) };
        let mut window = Window::new(rate);
        for at in [0, 100, 900] {
            assert_eq!(window.wait_until(ms(at)), None);
            let permit = window.take(ms(at));
            window.answered(permit, ms(at));
        }
        let untils: Vec<_> = window.places().map(|place| place.until).collect();
        let mut next = Window::new(rate);
        next.resume(&untils, ms(1_050));
        assert_eq!(next.wait_until(ms(1_050)), None, "the first counts no more");
        let _ = next.take(ms(1_050));
        assert_eq!(next.wait_until(ms(1_050)), Some(ms(1_102)));
        assert!(next.places().all(|place| place.slot < 3));
        // More than the limit holds, and from a clock that was wrong: it waits, but not for ever.
        let mut spoiled = Window::new(rate);
        spoiled.resume(&[Duration::MAX; 9], ms(50));
        assert_eq!(spoiled.places().count(), 3);
        assert_eq!(spoiled.wait_until(ms(50)), Some(ms(50 + 250 + 1_000 + 2)));
    }

    #[test]
    fn a_spread_window_loses_nothing_and_leaves_no_long_silence() {
        let mut window = Window::new(Rate { count: 10, window: ms(1_000) }).spread();
        let (mut now, mut sent) = (Duration::ZERO, Vec::new());
        while now < Duration::from_secs(100) {
            match window.wait_until(now) {
                Some(at) => now = at,
                None => {
                    let permit = window.take(now);
                    sent.push(now);
                    window.answered(permit, now + ms(2));
                }
            }
        }
        assert!((990..=1_000).contains(&sent.len()), "{} in 100 s", sent.len());
        assert_eq!(sent[4], Duration::ZERO, "few are not held back");
        let mut slow = Window::new(Rate { count: 10, window: Duration::from_secs(3_600) }).spread();
        let _ = [0; 10].map(|_| slow.take(Duration::ZERO));
        assert_eq!(slow.spread_until, None, "nobody waits for parts of an hour");
        let settled = sent[50..].windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(settled < Some(ms(300)), "silent for {settled:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_window_holds_more_than_it_may_wherever_the_requests_were_held_up(
            count in 1_u32..12,
            window_ms in 1_u64..2_000,
            is_spread in any::<bool>(),
            steps in proptest::collection::vec((0_u64..300, 0_u64..250, 0_u64..400), 1..300),
        ) {
            let rate = Rate { count, window: ms(window_ms) };
            let new = || if is_spread { Window::new(rate).spread() } else { Window::new(rate) };
            let mut window = new();
            let mut now = Duration::ZERO;
            let mut arrived = Vec::new();
            // As a file remembers it: by slot, for a process that dies after every seventh.
            let mut file = vec![Duration::ZERO; count as usize];
            let mut answers: Vec<(Moment, Permit)> = Vec::new();
            for (idle, travel, answer) in steps {
                now += ms(idle);
                if let Some(at) = window.wait_until(now) {
                    now = at;
                }
                answers.retain(|(at, permit)| {
                    if *at <= now {
                        window.answered(*permit, *at);
                        note(&mut file, &window, *permit);
                    }
                    *at > now
                });
                if window.wait_until(now).is_some() {
                    continue;
                }
                let permit = window.take(now);
                note(&mut file, &window, permit);
                arrived.push(now + ms(travel));
                answers.push((now + ms(travel + answer), permit));
                if arrived.len() % 7 == 0 {
                    window = new();
                    window.resume(&file, now);
                    answers.clear();
                    file = vec![Duration::ZERO; count as usize];
                    for place in window.places() {
                        file[place.slot as usize] = place.until;
                    }
                }
            }
            arrived.sort_unstable();
            for group in arrived.windows(count as usize + 1) {
                let spread = group[count as usize] - group[0];
                prop_assert!(spread >= rate.window, "{} in {spread:?}", group.len());
            }
        }
    }
}
