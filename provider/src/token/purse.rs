//! One provider's token: who may use it, when the next one is made, and how long nobody asks for
//! one after a failure. All who wait for a token wait for the same one.

use super::Token;
use crate::Moment;
use std::fmt;
use std::time::Duration;

/// How long before its end a token is renewed; one of less than twice this, after half its time.
const RENEWED_BEFORE: Duration = Duration::from_secs(60);

/// The first pause after a failure; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The token of one provider, if there is one.
#[derive(Default)]
pub struct Purse {
    held: Option<Held>,
    /// Somebody makes the next one.
    is_minting: bool,
    /// Nobody makes one before this.
    not_before: Moment,
    /// Failures in a row.
    failures: u32,
    /// Tokens in a row that the provider refused.
    refusals: u32,
    why: String,
}

struct Held {
    value: String,
    renewed_at: Moment,
    until: Moment,
}

/// What somebody who needs a token does.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// Uses this one; and makes the next one if `mints`.
    Use {
        /// The token.
        value: String,
        /// It is time for the next one: whoever is told so says [`Purse::minted`] or
        /// [`Purse::failed`].
        mints: bool,
    },
    /// Makes one, and says [`Purse::minted`] or [`Purse::failed`].
    Mint,
    /// Waits: somebody else makes one.
    Wait,
    /// Does without: there is none, and none is made yet.
    None(String),
}

impl fmt::Debug for Purse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purse").field("holds", &self.held.is_some()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Use { mints, .. } => write!(f, "Use (mints: {mints})"),
            Self::Mint => f.write_str("Mint"),
            Self::Wait => f.write_str("Wait"),
            Self::None(why) => write!(f, "None({why:?})"),
        }
    }
}

impl Purse {
    /// Somebody needs a token.
    pub fn ask(&mut self, now: Moment) -> Answer {
        let may_mint = !self.is_minting && now >= self.not_before;
        match &self.held {
            Some(held) if now < held.until => {
                let mints = may_mint && now >= held.renewed_at;
                self.is_minting |= mints;
                Answer::Use { value: held.value.clone(), mints }
            }
            Some(_) | None if self.is_minting => Answer::Wait,
            Some(_) | None if may_mint => {
                self.is_minting = true;
                Answer::Mint
            }
            Some(_) | None => {
                let seconds = (self.not_before - now).as_secs() + 1;
                Answer::None(format!("{}; the next one is made in {seconds} s", self.why))
            }
        }
    }

    /// The next one is here. It holds for `or` where it does not say how long.
    pub fn minted(&mut self, now: Moment, token: Token, or: Duration) {
        let holds_for = token.holds_for.unwrap_or(or);
        let renewed_at = now + holds_for.saturating_sub(RENEWED_BEFORE).max(holds_for / 2);
        self.held = Some(Held { value: token.value, renewed_at, until: now + holds_for });
        self.is_minting = false;
        self.failures = 0;
    }

    /// None could be made.
    pub fn failed(&mut self, now: Moment, why: String) {
        self.is_minting = false;
        self.failures = self.failures.saturating_add(1);
        self.pause(now, self.failures, why);
    }

    /// The provider has refused this one: it is forgotten, and the next one is made at once. When
    /// that is refused too, making more of them is no way out.
    pub fn refused(&mut self, now: Moment, value: &str) {
        // Requests that were under way with an older one tell nothing of this one.
        if self.held.as_ref().is_none_or(|held| held.value != value) {
            return;
        }
        self.held = None;
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals > 1 {
            let why = "the provider refuses the tokens that are made".to_owned();
            self.pause(now, self.refusals - 1, why);
        }
    }

    /// The provider has taken this one.
    pub fn worked(&mut self, value: &str) {
        if self.held.as_ref().is_some_and(|held| held.value == value) {
            self.refusals = 0;
        }
    }

    fn pause(&mut self, now: Moment, times: u32, why: String) {
        let doublings = times.saturating_sub(1).min(6);
        let pause = (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX);
        self.not_before = self.not_before.max(now + pause);
        self.why = why;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Moment {
        Duration::from_secs_f64(seconds)
    }

    fn token(value: &str, seconds: Option<u64>) -> Token {
        Token { value: value.to_owned(), holds_for: seconds.map(Duration::from_secs) }
    }

    fn uses(value: &str, mints: bool) -> Answer {
        Answer::Use { value: value.to_owned(), mints }
    }

    #[test]
    fn one_makes_a_token_for_all_who_wait_and_the_next_one_before_it_ends() {
        let mut purse = Purse::default();
        assert_eq!(purse.ask(at(1.0)), Answer::Mint);
        assert_eq!(purse.ask(at(1.0)), Answer::Wait);
        purse.minted(at(2.0), token("a", Some(600)), at(1.0));
        assert_eq!(purse.ask(at(541.9)), uses("a", false));
        assert_eq!(purse.ask(at(542.0)), uses("a", true));
        assert_eq!(purse.ask(at(601.9)), uses("a", false), "meanwhile the old one is used");
        assert_eq!(purse.ask(at(602.0)), Answer::Wait);
        purse.minted(at(603.0), token("b", None), at(10.0));
        assert_eq!(purse.ask(at(607.9)), uses("b", false));
        assert_eq!(purse.ask(at(608.0)), uses("b", true), "of a short time half is used");
    }

    #[test]
    fn failures_are_told_to_all_and_make_no_storm() {
        let mut purse = Purse::default();
        let mut runs = Vec::new();
        let mut now = 0.0;
        while now < 300.0 {
            match purse.ask(at(now)) {
                Answer::Mint => {
                    runs.push(now);
                    purse.failed(at(now), "exit code 1".to_owned());
                }
                Answer::None(why) => assert!(why.starts_with("exit code 1; the next one"), "{why}"),
                other => panic!("{other:?}"),
            }
            now += 0.01;
        }
        let runs: Vec<_> = runs.into_iter().map(f64::round).collect();
        assert_eq!(runs, [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 123.0, 183.0, 243.0]);
        purse.minted(at(now), token("a", None), at(60.0));
        assert_eq!(purse.ask(at(now)), uses("a", false));
    }

    #[test]
    fn a_renewal_that_fails_costs_nothing_until_the_old_one_ends() {
        let mut purse = Purse::default();
        purse.minted(at(0.0), token("a", Some(120)), at(1.0));
        assert_eq!(purse.ask(at(60.0)), uses("a", true));
        purse.failed(at(61.0), "no network".to_owned());
        assert_eq!(purse.ask(at(61.5)), uses("a", false));
        assert_eq!(purse.ask(at(62.0)), uses("a", true));
        purse.failed(at(119.5), "no network".to_owned());
        assert!(matches!(purse.ask(at(120.0)), Answer::None(why) if why.contains("no network")));
    }

    #[test]
    fn a_token_that_is_refused_is_made_anew_at_once_and_no_storm_of_them() {
        let mut purse = Purse::default();
        let mut runs = Vec::new();
        for tick in 0..30_000 {
            let now = at(f64::from(tick) / 100.0);
            let answer = purse.ask(now);
            match answer {
                Answer::Mint => {
                    runs.push(now.as_secs());
                    purse.minted(now, token(&format!("t{tick}"), None), at(600.0));
                }
                Answer::Use { value, .. } => {
                    purse.refused(now, &value);
                    purse.refused(now, &value);
                }
                Answer::None(why) => assert!(why.starts_with("the provider refuses"), "{why}"),
                Answer::Wait => panic!("nobody makes one"),
            }
        }
        assert_eq!(runs, [0, 0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
    }

    #[test]
    fn the_refusal_of_an_older_token_and_a_success_are_no_reason() {
        let mut purse = Purse::default();
        for round in 0..10 {
            let (old, new) = (format!("old{round}"), format!("new{round}"));
            purse.minted(at(1.0), token(&old, None), at(600.0));
            purse.worked(&old);
            purse.refused(at(2.0), &old);
            assert_eq!(purse.ask(at(2.0)), Answer::Mint, "{round}");
            purse.minted(at(2.0), token(&new, None), at(600.0));
            purse.refused(at(3.0), &old);
            assert_eq!(purse.ask(at(3.0)), uses(&new, false));
            purse.worked(&new);
        }
        assert!(!format!("{purse:?} {:?}", purse.ask(at(3.0))).contains("new"));
    }
}
