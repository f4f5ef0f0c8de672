//! Operations while the wall clock jumps: a worker that sees it jump goes on asking at the pace of
//! its provider, because it waits by the clock that nobody sets.

use shiftboss_tests::provider::check::Line;
use shiftboss_tests::provider::scene::{dark, of_kind, payload, result};
use shiftboss_tests::provider::{Behaviour, Shape};
use shiftboss_tests::{Stage, has_program, output_of, skip, wait_until};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SHAPE: Shape = Shape::Generic;
const HOUR: i64 = 3_600;

/// Stands between a process and the C library: the wall clock is wrong by as many seconds as the
/// file says, at every moment. The file is mapped before the worker is sealed.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static volatile int64_t *wrong_by;
__attribute__((constructor)) static void look(void) {
    int fd = open(getenv("WRONG_BY"), O_RDONLY);
    void *page = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    if (fd < 0 || page == MAP_FAILED) abort();
    close(fd);
    wrong_by = page;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && wrong_by) time->tv_sec += *wrong_by;
    return result;
}
"#;

/// Makes the shim; `None` (and a skip) where nothing can compile it.
fn shim(test: &str, stage: &Stage) -> Option<String> {
    if !has_program("cc") {
        skip(test, "there is no C compiler");
        return None;
    }
    let (source, shim) = (stage.path("shim.c"), stage.path("shim.so"));
    std::fs::write(&source, SHIM).expect("the folder is ours");
    let mut command = Command::new("cc");
    let output = output_of(command.args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source));
    assert!(output.status.success(), "{output:?}");
    Some(shim.display().to_string())
}

fn set(wrong_by: &Path, seconds: i64) {
    // In place: it is mapped.
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(wrong_by);
    file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0)).expect("the file is ours");
}

/// When the worker believes that this job's operation was submitted, seconds from now.
fn believed(stage: &Stage, id: i64) -> Option<i64> {
    let query = "SELECT checkpoint FROM jobs WHERE id = ?1";
    let bytes = stage.database().query_row(query, [id], |row| row.get::<_, Option<Vec<u8>>>(0));
    let record: serde_json::Value = serde_json::from_slice(&bytes.expect("a row")?).ok()?;
    let since = Duration::from_millis(record["since_ms"].as_u64().filter(|since| *since > 0)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Some(i64::try_from(since.as_secs()).ok()? - i64::try_from(now.as_secs()).ok()?)
}

fn polls_of<'a>(journal: &'a [Line], tag: &str) -> Vec<&'a Line> {
    journal.iter().filter(|line| line.kind == "poll" && line.tag == tag).collect()
}

#[test]
fn jumps_of_the_wall_clock_neither_hurry_nor_delay_nor_end_an_operation() {
    let name = "jumps_of_the_wall_clock_neither_hurry_nor_delay_nor_end_an_operation";
    let behaviour = Behaviour { polls: 24, ..Behaviour::default() };
    let (mut stage, simulator) = dark(SHAPE, &behaviour, |text| {
        text.replace("deadline = \"6h\"", "deadline = \"30m\"")
            .replace("max = \"200ms\"", "max = \"100ms\"")
    });
    let Some(shim) = shim(name, &stage) else { return };
    let wrong_by = stage.path("wrong-by");
    set(&wrong_by, 0);
    let env = format!("env = {{ LD_PRELOAD = {shim:?}, WRONG_BY = {wrong_by:?}, ");
    stage.reconfigure("env = { ", &env);
    stage.start();
    let mut ids = Vec::new();
    // Forward, back, and far back, each in the middle of what was begun before.
    for (round, jump) in [0, HOUR, -HOUR, -48 * HOUR, 0].into_iter().enumerate() {
        set(&wrong_by, jump);
        let insert = |at| {
            let tag = format!("r{round}-{at}");
            (stage.insert("remote", &payload(&stage, SHAPE, &tag, "")), tag)
        };
        let begun: Vec<(i64, String)> = (0..3).map(insert).collect();
        let (last, tag) = begun[2].clone();
        wait_until("the round is polled", || polls_of(&simulator.journal(), &tag).len() >= 4);
        // The worker sees what was set: else this test would prove nothing.
        let believed = believed(&stage, last).expect("it was submitted");
        assert!((believed - jump).abs() < 60, "{believed} s, and {jump} s were set");
        ids.extend(begun);
    }
    for (id, _) in &ids {
        assert_eq!(result(&stage, *id)["files"][0]["bytes"], 100_000);
        assert_eq!(stage.attempts(*id).len(), 1);
    }
    let journal = simulator.journal();
    assert_eq!(of_kind(&journal, "submit"), ids.len());
    for (_, tag) in &ids {
        let polls = polls_of(&journal, tag);
        // None too many, none too early: 20 ms and growing, less a tenth by chance.
        assert_eq!(polls.len(), 24, "{tag}");
        let gaps: Vec<_> = polls.windows(2).map(|two| two[1].at - two[0].at).collect();
        assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(17)), "{tag}: {gaps:?}");
        assert!(
            gaps.iter().skip(6).all(|gap| *gap >= Duration::from_millis(85)),
            "{tag}: {gaps:?}"
        );
        assert!(gaps.iter().all(|gap| *gap < Duration::from_secs(5)), "{tag}: {gaps:?}");
    }
}
