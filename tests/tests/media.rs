//! What needs a supervisor to be seen of the media workload: who is claimed first, what a limit of
//! memory does to pictures that are too large, and what a lost encoder costs.

use serde_json::{Value, json};
use shiftboss_tests::{Stage, has_program, skip, wait_until};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const ONE_WORKER: &str = "[types.encode]\nworkers = { min = 1, max = 1 }\nmax_attempts = 1\n";
const FAST: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 12";

/// Makes a film with ffmpeg; `arguments` are split at spaces. `None` (and a skip) without it.
fn film(stage: &Stage, test: &str, (name, arguments): (&str, &str)) -> Option<PathBuf> {
    if !has_program("ffmpeg") || !has_program("ffprobe") {
        skip(test, "ffmpeg is not installed");
        return None;
    }
    let path = stage.path(name);
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-f", "lavfi", "-i"]).args(arguments.split(' '));
    assert!(command.arg(&path).status().expect("it can be started").success(), "{arguments}");
    Some(path)
}

/// All of these types have a worker that waits.
fn workers_are_idle(stage: &Stage, types: &[&str]) {
    wait_until("the workers are ready", || {
        let workers = stage.json(&["workers", "--json"]);
        let workers = workers.as_array().cloned().unwrap_or_default();
        let is_idle = |name: &str| {
            workers.iter().any(|worker| worker["type"] == name && worker["state"] == "idle")
        };
        types.iter().all(|name| is_idle(name))
    });
}

#[test]
fn keying_is_claimed_before_other_media_work() {
    let name = "keying_is_claimed_before_other_media_work";
    let stage = Stage::new(&format!("running_max = 1\n{ONE_WORKER}"));
    let Some(film) = film(&stage, name, ("film.mp4", &format!("testsrc2=s=64x64:d=1 {FAST}")))
    else {
        return;
    };
    workers_are_idle(&stage, &["encode", "keying"]);
    let payload = json!({"op": "probe", "input": film}).to_string();
    // All at once, the others first: one has a higher priority among its own.
    let insert = "INSERT INTO jobs(type, payload, priority) VALUES \
                  ('encode', ?1, 0), ('encode', ?1, 9), ('keying', ?1, 0), ('encode', ?1, 0), \
                  ('keying', ?1, 0)";
    stage.database().execute(insert, [&payload]).expect("inserted");
    wait_until("all are done", || stage.count("state = 'succeeded'") == 5);
    let database = stage.database();
    let sql = "SELECT id FROM jobs ORDER BY started_at, id";
    let mut statement = database.prepare(sql).expect("the table is there");
    let order = statement.query_map([], |row| row.get::<_, i64>(0)).expect("it can be read");
    let order: Vec<i64> = order.flatten().collect();
    assert_eq!(order, [3, 5, 2, 1, 4]);
}

#[test]
fn pictures_beyond_the_limit_of_memory_fail_and_the_worker_goes_on() {
    let name = "pictures_beyond_the_limit_of_memory_fail_and_the_worker_goes_on";
    let config = format!("{ONE_WORKER}limits = {{ memory = \"160MiB\" }}\n");
    let stage = Stage::new(&config);
    // A picture of 216 MB from some kilobytes, several times: none is over before it is looked at.
    let huge = "color=red:s=12000x12000:r=1 -frames:v 1 -c:v mjpeg -pix_fmt yuvj420p -q:v 31";
    let Some(one) = film(&stage, name, ("one.mkv", huge)) else { return };
    let huge = stage.path("huge.mkv");
    let list = format!("ffconcat version 1.0\n{}", "file one.mkv\nduration 1\n".repeat(12));
    std::fs::write(stage.path("list"), list).expect("the folder is ours");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-safe", "0", "-f", "concat", "-i"]);
    command.arg(stage.path("list")).args(["-c", "copy"]).arg(&huge);
    assert!(command.status().expect("it can be started").success(), "{}", one.display());
    let small = film(&stage, name, ("small.mp4", &format!("testsrc2=s=320x180:d=1 {FAST}")));
    workers_are_idle(&stage, &["encode"]);
    let submit = |film: &Path| {
        let out = stage.path("out");
        let payload = json!({
            "op": "ladder", "input": film, "output_dir": out, "renditions": ["144p"],
        });
        stage.insert("encode", &payload.to_string())
    };
    let job = submit(&huge);
    let row = stage.wait_for_state(job, "failed");
    let attempt = &stage.attempts(job)[0];
    assert_eq!(attempt.cause.as_deref(), Some("out_of_memory"), "{}", row.last_error);
    assert!(row.last_error.contains("160.0 MiB"), "{}", row.last_error);
    assert_eq!((row.failures, row.crash_count), (1, 0), "the worker is not to blame");
    let next = submit(&small.expect("ffmpeg is there"));
    stage.wait_for_state(next, "succeeded");
    // Without a memory controller nobody can tell who is to go: the worker is replaced.
    let is_soft = row.last_error.contains("soft");
    assert!(is_soft || stage.attempts(next)[0].pid == attempt.pid, "it is the same worker");
    let out = |name: &str| stage.path("out").join(name).exists();
    assert_eq!((out("huge-144p.mp4"), out("small-144p.mp4")), (false, true));
}

/// A program in the place of ffmpeg with an encoder `h264_nvenc`, which is gone from its third chunk
/// on with what drivers say then (quoted from reports, not recorded).
fn with_a_gpu(stage: &Stage) -> PathBuf {
    std::fs::create_dir(stage.path("tools")).expect("the folder is ours");
    let path = stage.path("tools/ffmpeg");
    let script = "#!/bin/sh\n\
        case \" $* \" in *' h264_nvenc '*) ;; *) exec /usr/bin/env ffmpeg \"$@\" ;; esac\n\
        case \" $* \" in *' lavfi '*) exit 0 ;; *chunk-00002*)\n\
        echo '[h264_nvenc @ 0x1] [error] OpenEncodeSessionEx failed: out of memory (10): (no \
        details)' >&2\nexit 1 ;; esac\n\
        skip=0\n\
        for word do\n\
        shift\n\
        if [ $skip = 1 ]; then skip=0; continue; fi\n\
        case $word in\n\
        -tune|-rc|-cq|-b:v|-forced-idr|-no-scenecut|-strict_gop) skip=1; continue ;;\n\
        h264_nvenc) set -- \"$@\" libx264 -x264-params; word=open-gop=0:bframes=2:cabac=1 ;;\n\
        p[1-7]) word=ultrafast ;;\n\
        esac\n\
        set -- \"$@\" \"$word\"\n\
        done\n\
        exec /usr/bin/env ffmpeg \"$@\"\n";
    std::fs::write(&path, script).expect("the folder is ours");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("the file is ours");
    path
}

#[test]
fn an_encoder_that_is_lost_on_the_way_costs_no_attempt_and_no_chunk() {
    let name = "an_encoder_that_is_lost_on_the_way_costs_no_attempt_and_no_chunk";
    let stage = Stage::dark(ONE_WORKER);
    let ffmpeg = with_a_gpu(&stage);
    let mut stage = stage;
    stage.reconfigure("", &format!("[tools]\nffmpeg = {ffmpeg:?}\n"));
    let source = format!("testsrc2=s=192x144:r=25:d=10 {FAST}");
    let Some(film) = film(&stage, name, ("film.mp4", &source)) else { return };
    stage.start();
    let payload = json!({
        "op": "ladder", "input": film, "output_dir": stage.path("out"), "renditions": ["144p"],
        "preset": "ultrafast", "codecs": ["h264_nvenc", "libx264"], "chunk_seconds": 2,
    });
    let row = stage.wait_for_state(stage.insert("encode", &payload.to_string()), "succeeded");
    assert_eq!((row.attempt, row.failures), (1, 0));
    let result: Value = serde_json::from_str(&row.result.unwrap_or_default()).expect("JSON");
    assert_eq!(result["chunks_by"], json!({"h264_nvenc": 2, "libx264": 3}), "{result}");
    assert_eq!(result["outputs"][0]["frames"], json!(250));
}

#[test]
fn a_profile_and_a_format_can_be_said_on_the_command_line() {
    let name = "a_profile_and_a_format_can_be_said_on_the_command_line";
    let stage = Stage::new("[profiles.small]\nrenditions = [\"144p\"]\npreset = \"ultrafast\"\n");
    let source = format!("testsrc2=s=320x180:d=1 {FAST}");
    let Some(film) = film(&stage, name, ("film.mp4", &source)) else { return };
    let film = film.display().to_string();
    let encode = |more: &[&str]| {
        let output = stage.run(&[&["encode", &film, "--out", "out", "--wait"][..], more].concat());
        assert!(output.status.success(), "{output:?}");
    };
    encode(&["--profile", "small", "--format", "hls"]);
    assert!(stage.path("out/film-hls/144p.m3u8").is_file());
    // What is said goes before the profile.
    encode(&["--profile", "small", "--renditions", "180p"]);
    assert!(stage.path("out/film-180p.mp4").is_file() && !stage.path("out/film-144p.mp4").exists());
    let output = stage.run(&["encode", &film, "--out", "out", "--format", "avi"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
