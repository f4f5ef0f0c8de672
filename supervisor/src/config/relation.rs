//! Rules between values: a value that is fine alone and contradicts another, the machine, or
//! what this version can do.
//!
//! Where only one of two related values was written, the default of the other gives way:
//! `workers = { min = 4 }` alone raises `max` to 4. Two written values are never bent.

mod limits;

use super::job_type::{Confine, JobType, WORKLOADS};
use super::layers::Layers;
use super::place;
use super::problem::{ConfigError, Origin, Problem, Reason};
use super::{Config, LoadOptions, Warning};
use crate::os::ladder::Rung;
use crate::policy::settings::require::{Need, Piece, Wanted, unmet};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Bytes that the runtime directory and the name of the instance may have together: a socket's
/// path has at most 107, and our sockets need up to 24 below the instance's directory.
const RUNTIME_BYTES_MAX: usize = 82;

/// Checks everything, and lets defaults give way. Returns what is allowed and probably not meant.
pub(crate) fn check(
    config: &mut Config,
    layers: &mut Layers,
    machine: &LoadOptions,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let poll = &mut config.poll;
    order(layers, ("poll.idle_min", &mut poll.idle_min), ("poll.idle_max", &mut poll.idle_max));
    let repeats = types_that_repeat(&config.types);
    for (name, job_type) in &mut config.types {
        check_numbers(name, job_type, layers);
        if repeats.contains(name) {
            continue;
        }
        check_workload(name, job_type, layers);
        check_devices(name, job_type, layers);
        warnings.extend(limits::check((name, job_type), layers, machine));
    }
    check_places(config, layers);
    warnings.extend(missing_roots(config));
    warnings
}

/// `keying` where it is `encode` under another name: what is wrong with that is said once.
fn types_that_repeat(types: &BTreeMap<String, JobType>) -> Vec<String> {
    let both = types.get("encode").zip(types.get("keying"));
    let is_same = |(encode, keying): (&JobType, &JobType)| {
        *keying == JobType { priority: keying.priority, ..encode.clone() }
    };
    if both.is_some_and(is_same) { vec!["keying".to_owned()] } else { Vec::new() }
}

/// Allowed, because a disk may be mounted later; and a word that is easily mistyped.
fn missing_roots(config: &Config) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let repeats = types_that_repeat(&config.types);
    for (name, one) in config.types.iter().filter(|(name, _)| !repeats.contains(name)) {
        for (end, roots) in [("read", &one.roots.read), ("write", &one.roots.write)] {
            for root in roots.iter().filter(|root| !root.exists()) {
                let root = root.display();
                let text = format!(
                    "types.{name}.roots.{end}: {root} does not exist: jobs that name a path in it \
                     fail until it does"
                );
                warnings.push(Warning { text });
            }
        }
    }
    warnings
}

impl Config {
    /// Refuses each type that requires what a host with this ladder cannot enforce.
    ///
    /// # Errors
    /// [`ConfigError::Refused`], naming for each key what is missing and its remedy.
    pub fn check_host(&self, ladder: &[Rung]) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let repeats = types_that_repeat(&self.types);
        let own = self.types.iter().filter(|(name, _)| !repeats.contains(name));
        for (name, one) in own.filter(|(_, one)| one.confine == Confine::Require) {
            for need in unmet_by(one, ladder) {
                problems.push(self.unmet_need(name, &need, ladder));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Refused(problems)) }
    }

    fn unmet_need(&self, name: &str, need: &Need, ladder: &[Rung]) -> Problem {
        let key = format!("types.{name}.{}", need.key);
        let confine = format!("types.{name}.confine");
        let origins = [&key, &confine].map(|key| self.origin(key));
        let origin = origins.into_iter().find(|origin| *origin != Origin::Default);
        let missing = need.any_of.iter().filter_map(|piece| rung_of(ladder, *piece));
        let told = |rung: &Rung| format!("{} ({}): {}", rung.name, rung.found, rung.remedy);
        let missing: Vec<_> = missing.map(told).collect();
        let sentence = format!(
            "\"require\" needs what this host does not offer: {}; or write confine = \
             \"best-effort\"",
            missing.join("; or ")
        );
        Problem {
            origin: origin.unwrap_or(Origin::Default),
            key: Some(key),
            value: None,
            reason: Reason::NotOffered(sentence),
            excerpt: None,
        }
    }

    /// What the work of each type that runs goes without on a host with this ladder.
    #[must_use]
    pub fn lacks(&self, ladder: &[Rung]) -> BTreeMap<String, Vec<Piece>> {
        let lacks = |(name, one): (&String, &JobType)| {
            let needs = unmet_by(one, ladder);
            let pieces: Vec<_> = needs.iter().map(|need| need.any_of[0]).collect();
            (!pieces.is_empty()).then(|| (name.clone(), pieces))
        };
        self.types.iter().filter_map(lacks).collect()
    }
}

/// A type that is switched off runs nothing, and needs nothing.
fn unmet_by(one: &JobType, ladder: &[Rung]) -> Vec<Need> {
    if !one.enabled {
        return Vec::new();
    }
    let wanted = Wanted {
        network: (&one.network).into(),
        memory: one.limits.memory.is_some(),
        cpu: one.limits.cpu.is_some(),
        cpu_weight: one.limits.cpu_weight.is_some(),
        pids: one.limits.pids.is_some(),
        io_read: one.limits.io_read.is_some(),
        io_write: one.limits.io_write.is_some(),
    };
    unmet(&wanted, |piece| rung_of(ladder, piece).is_some_and(|rung| !rung.offered))
}

fn rung_of(ladder: &[Rung], piece: Piece) -> Option<&Rung> {
    ladder.iter().find(|rung| rung.piece == piece)
}

fn check_numbers(name: &str, job_type: &mut JobType, layers: &mut Layers) {
    let key = |end: &str| format!("types.{name}.{end}");
    let workers = &mut job_type.workers;
    let (min, max, warm) = (key("workers.min"), key("workers.max"), key("workers.warm"));
    order(layers, (&min, &mut workers.min), (&max, &mut workers.max));
    order(layers, (&warm, &mut workers.warm), (&max, &mut workers.max));
    let retry = &mut job_type.retry;
    order(layers, (&key("retry.base"), &mut retry.base), (&key("retry.max"), &mut retry.max));
    let restart = &mut job_type.restart;
    let (base, max) = (key("restart.base"), key("restart.max"));
    order(layers, (&base, &mut restart.base), (&max, &mut restart.max));
}

/// Holds `low <= high`. A contradiction is told at `low`.
fn order<T: PartialOrd + Copy + Display>(
    layers: &mut Layers,
    (low_key, low): (&str, &mut T),
    (high_key, high): (&str, &mut T),
) {
    if *low <= *high {
        return;
    }
    match (layers.origin(low_key), layers.origin(high_key)) {
        (Some(_), Some(origin)) => {
            let sentence = format!("must be at most {high_key}, which is {high} ({origin})");
            layers.refuse(low_key, Reason::Contradiction(sentence));
        }
        (None, Some(_)) => *low = *high,
        (_, None) => *high = *low,
    }
}

fn check_workload(name: &str, job_type: &JobType, layers: &mut Layers) {
    let key = format!("types.{name}.workload");
    let is_ours = WORKLOADS.contains(&job_type.workload.as_str());
    if job_type.worker.is_some() || is_ours {
        return;
    }
    let reason = if layers.origin(&key).is_some() {
        let known = WORKLOADS.join("\", \"");
        Reason::Expected(format!("\"{known}\", or another one together with `worker`"))
    } else {
        let nearest = WORKLOADS
            .into_iter()
            .max_by(|a, b| strsim::jaro(name, a).total_cmp(&strsim::jaro(name, b)))
            .expect("there are workloads");
        let sentence =
            format!("a new type needs `workload` or `worker`, or was types.{nearest} meant");
        Reason::Contradiction(sentence)
    };
    layers.refuse(&key, reason);
}

/// A device must be there when a job needs it, and must be what its name promises.
fn check_devices(name: &str, job_type: &JobType, layers: &mut Layers) {
    for device in &job_type.devices {
        let shown = device.display();
        let sentence = match std::fs::symlink_metadata(device) {
            Err(error) => format!("cannot look at {shown}: {error}"),
            Ok(facts) if facts.is_symlink() => match std::fs::canonicalize(device) {
                Ok(real) => format!("{shown} is a link: name {}, where it leads", real.display()),
                Err(error) => format!("{shown} is a link that leads nowhere: {error}"),
            },
            Ok(facts) if facts.file_type().is_char_device() => continue,
            // It would give whatever lies on the disk, whoever owns it.
            Ok(facts) if facts.file_type().is_block_device() => {
                format!("{shown} is a block device, only character devices can be granted")
            }
            Ok(_) => format!("{shown} is no device"),
        };
        layers.refuse(&format!("types.{name}.devices"), Reason::Contradiction(sentence));
    }
}

fn check_places(config: &Config, layers: &mut Layers) {
    let refuse = |layers: &mut Layers, key: &str, sentence: String| {
        layers.refuse(key, Reason::Contradiction(sentence));
    };
    if config.database.is_dir() {
        let sentence = format!("{} is a directory", config.database.display());
        refuse(layers, "database", sentence);
    }
    let bytes = config.runtime_dir.as_os_str().len() + 1 + config.instance.len();
    if bytes > RUNTIME_BYTES_MAX {
        let path = config.runtime_dir.join(&config.instance);
        let sentence = format!(
            "{} has {bytes} bytes, sockets need a directory of at most {RUNTIME_BYTES_MAX}",
            path.display()
        );
        refuse(layers, "runtime_dir", sentence);
    }
    let database = place::real_path(&config.database);
    for (key, folder) in [("work_dir", &config.work_dir), ("runtime_dir", &config.runtime_dir)] {
        if place::real_path(folder) == database {
            refuse(layers, key, "is the database itself".into());
        }
    }
    let private = config.private_paths();
    for (name, job_type) in &config.types {
        let roots = &job_type.roots;
        for (end, roots) in [("read", &roots.read), ("write", &roots.write)] {
            let owner = |root: &Path| private.iter().find(|path| root.starts_with(path));
            for root in roots {
                if let Some(path) = owner(root) {
                    let (root, path) = (root.display(), path.display());
                    let sentence = format!("{root} lies in {path}, which no payload may name");
                    refuse(layers, &format!("types.{name}.roots.{end}"), sentence);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, LoadOptions};
    use super::*;
    use std::path::PathBuf;

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path: PathBuf = folder.path().join("shiftboss.toml");
        std::fs::write(&path, text).expect("written");
        let loaded = Config::load(&LoadOptions::plain(folder.path()));
        let own = format!("{}/", folder.path().display());
        loaded.map(|(config, _)| config).map_err(|error| error.to_string().replace(&own, ""))
    }

    fn refusal(text: &str) -> String {
        let all = load(text).expect_err(text);
        all.lines().next().expect("a sentence").to_owned()
    }

    #[test]
    fn two_written_values_that_contradict_are_refused_naming_both() {
        assert_eq!(
            refusal("[poll]\nidle_min = \"10s\"\nidle_max = \"5s\""),
            "shiftboss.toml:2: poll.idle_min = \"10s\": must be at most poll.idle_max, which is \
             5s (shiftboss.toml:3)"
        );
        for (section, low) in [
            ("workers = { min = 3, max = 2 }", "workers.min = 3"),
            ("workers = { warm = 3, max = 2 }", "workers.warm = 3"),
            ("retry = { base = \"2m\", max = \"1m\" }", "retry.base = \"2m\""),
            ("restart = { base = \"2m\", max = \"1m\" }", "restart.base = \"2m\""),
        ] {
            let text = refusal(&format!("[types.encode]\n{section}"));
            let start = format!("shiftboss.toml:2: types.encode.{low}: must be at most");
            assert!(text.starts_with(&start), "{text}");
        }
    }

    #[test]
    fn a_default_gives_way_to_what_was_written() {
        let config = load(
            "poll.idle_min = \"10m\"\n[types.encode]\nworkers = { min = 4 }\n\
             retry.max = \"100ms\"\n[types.noop.workers]\nwarm = 3",
        )
        .expect("accepted");
        assert_eq!(config.poll.idle_max.to_string(), "10m");
        assert_eq!(config.types["encode"].workers.max, 4);
        assert_eq!(config.types["encode"].retry.base.to_string(), "100ms");
        assert_eq!(config.types["noop"].workers.max, 3);
    }

    #[test]
    fn a_new_type_needs_something_to_run() {
        let text = refusal("[types.encod]\nconcurrency = 2");
        assert!(text.contains("needs `workload` or `worker`, or was types.encode"), "{text}");
        let text = refusal("[types.x]\nworkload = \"paint\"");
        assert!(text.contains("types.x.workload = \"paint\": expected \"command\""), "{text}");
        let config = load("[types.x]\nworker = \"./paint\"\n[types.y]\nworkload = \"noop\"")
            .expect("accepted");
        assert_eq!(config.types["x"].workload, "x");
        assert!(config.types["x"].worker.as_ref().is_some_and(|path| path.is_absolute()));
        assert_eq!(config.types["y"].concurrency, 64);
    }

    fn rung(piece: Piece, offered: bool) -> Rung {
        let found = "EPERM".to_owned();
        Rung { piece, name: "this", offered, found, remedy: "ask for it" }
    }

    #[test]
    fn what_a_type_requires_and_this_host_lacks_is_refused_with_the_remedy() {
        let text = "[types.encode]\nconfine = \"require\"\nlimits.memory = \"1GiB\"\n\
                    network = \"host\"\n[types.noop]\nnetwork = \"host\"\n[types.command]\n\
                    enabled = false\nconfine = \"require\"";
        let config = load(text).expect("accepted anywhere");
        let ladder = |seccomp, memory| {
            [rung(Piece::Seccomp, seccomp), rung(Piece::Memory, memory), rung(Piece::NetNs, false)]
        };
        config.check_host(&ladder(true, true)).expect("all that is needed is there");
        let error = config.check_host(&ladder(false, false)).expect_err("two things are not");
        let text = error.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].contains("shiftboss.toml:2: types.encode.confine: \"require\" "),
            "{text}"
        );
        assert!(lines[0].ends_with("(EPERM): ask for it; or write confine = \"best-effort\""));
        assert!(lines[1].contains("shiftboss.toml:3: types.encode.limits.memory: "), "{text}");
        let lacks = config.lacks(&ladder(false, true));
        assert_eq!(lacks["noop"], [Piece::Seccomp]);
        assert!(!lacks.contains_key("command"), "it is switched off");
    }

    #[test]
    fn keying_is_encode_once_more_and_goes_first() {
        let limits = "[types.encode]\npriority = 5\nconfine = \"require\"\nworkers.max = 7";
        let config = load(limits).expect("accepted");
        let (encode, keying) = (&config.types["encode"], &config.types["keying"]);
        assert_eq!(*keying, JobType { priority: 15, ..encode.clone() });
        let text = format!("{limits}\n[types.keying]\npriority = -1");
        let config = load(&text).expect("accepted");
        let keying = &config.types["keying"];
        assert_eq!((keying.priority, keying.workers.max), (-1, 7));
        let own = "[types.encode]\npriority = 5\n[types.keying]\nworker = \"./keyer\"";
        let config = load(own).expect("accepted");
        let keying = &config.types["keying"];
        assert_eq!((&*keying.workload, keying.priority), ("keying", 0));
    }

    #[test]
    fn a_root_that_does_not_exist_is_told_and_allowed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (there, gone) = (folder.path().display(), folder.path().join("gone"));
        let text = format!("[types.encode]\nroots = {{ read = [\"{there}\", {gone:?}] }}");
        std::fs::write(folder.path().join("shiftboss.toml"), text).expect("written");
        let (_, warnings) = Config::load(&LoadOptions::plain(folder.path())).expect("allowed");
        let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let [only] = told.as_slice() else { panic!("{told:?}") };
        assert!(
            only.contains(&format!("types.encode.roots.read: {} does", gone.display())),
            "{only}"
        );
    }

    #[test]
    fn devices_that_a_job_could_not_use_are_refused_with_their_line() {
        for (device, why) in [
            ("/dev/shiftboss-none", "cannot look at /dev/shiftboss-none: No such file"),
            ("/dev/fd", "/dev/fd is a link: name /proc/"),
            ("/dev/shm", "/dev/shm is no device"),
        ] {
            let text = refusal(&format!("[types.encode]\ndevices = [\"{device}\"]"));
            let start = format!("shiftboss.toml:2: types.encode.devices = [\"{device}\"]: {why}");
            assert!(text.starts_with(&start), "{text}");
        }
        load("[types.encode]\ndevices = [\"/dev/null\"]").expect("accepted");
    }

    #[test]
    fn places_that_cannot_work_are_refused() {
        let text = refusal("database = \"/tmp\"");
        assert!(text.contains("/tmp is a directory"), "{text}");
        let text = refusal(&format!("runtime_dir = \"/{}\"", "r".repeat(90)));
        assert!(text.contains("sockets need a directory of at most 82"), "{text}");
        let text = refusal("database = \"a.db\"\nwork_dir = \"a.db\"");
        assert!(text.contains("work_dir = ") && text.contains("is the database"), "{text}");
        let text = refusal("work_dir = \"/w\"\n[types.encode]\nroots = { read = [\"/w/in\"] }");
        assert!(text.contains("/w/in lies in /w, which no payload may name"), "{text}");
    }

    #[test]
    fn contradictions_are_reported_together() {
        let all = load("[types.a]\nconcurrency = 2\n[types.b]\ndevices = [\"/dev/no\"]\n")
            .expect_err("refused");
        let sentences = all.lines().filter(|line| line.contains(": types.")).count();
        assert_eq!(sentences, 3, "{all}");
    }
}
