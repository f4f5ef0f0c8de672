//! A payload names nothing outside the roots of its type, over no link, and none of our files.

use serde_json::json;
use shiftboss_tests::{Stage, has_program};
use std::os::unix::fs::symlink;

#[test]
fn a_payload_names_only_what_lies_below_the_roots_of_its_type() {
    let mut stage = Stage::dark("");
    for folder in ["in", "out", "elsewhere"] {
        std::fs::create_dir(stage.path(folder)).expect("the folder is ours");
        std::fs::write(stage.path(folder).join("film.mp4"), "x").expect("the folder is ours");
    }
    symlink("../elsewhere/film.mp4", stage.path("in/link.mp4")).expect("linked");
    symlink("../elsewhere", stage.path("out/link")).expect("linked");
    let roots = format!("{{ read = [{:?}], write = [{:?}] }}", stage.path("in"), stage.path("out"));
    stage.reconfigure(
        "",
        &format!("[types.encode]\nroots = {roots}\n[types.command]\nroots = {roots}"),
    );
    stage.start();
    let path = |name: &str| stage.path(name).display().to_string();
    let command =
        |field: &str, name: &str| json!({ "argv": ["true"], field: [path(name)] }).to_string();
    let encode = |input: &str, out: &str| {
        json!({ "op": "ladder", "input": path(input), "output_dir": path(out) }).to_string()
    };
    let outside = "lies outside the folders that this type may";
    let mut cases = vec![
        ("command", command("read", "elsewhere/film.mp4"), outside),
        ("command", command("read", "in/../elsewhere/film.mp4"), outside),
        ("command", command("read", "in/link.mp4"), outside),
        ("command", command("write", "out/link"), outside),
        ("command", command("write", "in"), outside),
        ("command", json!({ "argv": ["true"], "cwd": path("elsewhere") }).to_string(), outside),
    ];
    if has_program("ffmpeg") {
        cases.extend([
            ("encode", encode("elsewhere/film.mp4", "out/new"), outside),
            ("encode", encode("in/link.mp4", "out/new"), outside),
            ("encode", encode("in/film.mp4", "elsewhere/new"), outside),
            ("encode", encode("in/film.mp4", "out/link/new"), outside),
            ("encode", encode("in/missing.mp4", "out/new"), "missing.mp4 does not exist"),
        ]);
    }
    for (job_type, payload, expected) in cases {
        let id = stage.insert(job_type, &payload);
        let row = stage.wait_for_state(id, "failed");
        assert!(row.last_error.contains(expected), "{payload}: {}", row.last_error);
        assert!(row.last_error.contains("field "), "{payload}: {}", row.last_error);
        assert_eq!(row.attempt, 1, "{payload} was tried again");
    }
    assert!(!stage.path("elsewhere/new").exists() && !stage.path("out/new").exists());
    let good = stage.insert("command", &command("read", "in/film.mp4"));
    stage.wait_for_state(good, "succeeded");
}

#[test]
fn a_payload_never_names_the_database_the_work_folder_or_what_holds_them() {
    let stage = Stage::new("");
    let path = |name: &str| stage.path(name).display().to_string();
    for name in ["jobs.db", "jobs.db-wal", "jobs.db.main.lock", "jobs.db.work/scratch", "run", ""] {
        let fields: &[&str] = if name == "jobs.db-wal" { &["write"] } else { &["read", "write"] };
        for field in fields {
            let payload = json!({ "argv": ["true"], *field: [path(name)] }).to_string();
            let id = stage.insert("command", &payload);
            let row = stage.wait_for_state(id, "failed");
            assert!(row.last_error.contains("belongs to the supervisor"), "{}", row.last_error);
        }
    }
    symlink(stage.path("jobs.db"), stage.path("link.db")).expect("linked");
    let payload = json!({ "argv": ["true"], "read": [path("link.db")] }).to_string();
    let row = stage.wait_for_state(stage.insert("command", &payload), "failed");
    assert!(row.last_error.contains("belongs to the supervisor"), "{}", row.last_error);
}

#[test]
fn roots_inside_our_own_folders_are_refused_at_the_start() {
    let stage = Stage::dark("");
    let work = stage.path("jobs.db.work/scratch");
    stage.reconfigure("", &format!("[types.encode]\nroots = {{ write = [{work:?}] }}"));
    let output = stage.run(&["run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(100), "{text}");
    assert!(text.contains("types.encode.roots.write") && text.contains("no payload may"), "{text}");
}
