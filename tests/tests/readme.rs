//! README.md is true: its commands exist, its examples insert jobs that run, its configuration
//! is accepted.

use shiftboss_tests::provider::tokens::minter::Minter;
use shiftboss_tests::provider::{Behaviour, Shape, scene};
use shiftboss_tests::{Stage, has_program, output_of, skip, wait_until};
use std::collections::BTreeSet;
use std::process::Command;

const README: &str = include_str!("../../README.md");

/// The fenced blocks of a language that hold some words.
fn blocks(language: &str, words: &str) -> Vec<&'static str> {
    let fences = README.split("\n```");
    let blocks = fences.filter_map(|text| text.strip_prefix(language)?.strip_prefix('\n'));
    blocks.filter(|text| text.contains(words)).collect()
}

/// The one block of a language that holds some words.
fn block(language: &str, words: &str) -> &'static str {
    let found = blocks(language, words);
    assert_eq!(found.len(), 1, "{language} with {words:?}: {found:?}");
    found[0]
}

/// What stands outside of square brackets.
fn unbracketed(text: &str) -> String {
    let mut depth = 0;
    let outside = |letter: &char| {
        depth += i32::from(*letter == '[');
        let is_outside = depth == 0;
        depth -= i32::from(*letter == ']');
        is_outside
    };
    text.chars().filter(outside).collect()
}

/// The commands of `db check | backup FILE` or `config check|show`, each with its words.
fn commands_of(text: &str) -> Vec<Vec<String>> {
    let is_verb = |word: &&str| word.bytes().all(|it| it.is_ascii_lowercase() || it == b'|');
    let mut commands: Vec<Vec<String>> = Vec::new();
    for alternative in text.split(" | ") {
        let verbs: Vec<&str> = alternative.split_whitespace().take_while(is_verb).collect();
        let (last, before) = verbs.split_last().expect("a command has a name");
        let inherited = commands.first().filter(|first| first.len() > 1 && before.is_empty());
        let prefix: Vec<String> = match inherited {
            Some(first) => first[..1].to_vec(),
            None => before.iter().map(|word| (*word).to_owned()).collect(),
        };
        for name in last.split('|') {
            commands.push(prefix.iter().cloned().chain([name.to_owned()]).collect());
        }
    }
    commands
}

#[test]
fn every_command_and_option_that_it_names_exists() {
    let stage = Stage::dark("");
    let mut documented = BTreeSet::new();
    for piece in block("", "[--max-attempts N]").split("shiftboss ").skip(1) {
        let commands = commands_of(unbracketed(piece).split("  ").next().unwrap_or_default());
        for command in &commands {
            let args: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
            let output = stage.run(&args);
            assert!(output.status.success(), "{args:?}: {output:?}");
            let help = String::from_utf8_lossy(&output.stdout).into_owned();
            let words = piece.split([' ', '\n', '[', ']']).filter(|word| word.starts_with("--"));
            for option in words.filter(|_| commands.len() == 1) {
                assert!(help.contains(option), "{args:?} has no {option}");
            }
            documented.insert(command[0].clone());
        }
    }
    let help = String::from_utf8_lossy(&stage.run(&["--help"]).stdout).into_owned();
    let known = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let known = known.take_while(|line| line.starts_with("  "));
    let known = known.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    let known: BTreeSet<String> = known.filter(|name| name != "help").collect();
    assert_eq!(documented, known);
}

#[test]
fn its_configuration_is_accepted() {
    let stage = Stage::dark("");
    let text = block("toml", "database = ");
    std::fs::write(stage.path("shiftboss.toml"), text).expect("the folder is ours");
    let output = stage.run(&["config", "check"]);
    assert!(output.status.success(), "{output:?}");
    let text = format!("{text}\n{}", block("toml", "[profiles.web]"));
    std::fs::write(stage.path("shiftboss.toml"), text).expect("the folder is ours");
    let output = stage.run(&["config", "check"]);
    assert!(output.status.success(), "{output:?}");
    for name in ["SHIFTBOSS_POLL__IDLE_MIN=2s", "SHIFTBOSS_TYPES__ENCODE__WORKERS__MAX=4"] {
        assert!(README.contains(name), "{name} is not an example any more");
        let (name, value) = name.split_once('=').expect("an assignment");
        let output = output_of(stage.shiftboss(&["config", "check"]).env(name, value));
        assert!(output.status.success(), "{output:?}");
    }
}

/// Runs an example in a folder whose database has its name.
fn example(test: &str, program: &str, args: &[&str], text: &str) {
    if !has_program(program) {
        return skip(test, &format!("{program} is not installed"));
    }
    let mut stage = Stage::dark("");
    stage.reconfigure("jobs.db", "shiftboss.db");
    stage.start();
    let mut command = Command::new(program);
    let output = output_of(command.args(args).arg(text).current_dir(stage.path("")));
    if String::from_utf8_lossy(&output.stderr).contains("Cannot find module") {
        return skip(test, "better-sqlite3 is not installed");
    }
    assert!(output.status.success(), "{output:?}");
    wait_until("the job has run", || {
        let jobs = stage.json(&["jobs", "--json"]);
        jobs[0]["state"] == "succeeded" && jobs[0]["type"] == "command"
    });
}

#[test]
fn the_example_for_the_shell_inserts_a_job_that_runs() {
    if !has_program("sqlite3") {
        return skip("the_example_for_the_shell", "sqlite3 is not installed");
    }
    example("the_example_for_the_shell", "sh", &["-c"], block("sh", "INSERT"));
}

#[test]
fn the_example_in_python_inserts_a_job_that_runs() {
    example("the_example_in_python", "python3", &["-c"], block("python", "INSERT"));
}

#[test]
fn the_example_in_javascript_inserts_a_job_that_runs() {
    example("the_example_in_javascript", "node", &["-e"], block("js", "INSERT"));
}

#[test]
fn the_smallest_insert_runs_and_so_does_the_payload_of_a_command() {
    let stage = Stage::new("");
    stage.database().execute_batch(block("sql", "INSERT")).expect("it is SQL");
    stage.wait_for_state(1, "succeeded");
    let payload: serde_json::Value =
        serde_json::from_str(block("json", "argv")).expect("it is JSON");
    let mut known = payload.as_object().expect("an object").clone();
    assert_eq!(known.len(), 7, "{known:?}");
    for field in ["cwd", "read", "write"] {
        known.remove(field);
    }
    known.insert("argv".to_owned(), serde_json::json!(["true"]));
    let id = stage.insert("command", &serde_json::Value::Object(known).to_string());
    stage.wait_for_state(id, "succeeded");
}

/// Makes the file of this name for an example: two seconds before a green screen, or a picture.
fn make_file(path: &std::path::Path) {
    let is_picture = path.extension().is_some_and(|extension| extension == "png");
    let source = if is_picture { "testsrc2=s=320x180" } else { "color=0x00B140:s=320x180:r=25" };
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", source]);
    if is_picture {
        command.args(["-frames:v", "1"]);
    } else {
        let actor = "drawbox=x=120:y=60:w=80:h=120:c=red:t=fill";
        let codec = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-t", "2"];
        command.args(["-f", "lavfi", "-i", "sine", "-vf", actor]).args(codec);
    }
    assert!(command.arg(path).status().expect("it can be started").success());
}

/// Runs every payload of the block of an op, with files of its own in the place of /srv/in.
fn media_examples(op: &str) {
    if !has_program("ffmpeg") || !has_program("ffprobe") {
        return skip(&format!("the_examples_of_{op}"), "ffmpeg is not installed");
    }
    let stage = Stage::new("");
    let (films, outputs) = (stage.path("in"), stage.path("out"));
    std::fs::create_dir(&films).expect("the folder is ours");
    let text = block("json", &format!("{{\"op\": \"{op}\""));
    for path in text.split('"').filter_map(|word| word.strip_prefix("/srv/in/")) {
        if !films.join(path).exists() {
            make_file(&films.join(path));
        }
    }
    let text = text.replace("/srv/in", films.to_str().expect("the folder's name is plain"));
    let text = text.replace("/srv/out", outputs.to_str().expect("the folder's name is plain"));
    let payloads = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>();
    let payloads: Vec<_> = payloads.map(|payload| payload.expect("it is JSON")).collect();
    assert!(!payloads.is_empty());
    for payload in payloads {
        let id = stage.insert("keying", &payload.to_string());
        let result = stage.wait_for_state(id, "succeeded").result.unwrap_or_default();
        let result: serde_json::Value = serde_json::from_str(&result).expect("it is JSON");
        let path = result["outputs"][0]["path"].as_str().expect("an output is listed");
        assert!(std::path::Path::new(path).is_file(), "{path}");
    }
}

#[test]
fn the_examples_of_keying_run() {
    media_examples("keying");
}

#[test]
fn the_examples_of_stitch_run() {
    media_examples("stitch");
}

#[test]
fn the_examples_of_passthrough_run() {
    media_examples("passthrough");
}

#[test]
fn every_variable_of_its_table_is_read() {
    let stage = Stage::dark("");
    let names = ["MAX_WORKERS", "MIN_WORKERS", "WORKER_TIMEOUT", "INSTANCE_ID", "REDIS_HOST"];
    let more = ["MAX_CONCURRENT_JOBS", "DISABLE_BACKGROUND_WORKERS", "WORKER_POLLING_INTERVAL"];
    for name in names.into_iter().chain(more) {
        assert!(README.contains(&format!("`{name}`")), "{name} is not documented");
        let mut command = stage.shiftboss(&["config", "check"]);
        let output = output_of(command.env(name, "\u{1}"));
        let told = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(told.contains(name), "{name} is not read: {told}");
    }
}

#[test]
fn the_example_of_a_command_that_prints_tokens_runs_an_operation() {
    const SHAPE: Shape = Shape::Generic;
    let minter = Minter::new("plain", 3_600_000);
    let program = minter.path("token").display().to_string();
    let example = block("toml", "kind = \"command\"").replace("/usr/bin/gcloud", &program);
    let behaviour = Behaviour { tokens: true, ..Behaviour::default() };
    let (stage, _simulator) = scene::stage(SHAPE, &behaviour, |text| {
        let lines = text.lines().filter(|line| !line.starts_with("auth = "));
        let text = lines.collect::<Vec<_>>().join("\n");
        text.replacen("[limits]", &format!("{example}\n[limits]"), 1)
    });
    let id = stage.insert("remote", &scene::payload(&stage, SHAPE, "a", ""));
    assert_eq!(scene::result(&stage, id)["files"][0]["bytes"], 100_000);
    assert_eq!(minter.runs(), 1);
}
