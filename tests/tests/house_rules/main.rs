//! The house rules, checked over the whole tree: size, layering, banned words.
//!
//! Failures read `file:line: error: what (why)`. A rule that stands in the way of better code is
//! changed here, with its reason, not worked around. What the compiler can check is in the lints
//! of Cargo.toml and in clippy.toml.

mod rules;
mod text;

use rules::{Part, RULES, Rule};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use text::{functions, has_word, imports, part_of};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 100;
const HEADER_LINES_MAX: usize = 6;
const FOLDER_FILES_MAX: usize = 12;
const ARCHITECTURE_LINES_MAX: usize = 249;
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const VAGUE_NAMES: &[&str] =
    &["common", "helper", "helpers", "manager", "misc", "types", "util", "utils"];

#[test]
fn the_tree_follows_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root");
    let files = files_of(root);
    assert!(files.iter().any(|file| file == Path::new("Cargo.toml")), "no tree in {root:?}");
    let mut errors = Vec::new();
    let mut folders: BTreeMap<&Path, usize> = BTreeMap::new();
    for file in &files {
        let bytes = fs::read(root.join(file)).expect("a listed file can be read");
        let name = file.to_string_lossy();
        check_any(&name, &bytes, root, &mut errors);
        // A folder of tests has a file per behaviour, however many there are.
        let test = name.contains("tests/");
        if !test && file.extension().is_some_and(|extension| extension == "rs") {
            *folders.entry(file.parent().unwrap_or(file)).or_default() += 1;
            check_source(&name, &String::from_utf8_lossy(&bytes), &mut errors);
        }
    }
    for (folder, count) in folders {
        if count > FOLDER_FILES_MAX {
            let name = folder.display();
            errors.push(format!("{name}:1: error: {count} files (at most {FOLDER_FILES_MAX})"));
        }
    }
    assert!(errors.is_empty(), "{} broken house rules:\n{}", errors.len(), errors.join("\n"));
}

/// What git tracks, and what it would track; without git, all but what is built.
fn files_of(root: &Path) -> Vec<PathBuf> {
    let listing = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let mut files = match listing {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split_terminator('\0')
            .map(PathBuf::from)
            // Deleted in the work tree and still in the index.
            .filter(|file| root.join(file).is_file())
            .collect(),
        _ => walk(root, Path::new("")),
    };
    files.sort();
    files
}

fn walk(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join(folder)).expect("a folder of the tree can be listed") {
        let name = entry.expect("a folder of the tree can be read").file_name();
        let path = folder.join(&name);
        if root.join(&path).is_file() {
            files.push(path);
        } else if ![".git", "demo-output", "target"].iter().any(|skipped| name == *skipped) {
            files.extend(walk(root, &path));
        }
    }
    files
}

fn check_any(name: &str, bytes: &[u8], root: &Path, errors: &mut Vec<String>) {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        errors.push(format!("{name}:1: error: {} bytes (at most {FILE_BYTES_MAX})", bytes.len()));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lines = text.lines().count();
    if name == "ARCHITECTURE.md" && lines > ARCHITECTURE_LINES_MAX {
        errors.push(format!("{name}:1: error: {lines} lines (at most {ARCHITECTURE_LINES_MAX})"));
    }
    // A path of one part, such as /src, says nothing about this machine.
    let here = root.to_string_lossy();
    if root.components().count() > 2 {
        for (line, _) in text.lines().enumerate().filter(|(_, line)| line.contains(&*here)) {
            errors.push(format!("{name}:{}: error: names the folder {here}", line + 1));
        }
    }
}

fn check_source(name: &str, source: &str, errors: &mut Vec<String>) {
    let mut error =
        |line: usize, what: String| errors.push(format!("{name}:{line}: error: {what}"));
    let lines = source.lines().count();
    if lines > FILE_LINES_MAX {
        error(1, format!("{lines} lines (at most {FILE_LINES_MAX}: split by what they own)"));
    }
    let header = source.lines().take_while(|line| line.starts_with("//!")).count();
    if header == 0 || header > HEADER_LINES_MAX {
        error(1, format!("header of {header} lines (1 to {HEADER_LINES_MAX} lines of `//!`)"));
    }
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    if VAGUE_NAMES.contains(&&*stem) {
        error(1, format!("the name `{stem}` (a file is named for what it owns or decides)"));
    }
    for (line, text) in (1..).zip(source.lines()) {
        let chars = text.chars().count();
        if chars > LINE_CHARS_MAX {
            error(line, format!("{chars} characters (at most {LINE_CHARS_MAX})"));
        }
    }
    let code = part_of(source, Part::Code);
    for (line, function, length) in functions(&code) {
        if length > FUNCTION_LINES_MAX {
            error(line, format!("`{function}` of {length} lines (at most {FUNCTION_LINES_MAX})"));
        }
    }
    let imports = imports(&code);
    for rule in RULES.iter().filter(|rule| applies(rule, name)) {
        let text = part_of(source, rule.part);
        let lines = (1..).zip(text.lines());
        let imports = imports.iter().map(|(line, path)| (*line, path.as_str()));
        let mut found: Vec<(usize, &str)> = Vec::new();
        for (line, text) in lines.chain(imports.filter(|_| rule.part == Part::Code)) {
            found.extend(
                rule.words.iter().filter(|word| has_word(text, word)).map(|word| (line, *word)),
            );
        }
        found.sort_unstable();
        found.dedup();
        for (line, word) in found {
            error(line, format!("`{word}` ({})", rule.reason));
        }
    }
}

fn applies(rule: &Rule, name: &str) -> bool {
    let below = |places: &[&str]| places.iter().any(|place| name.starts_with(place));
    below(rule.within) && !below(rule.except)
}

#[test]
fn comments_and_literals_are_told_from_code() {
    let source =
        "a(\"x // \\\" y\"); /* b /* c */ d */ 'e'; '\\''; &'f g; r#\"h \"i\" j\"#; // k\nl";
    let words = |part| part_of(source, part).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(Part::Code), "a( ); ; ; &'f g; ; l");
    assert_eq!(words(Part::Comment), "/* b /* c */ d */ // k");
    assert_eq!(words(Part::Text), "\"x // \\\" y\" 'e' '\\'' r#\"h \"i\" j\"#");
}

#[test]
fn functions_are_measured_from_signature_to_last_brace() {
    let source =
        "trait T { fn a(&self) -> [u8; 4]; }\nfn b(\n  c: fn(u8),\n) {\n  if x {}\n}\nfn d() {}";
    let expected = [(2, "b".to_owned(), 5), (7, "d".to_owned(), 1)];
    assert_eq!(functions(&part_of(source, Part::Code)), expected);
}

#[test]
fn a_broken_rule_is_found_through_grouped_imports_and_with_its_line() {
    let mut errors = Vec::new();
    let source = format!(
        "//! Header.\nuse crate::{{policy::x,\n store::y}};\nfn f() {{ let a = \"{}\"; a{} }}\n",
        "bincode", ".unwrap()"
    );
    check_source("supervisor/src/policy/x.rs", &source, &mut errors);
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors[0].starts_with("supervisor/src/policy/x.rs:4: error: `.unwrap()`"));
    assert!(errors[1].starts_with("supervisor/src/policy/x.rs:2: error: `crate::store`"));
}

#[test]
fn size_header_and_name_are_checked() {
    let mut errors = Vec::new();
    let long = format!("fn long() {{\n{}}}\n{}", "\n".repeat(70), "x".repeat(101));
    check_source("worker/src/util.rs", &long, &mut errors);
    let expected = ["header of 0", "`util`", "101 characters", "`long` of 72 lines"];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, part) in errors.iter().zip(expected) {
        assert!(error.contains(part), "{error}");
    }
}
