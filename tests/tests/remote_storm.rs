//! Operations at providers that err, under kills of worker and supervisor, with a fixed seed.
//! `cargo xtask chaos --operations 1000` plays larger ones.

use shiftboss_tests::provider::storm::{Storm, rage};

#[test]
fn a_storm_pays_nothing_twice_forgets_nothing_and_keeps_every_rate() {
    let report = rage(&Storm { seed: 11, operations: 180, calm_ms: 1_200 });
    assert!(report.violations.is_empty(), "{:#?}\n{:#?}", report.violations, report.counts);
    let count = |what: &str| report.counts.get(what).copied().unwrap_or(0);
    assert!(count("worker killed") > 1 && count("supervisor killed") > 0, "{:#?}", report.counts);
    for what in
        ["requests: refused", "of these expired", "of these lost", "of these twice", "jobs held"]
    {
        assert!(count(what) > 0, "too little happened, no {what}: {:#?}", report.counts);
    }
}
