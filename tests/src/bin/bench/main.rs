//! Measures the product, each figure beside what limits it in the same run. `cargo xtask bench
//! NAME`, where the name is one of those in [`BENCHES`] or `all`. What it prints is Markdown
//! and goes to tests/benches/RESULTS.md by hand.

mod cage;
mod control;
mod deaths;
mod encode;
mod figures;
mod film;
mod history;
mod idle;
mod ladder;
mod machine;
mod media;
mod peers;
mod pickup;
mod process;
mod remote;
mod restart;
mod throughput;

use figures::say;
use std::process::ExitCode;
use std::time::Instant;

/// All benches by name.
const BENCHES: [(&str, fn()); 16] = [
    ("pickup", pickup::pickup),
    ("throughput", throughput::throughput),
    ("idle", idle::idle),
    ("control", control::control),
    ("restart", restart::restart),
    ("adoption", deaths::adoption),
    ("rerun", deaths::rerun),
    ("resume", deaths::resume),
    ("history", history::history),
    ("cage", cage::cage),
    ("encode", encode::encode),
    ("ladder", ladder::ladder),
    ("remote", remote::remote),
    ("media", media::media),
    ("peers", media::peers),
    ("chunks", media::chunks),
];

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if let [first, path] = &wanted[..]
        && first == control::ECHO
    {
        return control::echo(path);
    }
    if wanted.is_empty() {
        wanted.push("all".to_owned());
    }
    let names: Vec<_> = BENCHES.iter().map(|(name, _)| *name).collect();
    let is_known = |name: &String| name == "all" || names.contains(&name.as_str());
    if let Some(unknown) = wanted.iter().find(|name| !is_known(name)) {
        say(&format!("no bench {unknown}: there are all, {}", names.join(", ")));
        return ExitCode::from(2);
    }
    machine::describe(&wanted);
    for (name, bench) in BENCHES {
        let is_part_of_all = !matches!(name, "media" | "peers" | "chunks");
        if wanted.iter().any(|one| one == name || (one == "all" && is_part_of_all)) {
            say(&format!("\n## `{name}`\n"));
            let start = Instant::now();
            bench();
            say(&format!("\n({name} took {:.0} s)", start.elapsed().as_secs_f64()));
        }
    }
    ExitCode::SUCCESS
}
