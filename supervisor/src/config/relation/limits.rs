//! Limits that contradict each other, or give a slot more than the machine has.

use super::super::LoadOptions;
use super::super::job_type::{Confine, JobType};
use super::super::layers::Layers;
use super::super::problem::{Reason, Warning};
use super::super::unit::Size;

/// Processes that a slot has besides one per attempt: the worker, and a launcher.
const PIDS_OF_OURS: u32 = 2;

/// Refuses limits that cannot work. One that is larger than the machine never ends anything: where
/// limits are required that is refused, else it is a warning.
pub(super) fn check(
    (name, job_type): (&str, &JobType),
    layers: &mut Layers,
    machine: &LoadOptions,
) -> Vec<Warning> {
    let key = |end: &str| format!("types.{name}.{end}");
    let limits = &job_type.limits;
    let least = job_type.concurrency.saturating_add(PIDS_OF_OURS);
    if let Some(pids) = limits.pids.filter(|pids| *pids < least) {
        let concurrency = job_type.concurrency;
        let sentence = format!(
            "{pids} processes and threads are too few for {} = {concurrency}: at least {least} \
             are needed, one per attempt, the worker and a launcher",
            key("concurrency")
        );
        layers.refuse(&key("limits.pids"), Reason::Contradiction(sentence));
    }
    let above = job_type.recycle.above_memory;
    if let Some(memory) = limits.memory.filter(|memory| above.bytes() > memory.bytes()) {
        let limit = key("limits.memory");
        let sentence =
            format!("must be at most {limit}, which is {memory}: the worker is killed there");
        layers.refuse(&key("recycle.above_memory"), Reason::Contradiction(sentence));
    }
    let memory = limits.memory.zip(machine.memory_bytes);
    let memory = memory.filter(|(limit, has)| limit.bytes() > *has).map(|(_, has)| {
        let has = Size::from_bytes(has / (1 << 20) * (1 << 20));
        (key("limits.memory"), format!("is more than the memory of this machine, {has}"))
    });
    let cpu = limits.cpu.filter(|cpus| *cpus > f64::from(machine.cpus)).map(|_| {
        let has = machine.cpus;
        (key("limits.cpu"), format!("is more than the {has} CPUs that this machine offers"))
    });
    let mut warnings = Vec::new();
    for (key, sentence) in memory.into_iter().chain(cpu) {
        if job_type.confine == Confine::Require {
            let sentence = format!("{sentence}: a required limit must be one that can be reached");
            layers.refuse(&key, Reason::Contradiction(sentence));
        } else if let Some(origin) = layers.origin(&key) {
            let text = format!("{origin}: {key} {sentence}: it limits nothing");
            warnings.push(Warning { text });
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::super::super::{Config, LoadOptions};

    /// What is said of these keys of a type: refusals, or warnings.
    fn said(text: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!("[types.encode]\n{text}\n");
        std::fs::write(folder.path().join("shiftboss.toml"), text).expect("written");
        let mut options = LoadOptions::plain(folder.path());
        (options.cpus, options.memory_bytes) = (2, Some(8 << 30));
        let plain = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
        match Config::load(&options) {
            Ok((_, warnings)) => Ok(warnings.into_iter().map(|one| plain(one.text)).collect()),
            Err(error) => Err(plain(error.to_string())),
        }
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        let text = said("concurrency = 4\nlimits = { pids = 5 }").expect_err("refused");
        assert!(text.starts_with("shiftboss.toml:3: types.encode.limits.pids = 5: "), "{text}");
        assert!(text.contains("at least 6 are needed"), "{text}");
        said("concurrency = 4\nlimits = { pids = 6 }").expect("enough");
        let text = said("limits.memory = \"1GiB\"\nrecycle.above_memory = \"2GiB\"");
        let text = text.expect_err("refused");
        assert!(
            text.contains("must be at most types.encode.limits.memory, which is 1GiB"),
            "{text}"
        );
        for (memory, said_of) in
            [("0B", "at least 16MiB"), ("4", "expected"), ("-1GiB", "expected")]
        {
            let text = said(&format!("limits.memory = \"{memory}\"")).expect_err("refused");
            assert!(text.contains(said_of), "{text}");
        }
        said("limits.cpu = 0").expect_err("refused");
        said("limits.pids = \"64\"").expect_err("refused");
    }

    #[test]
    fn a_limit_above_what_the_machine_has_is_a_warning_with_both_values() {
        let warnings = said("limits = { memory = \"9GiB\", cpu = 2.5 }").expect("best-effort");
        assert_eq!(
            warnings,
            [
                "shiftboss.toml:2: types.encode.limits.memory is more than the memory of this \
                 machine, 8GiB: it limits nothing",
                "shiftboss.toml:2: types.encode.limits.cpu is more than the 2 CPUs that this \
                 machine offers: it limits nothing"
            ]
        );
        assert_eq!(said("limits = { memory = \"8GiB\", cpu = 2.0 }"), Ok(Vec::new()));
    }

    #[test]
    fn a_required_limit_above_what_the_machine_has_is_refused() {
        let text = said("confine = \"require\"\nlimits = { memory = \"9GiB\", cpu = 2.5 }");
        let text = text.expect_err("refused");
        for part in [
            "types.encode.limits.memory = \"9GiB\": is more than the memory of this machine, 8GiB",
            "types.encode.limits.cpu = 2.5: is more than the 2 CPUs",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
