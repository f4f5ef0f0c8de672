//! A minute in which everything dies at random, with a fixed seed. `cargo xtask chaos` plays
//! longer runs.

use shiftboss_tests::chaos::{Plan, run};
use std::time::Duration;

#[test]
fn a_minute_of_chaos_loses_nothing_and_runs_nothing_twice() {
    let report = run(&Plan { seed: 4, length: Duration::from_secs(60) });
    assert!(report.violations.is_empty(), "{:#?}\n{:#?}", report.violations, report.counts);
    let count = |what: &str| report.counts.get(what).copied().unwrap_or(0);
    assert!(count("jobs succeeded") > 20, "too little happened: {:#?}", report.counts);
    assert!(count("supervisor got SIGKILL") > 0 && count("Worker killed") > 0);
}
