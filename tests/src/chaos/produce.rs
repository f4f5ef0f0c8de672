//! Producers: programs that insert jobs by SQL and by the command line, and write down what was
//! acknowledged, and only that.

use super::drive::Scene;
use super::journal::append;
use super::mix::{self, Wanted};
use super::random::Random;
use crate::output_of;
use rusqlite::{Connection, TransactionBehavior};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// No more unfinished jobs than these: what waits cannot be hit.
const UNFINISHED_MAX: i64 = 40;

/// Inserts by SQL in transactions of its own, until the noise ends.
pub(super) fn by_sql(scene: &Scene<'_>, mut random: Random) {
    let mut database = scene.stage.database();
    let _ = database.busy_timeout(Duration::from_secs(5));
    let mut serial = 0;
    while scene.is_noisy() {
        std::thread::sleep(random.millis(20, 250));
        if unfinished(&database).is_none_or(|count| count > UNFINISHED_MAX) {
            continue;
        }
        let count = 1 + random.below(5);
        let jobs: Vec<Wanted> = (0..count)
            .map(|_| {
                serial += 1;
                mix::choose(&mut random, &scene.props, serial)
            })
            .collect();
        match insert(&mut database, &jobs) {
            Ok(ids) => acknowledge(scene, &jobs, &ids),
            Err(_) => scene.tally("refused insert"),
        }
    }
}

/// Inserts by `shiftboss submit`, until the noise ends.
pub(super) fn by_command(scene: &Scene<'_>, mut random: Random) {
    let mut serial = 1 << 32;
    while scene.is_noisy() {
        std::thread::sleep(random.millis(200, 1200));
        serial += 1;
        let job = mix::choose(&mut random, &scene.props, serial);
        let payload = job.payload.to_string();
        let mut args = vec!["submit", job.job_type, "--payload", &payload, "--json"];
        let attempts = job.attempts_max.map(|number| number.to_string());
        let timeout = job.timeout_ms.map(|millis| format!("{millis}ms"));
        let delay = format!("{}ms", job.delay_ms);
        for (option, value) in [("--max-attempts", &attempts), ("--timeout", &timeout)] {
            args.extend(value.iter().flat_map(|value| [option, value.as_str()]));
        }
        if job.delay_ms > 0 {
            args.extend(["--delay", &delay]);
        }
        let name = random.pick(&scene.names).cloned().unwrap_or_default();
        let output = output_of(scene.stage.shiftboss(&args).env("INSTANCE_ID", name));
        let answer = serde_json::from_slice::<serde_json::Value>(&output.stdout).ok();
        match answer.and_then(|answer| answer["id"].as_i64()) {
            Some(id) if output.status.success() => acknowledge(scene, &[job], &[id]),
            _ => scene.tally("refused submit"),
        }
    }
}

fn unfinished(database: &Connection) -> Option<i64> {
    let sql = "SELECT count(*) FROM jobs WHERE finished_at IS NULL";
    database.query_row(sql, [], |row| row.get(0)).ok()
}

fn insert(database: &mut Connection, jobs: &[Wanted]) -> rusqlite::Result<Vec<i64>> {
    let tx = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut ids = Vec::new();
    for job in jobs {
        let sql = "INSERT INTO jobs(type, payload, max_attempts, timeout_ms, run_at, priority)
            VALUES (?1, ?2, ?3, ?4, CASE ?5 WHEN 0 THEN NULL ELSE unixepoch() * 1000 + ?5 END, 0)";
        let payload = job.payload.to_string();
        let values = (job.job_type, payload, job.attempts_max, job.timeout_ms, job.delay_ms);
        tx.execute(sql, values)?;
        ids.push(tx.last_insert_rowid());
    }
    tx.commit()?;
    Ok(ids)
}

fn acknowledge(scene: &Scene<'_>, jobs: &[Wanted], ids: &[i64]) {
    for (job, id) in jobs.iter().zip(ids) {
        append(&scene.props.journals.accepted(), &job.accepted(*id)).expect("it has room");
        scene.latest.store(*id, Ordering::Relaxed);
    }
}
