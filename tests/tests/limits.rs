//! No program takes more files, or makes larger ones, than its type was given.

use shiftboss_tests::Stage;

const CONFIG: &str = "[types.command]\nmax_attempts = 1\n\
                      limits = { files = 64, file_size = \"64KiB\" }";

#[test]
fn a_file_above_the_limit_ends_the_program_and_says_so() {
    let stage = Stage::new(CONFIG);
    let large = stage.file("large");
    // From a process that has left the program's session: limits are inherited by all of them.
    let script =
        format!("setsid -w head -c 1000000 /dev/zero > {}; kill -XFSZ $$", large.display());
    let direct = format!("exec head -c 1000000 /dev/zero > {}2", large.display());
    for (script, file) in [(script, large.clone()), (direct, stage.file("large2"))] {
        let job = stage.shell(&script);
        let row = stage.wait_for_state(job, "failed");
        let attempt = &stage.attempts(job)[0];
        assert_eq!(attempt.cause.as_deref(), Some("limit"), "{script}: {}", row.last_error);
        assert!(row.last_error.contains("file size limit"), "{}", row.last_error);
        let length = std::fs::metadata(&file).expect("it was begun").len();
        assert_eq!(length, 64 << 10, "{script}");
    }
}

#[test]
fn a_program_that_ignores_the_signal_still_writes_no_more() {
    let stage = Stage::new(CONFIG);
    let large = stage.file("large");
    let script = format!("trap '' XFSZ; head -c 1000000 /dev/zero > {}; exit 7", large.display());
    let job = stage.shell(&script);
    let row = stage.wait_for_state(job, "failed");
    assert!(row.last_error.contains("exit code 7"), "{}", row.last_error);
    assert_eq!(std::fs::metadata(&large).expect("it was begun").len(), 64 << 10);
}

#[test]
fn what_a_program_prints_is_no_file_of_its_own() {
    let stage = Stage::new(CONFIG);
    // Its log files are the worker's, which has a bound of its own for them.
    let job = stage.shell("head -c 1000000 /dev/zero | tr '\\0' x; head -c 65536 /dev/zero > fits");
    stage.wait_for_state(job, "succeeded");
}

#[test]
fn a_program_opens_no_more_files_than_its_type_allows() {
    let stage = Stage::new(CONFIG);
    let job = stage.shell("[ $(ulimit -Sn) = 64 ] && [ $(ulimit -Hn) = 64 ] || exit 9");
    stage.wait_for_state(job, "succeeded");
    // The last of these descriptors has number 64, the first that is one too many.
    let script = "command -v bash > /dev/null || exit 5; \
                  exec bash -c 'for n in {10..63}; do eval \"exec $n</dev/null\" || exit 8; done; \
                  exec 64</dev/null || exit 7'";
    let job = stage.shell(script);
    let row = stage.wait_for_state(job, "failed");
    assert!(row.last_error.contains("exit code 7"), "{}", row.last_error);
    assert!(row.last_error.contains("64"), "{}", row.last_error);
}

#[test]
fn without_limits_programs_get_the_documented_default() {
    let stage = Stage::new("[types.command]\nmax_attempts = 1");
    let job = stage.shell("[ $(ulimit -Sn) -le 1024 ] && [ $(ulimit -f) = unlimited ] || exit 9");
    stage.wait_for_state(job, "succeeded");
}
