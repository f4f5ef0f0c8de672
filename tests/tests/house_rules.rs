//! The house rules, checked over the whole tree: size, layering, banned words.
//!
//! Failures read `file:line: error: what (why)`. A rule that stands in the way of better code is
//! changed here, with its reason, not worked around. What the compiler can check is in the lints
//! of Cargo.toml and in clippy.toml.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 100;
const HEADER_LINES_MAX: usize = 6;
const FOLDER_FILES_MAX: usize = 12;
const ARCHITECTURE_LINES_MAX: usize = 249;
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const VAGUE_NAMES: &[&str] =
    &["common", "helper", "helpers", "manager", "misc", "types", "util", "utils"];

/// Which part of a source file a rule reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Code,
    Text,
    Comment,
}

/// Words that may not stand in `part` of any file below `within` but those below `except`.
struct Rule {
    words: &'static [&'static str],
    part: Part,
    within: &'static [&'static str],
    except: &'static [&'static str],
    reason: &'static str,
}

const EVERYWHERE: &[&str] = &[""];
const UNSAFE: &[&str] = &[
    "supervisor/src/os/",
    // The hostile program makes the calls that no honest one needs.
    "supervisor/src/selftest/kernel.rs",
    "worker/src/launcher.rs",
    "worker/src/launcher/",
    "worker/src/confine",
    "protocol/tests/hostile.rs",
];

const RULES: &[Rule] = &[
    Rule {
        words: &["todo!", "unimplemented!", "dbg!", "process::exit"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &[],
        reason: "finish it, or return an error: nothing may end the process from within",
    },
    Rule {
        words: &[".unwrap()"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &[],
        reason: "say why it cannot fail: expect(\"why this cannot be\")",
    },
    Rule {
        words: &["#[ignore", "should_panic", "fn test_"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &[],
        reason: "a test runs, checks a value, and is named by a sentence of behaviour",
    },
    Rule {
        words: &["TODO", "FIXME", "XXX"],
        part: Part::Comment,
        within: EVERYWHERE,
        except: &[],
        reason: "comments say what is, plans live in issues",
    },
    Rule {
        words: &["thread::sleep", "time::sleep"],
        part: Part::Code,
        within: &["tests/tests/"],
        except: &[],
        reason: "a test waits for a condition, never for a guess",
    },
    Rule {
        words: &["rusqlite"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &["supervisor/src/store/", "supervisor/tests/", "tests/"],
        reason: "store/ is the only user of SQL, and children never open the database",
    },
    Rule {
        words: &["SELECT", "INSERT INTO", "UPDATE", "DELETE FROM", "CREATE TABLE", "PRAGMA"],
        part: Part::Text,
        within: EVERYWHERE,
        // The demo prints the smallest insert for a person to try.
        except: &["supervisor/src/store/", "supervisor/tests/", "tests/", "xtask/src/demo.rs"],
        reason: "store/ is the only user of SQL",
    },
    Rule {
        words: &["fs::copy", "fs::read", "fs::read_to_string", "File::open", "fs::OpenOptions"],
        part: Part::Code,
        within: &["supervisor/src/store/"],
        except: &["supervisor/src/store/tests/"],
        reason: "closing any descriptor of the database drops this process's locks on it",
    },
    Rule {
        words: &["libc::", "nix::", "rustix::"],
        part: Part::Code,
        within: EVERYWHERE,
        // The worker names errors and signals; calls need unsafe, which is kept apart.
        except: &["supervisor/src/os/", "supervisor/src/selftest/", "worker/", "tests/"],
        reason: "system calls have few homes, each with the reasons for their order",
    },
    Rule {
        words: &["unsafe"],
        part: Part::Code,
        within: EVERYWHERE,
        except: UNSAFE,
        reason: "unsafe code lives with the system calls that need it",
    },
    Rule {
        words: &["bincode"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &["protocol/src/frame.rs"],
        reason: "the crate is unmaintained: one file to change when it must go",
    },
    Rule {
        words: &["interprocess", "UnixStream", "UnixListener", "TcpStream", "TcpListener"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &[
            "supervisor/src/link/",
            "supervisor/src/http/",
            "supervisor/src/cli/client.rs",
            // What the hostile program must not reach.
            "supervisor/src/selftest/listeners.rs",
            "supervisor/src/selftest/attempts/sockets.rs",
            "worker/src/connection.rs",
            "worker/src/serve.rs",
            "worker/src/launcher/",
            "worker/tests/",
            "tests/",
        ],
        reason: "sockets are link/'s and http/'s; workers and clients have one file each",
    },
    Rule {
        words: &[
            "crate::cli",
            "crate::clock",
            "crate::config",
            "crate::daemon",
            "crate::http",
            "crate::link",
            "crate::os",
            "crate::store",
            "getrandom",
            "std::env",
            "std::fs",
            "std::io",
            "std::net",
            "std::process",
            "std::thread",
            "tokio",
            "tracing",
            "async",
        ],
        part: Part::Code,
        within: &["supervisor/src/policy/", "supervisor/src/policy.rs"],
        except: &[],
        reason: "policy is pure: events and `now` come in, actions go out, a simulator can run it",
    },
    Rule {
        words: &["crate::daemon"],
        part: Part::Code,
        within: &["supervisor/src/"],
        except: &["supervisor/src/cli/", "supervisor/src/daemon"],
        reason: "only daemon knows all its neighbours; they do not know it",
    },
    Rule {
        words: &["std::env", "std::fs", "std::net", "std::process", "std::thread", "tokio"],
        part: Part::Code,
        within: &["protocol/src/"],
        except: &[],
        reason: "protocol is words and frames: no I/O",
    },
];

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

/// Whether a word stands in a text by itself: `fs::read` is not in `fs::read_dir`.
fn has_word(text: &str, word: &str) -> bool {
    let is_part =
        |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
    text.match_indices(word).any(|(start, _)| {
        let end = start + word.len();
        let is_cut_before = is_part(word.chars().next()) && is_part(text[..start].chars().last());
        let is_cut_after = is_part(word.chars().last()) && is_part(text[end..].chars().next());
        !is_cut_before && !is_cut_after
    })
}

/// The source with everything but one part blanked, lines and columns kept.
fn part_of(source: &str, part: Part) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut text = String::with_capacity(source.len());
    let mut start = 0;
    while start < chars.len() {
        let (found, end) = lexeme(&chars, start);
        text.extend(
            chars[start..end].iter().map(|&c| if found == part || c == '\n' { c } else { ' ' }),
        );
        start = end;
    }
    text
}

/// What starts at a place, and where it ends.
fn lexeme(chars: &[char], start: usize) -> (Part, usize) {
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let find = |from: usize, wanted: &dyn Fn(usize) -> bool| {
        (from..chars.len()).find(|&place| wanted(place)).unwrap_or(chars.len())
    };
    match (at(start), at(start + 1)) {
        ('/', '/') => (Part::Comment, find(start, &|place| at(place) == '\n')),
        ('/', '*') => (Part::Comment, end_of_block_comment(chars, start)),
        ('"', _) => (Part::Text, end_of_quoted(chars, start, '"')),
        ('\'', next) if next == '\\' || at(start + 2) == '\'' => {
            (Part::Text, end_of_quoted(chars, start, '\''))
        }
        (first, _) if first.is_alphanumeric() || first == '_' => {
            let end = find(start, &|place| !at(place).is_alphanumeric() && at(place) != '_');
            let prefix: String = chars[start..end].iter().collect();
            let quote = find(end, &|place| at(place) != '#');
            if !matches!(&*prefix, "r" | "br" | "cr") || at(quote) != '"' {
                return (Part::Code, end);
            }
            let hashes = quote - end;
            let is_close = |place: usize| {
                at(place) == '"' && (1..=hashes).all(|number| at(place + number) == '#')
            };
            let close = find(quote + 1, &is_close);
            (Part::Text, (close + 1 + hashes).min(chars.len()))
        }
        _ => (Part::Code, start + 1),
    }
}

fn end_of_quoted(chars: &[char], start: usize, quote: char) -> usize {
    let mut place = start + 1;
    while place < chars.len() && chars[place] != quote {
        place += if chars[place] == '\\' { 2 } else { 1 };
    }
    (place + 1).min(chars.len())
}

/// Block comments nest.
fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut place, mut depth) = (start, 0);
    while place < chars.len() {
        match &chars[place..chars.len().min(place + 2)] {
            ['/', '*'] => depth += 1,
            ['*', '/'] => depth -= 1,
            _ => {
                place += 1;
                continue;
            }
        }
        place += 2;
        if depth == 0 {
            return place;
        }
    }
    chars.len()
}

/// Line, name and length of every function with a body, from its signature to its last brace.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let name: String =
            code[start + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let is_cut = code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if is_cut || name.is_empty() {
            continue;
        }
        let (mut brackets, mut braces) = (0, 0);
        for (place, char) in code[start..].char_indices() {
            match char {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets -= 1,
                '{' => braces += 1,
                '}' => braces -= 1,
                // A declaration of a trait.
                ';' if brackets == 0 && braces == 0 => break,
                _ => continue,
            }
            if char == '}' && brackets == 0 && braces == 0 {
                let line = 1 + code[..start].matches('\n').count();
                found.push((line, name, 1 + code[start..start + place].matches('\n').count()));
                break;
            }
        }
    }
    found
}

/// Every imported path in full, so that a rule sees `crate::store` in `use crate::{store, x}`.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("use ") {
        if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let Some(end) = code[start..].find(';') else { continue };
        let line = 1 + code[..start].matches('\n').count();
        let (mut prefixes, mut path) = (vec![String::new()], String::new());
        for char in code[start + 4..start + end].chars().filter(|c| !c.is_whitespace()) {
            let prefix = prefixes.last().cloned().unwrap_or_default();
            match char {
                '{' => prefixes.push(prefix + &std::mem::take(&mut path)),
                ',' => found.push((line, prefix + &std::mem::take(&mut path))),
                '}' => {
                    found.push((line, prefix + &std::mem::take(&mut path)));
                    prefixes.pop();
                }
                _ => path.push(char),
            }
        }
        found.push((line, prefixes.concat() + &path));
    }
    found
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
