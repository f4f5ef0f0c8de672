//! What a program is started with: arguments, environment, working directory.

use super::group::Group;
use super::refusal::Refusals;
use super::{Place, Program};
use crate::attempt::AttemptContext;
use crate::launcher::{self, Access, CageOrder, Order, Shown, is_system, open_without_links};
use rustix::fs::{OFlags, Stat, fstat};
use shiftboss_protocol::confine::Confine;
use shiftboss_protocol::job::{Cause, Failure};
use shiftboss_protocol::message::Settings;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Where programs without a slash in their name are looked up.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names that nobody may forge: job, attempt and owner.
const MARKS: [&str; 3] = ["SHIFTBOSS_JOB", "SHIFTBOSS_ATTEMPT", "SHIFTBOSS_OWNER"];

/// How a program is started.
pub(super) struct Setting {
    /// The launcher's order, as a frame.
    pub(super) order: Vec<u8>,
    /// Entries of its environment that together no other attempt's programs have.
    pub(super) marks: Vec<Vec<u8>>,
    /// What is needed to tell why it was not started.
    pub(super) refusals: Refusals,
}

/// The launcher's order for `program`, and how what it starts is recognised.
pub(super) fn setting(
    context: &AttemptContext,
    program: &Program,
    group: Option<&Group>,
) -> Result<Setting, Failure> {
    let scratch = context.scratch()?;
    let name = program.argv.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| cannot_start("no program is named"))?;
    let cwd = program.cwd.as_deref().unwrap_or(&scratch);
    let env = environment(context, program, &scratch);
    let texts = program.argv.iter().chain(env.iter().flat_map(|(name, value)| [name, value]));
    if texts.map(|text| text.as_bytes()).chain([cwd.as_os_str().as_bytes()]).any(has_zero) {
        return Err(cannot_start("an argument, a variable or the folder holds a zero byte"));
    }
    if let Some((name, _)) = env.iter().find(|(name, _)| !is_variable(name)) {
        return Err(cannot_start(&format!("{name:?} is no name of an environment variable")));
    }
    let is_mark = |name: &OsString| MARKS.iter().any(|mark| name == mark);
    let entry =
        |(name, value): &(OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let marks = env.iter().filter(|(name, _)| is_mark(name)).map(entry).collect();
    let limits = context.settings();
    let cage = cage(limits, program, (cwd, &scratch))?;
    let refusals = Refusals::of(&cage);
    let order = Order {
        argv: program.argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
        env: env.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect(),
        cwd: cwd.as_os_str().as_bytes().to_vec(),
        group: group.map_or_else(Vec::new, |group| group.dir().as_os_str().as_bytes().to_vec()),
        cpu_seconds_max: cpu_seconds_max(context.state.timeout_ms, limits.program_cpus_max),
        files_max: limits.program_files_max,
        file_bytes_max: limits.program_file_bytes_max,
        cage,
    };
    let order = launcher::encode(&order).map_err(|error| {
        cannot_start(&format!("arguments and environment of {name:?} are too large: {error}"))
    })?;
    Ok(Setting { order, marks, refusals })
}

/// What the program sees and reaches.
fn cage(
    settings: &Settings,
    program: &Program,
    (cwd, scratch): (&Path, &Path),
) -> Result<CageOrder, Failure> {
    let mut seen = Seen::default();
    seen.add(&Place::from(scratch), Access::Write)?;
    for place in &program.write {
        seen.add(place, Access::Write)?;
    }
    for place in &program.read {
        seen.add(place, Access::Read)?;
    }
    // Neither is a reason of its own to refuse: what does not exist is told when it is started.
    let own = program.argv.first().map(Path::new).filter(|path| path.is_absolute());
    for path in [Some(cwd), own].into_iter().flatten().filter(|path| path.exists()) {
        if !seen.shows(path) {
            seen.add(&Place::from(path), Access::Read)?;
        }
    }
    Ok(CageOrder {
        shown: seen.0,
        network: settings.network.clone(),
        devices: settings.devices.iter().map(|path| path.as_bytes().to_vec()).collect(),
        processes_max: settings.program_processes_max,
        is_required: settings.confine == Confine::Require,
        lacks: lacks(),
    })
}

/// What was put together so far.
#[derive(Default)]
struct Seen(Vec<Shown>);

impl Seen {
    fn shows(&self, path: &Path) -> bool {
        let below = |shown: &Shown| path.starts_with(OsStr::from_bytes(&shown.path));
        is_system(path) || self.0.iter().any(below)
    }

    /// Shows a place under both its names, and remembers which file it is: what is shown is
    /// what was checked, whatever its name means by then.
    fn add(&mut self, place: &Place, access: Access) -> Result<(), Failure> {
        let Place { named, real } = place;
        let failed = |reason: &str| {
            let message = format!("cannot show {} to a program: {reason}", named.display());
            Err(Failure::permanent(Cause::FailedStart, message))
        };
        if real.parent().is_none() || named.parent().is_none() {
            return failed("the root of all files holds the supervisor's own");
        }
        let stat = match look(real) {
            Ok(stat) => stat,
            Err(error) => return failed(&error.to_string()),
        };
        let mut both = vec![real];
        if named != real {
            both.push(named);
        }
        for path in both {
            // Read-only they are shown anyway.
            if access == Access::Read && is_system(path) {
                continue;
            }
            self.0.push(Shown {
                path: path.as_os_str().as_bytes().to_vec(),
                real: real.as_os_str().as_bytes().to_vec(),
                device: stat.st_dev,
                inode: stat.st_ino,
                access,
            });
        }
        Ok(())
    }
}

/// The file at a path that holds no link.
fn look(real: &Path) -> io::Result<Stat> {
    Ok(fstat(open_without_links(real, OFlags::PATH | OFlags::CLOEXEC)?)?)
}

/// Parts of a cage that a test wants to be missing.
#[cfg(debug_assertions)]
pub(crate) fn lacks() -> Vec<String> {
    let text = std::env::var("SHIFTBOSS_TEST_CAGE_LACKS").unwrap_or_default();
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Nothing: this is no debug build.
#[cfg(not(debug_assertions))]
pub(crate) fn lacks() -> Vec<String> {
    Vec::new()
}

/// CPU time that no honest process of an attempt can use: what all CPUs that it may use give it
/// until its timeout, and a minute. It ends what goes on where nobody is left to watch the clock.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "far below 2^53 seconds; `as` saturates"
)]
fn cpu_seconds_max(timeout_ms: u64, cpus_max: f64) -> u64 {
    if timeout_ms == 0 {
        return 0;
    }
    let host = std::thread::available_parallelism().map_or(1, |cpus| cpus.get()) as f64;
    let cpus = if cpus_max > 0.0 { cpus_max.min(host) } else { host };
    ((timeout_ms.div_ceil(1_000) + 60) as f64 * cpus.max(1.0)).ceil() as u64
}

/// The fixed variables, then the program's own, then those that nobody may forge: the later
/// one wins.
fn environment(
    context: &AttemptContext,
    program: &Program,
    scratch: &Path,
) -> Vec<(OsString, OsString)> {
    let (job, attempt) = context.state.key;
    let mut env: Vec<(OsString, OsString)> = [
        ("PATH", OsStr::new(PATH)),
        ("HOME", scratch.as_os_str()),
        ("TMPDIR", scratch.as_os_str()),
        ("LANG", OsStr::new("C.UTF-8")),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    env.extend(program.env.iter().cloned());
    // A program's own value for one of these would be no mark.
    env.retain(|(name, _)| MARKS.iter().all(|mark| name != mark));
    let values = [job.to_string(), attempt.to_string(), context.state.owner()];
    env.extend(MARKS.iter().zip(values).map(|(name, value)| (name.into(), value.into())));
    env
}

fn has_zero(text: &[u8]) -> bool {
    text.contains(&0)
}

/// What `setenv` accepts.
fn is_variable(name: &OsStr) -> bool {
    !name.is_empty() && !name.as_bytes().contains(&b'=')
}

pub(super) fn cannot_start(reason: &str) -> Failure {
    Failure::permanent(Cause::FailedStart, format!("cannot start a program: {reason}"))
}
