//! A damaged database is refused with the remedy, the remedy works, and damage that shows while
//! a supervisor runs ends all writing without ending what runs.

use nix::sys::signal::Signal;
use shiftboss_tests::{Stage, wait_for, wait_until};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const REMEDY: &str = "shiftboss db restore";

/// Overwrites the first page of a table, or the header of the database.
fn damage(stage: &Stage, table: Option<&str>) {
    let page = table.map_or(1, |table| {
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        stage.database().query_row(sql, [table], |row| row.get(0)).expect("there is one")
    });
    let page: u64 = u64::from(u32::try_from(page).expect("pages are few"));
    let file = File::options().write(true).open(stage.path("jobs.db")).expect("it is ours");
    file.write_all_at(&[0x5A; 4096], (page - 1) * 4096).expect("written");
    file.sync_all().expect("synced");
}

#[test]
fn a_damaged_database_is_refused_with_the_remedy_and_the_remedy_works() {
    let mut stage = Stage::new("");
    let job = stage.insert("noop", "{}");
    stage.wait_for_state(job, "succeeded");
    let copy = stage.path("copy.db").display().to_string();
    assert!(stage.run(&["db", "backup", &copy]).status.success());
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.wait_for_end(), Some(0));
    for table in [None, Some("jobs"), Some("attempts")] {
        damage(&stage, table);
        let refused = stage.run(&["run"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(100), "{table:?}: {said}");
        assert!(said.contains(REMEDY) && said.contains("jobs.db"), "{table:?}: {said}");
        let checked = stage.run(&["db", "check"]);
        assert_eq!(checked.status.code(), Some(1), "{table:?}: {checked:?}");
        let restored = stage.run(&["db", "restore", &copy]);
        assert!(restored.status.success(), "{table:?}: {restored:?}");
        assert!(stage.run(&["db", "check"]).status.success(), "{table:?}");
    }
    stage.start();
    assert_eq!(stage.job(job).expect("it was in the backup").state, "succeeded");
    let next = stage.insert("noop", "{}");
    stage.wait_for_state(next, "succeeded");
}

/// Processor time that the supervisor has used.
fn cpu_ticks(stage: &Stage) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", stage.pid())).expect("it lives");
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum()
}

#[test]
fn damage_that_shows_later_ends_all_writing_and_leaves_what_runs() {
    let mut stage = Stage::new("[types.command]\ngrace = { drain = \"100ms\", term = \"1s\" }");
    let job = stage.shell("sleep 300");
    wait_until("the program runs", || !stage.programs_of(job).is_empty());
    let database = stage.database();
    wait_for("the log is in the database", || {
        let empty = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let busy = database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], empty);
        (busy.expect("it can be tried") == 0).then_some(())
    });
    damage(&stage, Some("jobs"));
    // Another program's commit in another table: from now on nothing is read from memory.
    let sql = "INSERT INTO meta(key, value) VALUES ('touched', 'by a test')";
    database.execute(sql, []).expect("that table is whole");
    for when in ["at the first touch", "ever after"] {
        let refused = stage.run(&["submit", "noop"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{when}: {said}");
        assert!(said.contains("nothing was stored") && said.contains(REMEDY), "{when}: {said}");
        wait_until("the damage is told", || stage.trouble().contains(REMEDY));
    }
    let (ticks, since) = (cpu_ticks(&stage), Instant::now());
    wait_until("a while is over", || since.elapsed() > Duration::from_secs(2));
    let used = cpu_ticks(&stage) - ticks;
    assert!(used < 50, "{used} ticks in 2 s: it loops");
    assert_eq!(stage.log().matches(REMEDY).count(), 1, "{}", stage.log());
    assert!(!stage.programs_of(job).is_empty(), "it runs on");
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.wait_for_end(), Some(1), "{}", stage.log());
    assert!(stage.programs_of(job).is_empty());
}
