//! `shiftboss selftest`: a hostile program runs as a job and tries what a taken-over ffmpeg would
//! try. It reports what it saw; the host looks at baits, listeners and processes; [`verdict`]
//! judges. An attempt that could not be made is a failure.
//!
//! [`hostile`] and [`attempts`] run inside the cage; the rest runs outside.

mod attempts;
mod hostile;
mod instance;
mod kernel;
mod listeners;
mod phases;
mod plan;
mod report;
mod stand_in;
mod verdict;
mod world;

pub use report::{Counts, Row, count};
pub use verdict::Verdict;

use crate::config::Config;
use instance::Instance;
use phases::Stand;
use plan::{Phase, Plan, Victim};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use world::World;

/// What is to be tested, and where.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Job types; empty: every type that runs programs.
    pub types: Vec<String>,
    /// With the supervisor that runs, not with a private one.
    pub live: bool,
    /// Without any cage, to see that the attempts would get through.
    pub outside: bool,
    /// Leave the staged world behind.
    pub keep: bool,
}

/// What a self-test found.
#[derive(Debug)]
pub struct Report {
    /// One per attempt and type.
    pub rows: Vec<Row>,
    /// The staged world, if it was kept.
    pub kept: Option<PathBuf>,
}

/// `main` of the hostile program.
///
/// # Errors
/// Its plan cannot be read, or nobody reads its report.
pub fn be_hostile(plan: &Path) -> io::Result<()> {
    hostile::run(plan)
}

/// `main` of this program under the name of a tool that the hostile one stands for; `None` under
/// any other name.
#[must_use]
pub fn stand_in() -> Option<io::Result<()>> {
    stand_in::main(&std::env::args_os().collect::<Vec<_>>())
}

/// Runs the self-test. Call it while the process has one thread.
///
/// # Errors
/// A sentence that says why it could not be run; what was tried and not denied is in the report.
pub fn run(config: &Config, options: &Options) -> io::Result<Report> {
    let types = types_of(config, options)?;
    let program = std::env::current_exe()?;
    let parent = parent_of(config, options, &types);
    let world = World::build(&parent, &program, options.keep).map_err(|error| {
        io::Error::other(format!("cannot set the stage in {}: {error}", parent.display()))
    })?;
    let instance = if options.live {
        Instance::live(&program, config)?
    } else {
        Instance::private(&program, config, &world)?
    };
    let sibling_type = types.iter().find(|name| config.types[*name].workload == "command");
    let sibling_type = sibling_type.map_or("command", String::as_str);
    let (sibling, worker, victim) = instance.sibling(sibling_type)?;
    let scratch = config.work_dir.join("scratch").join(sibling_type).join(format!("{sibling}-1"));
    let plan = plan(&world, &instance, scratch, [instance.supervisor()?, worker, victim])?;
    let mut rows = Vec::new();
    if options.outside {
        rows = outside(&world, &plan)?;
    }
    for job_type in types.iter().filter(|_| !options.outside) {
        let plan = of_type(&plan, &instance.config, job_type);
        let limits = kernel_limits(victim.pid);
        let stand = Stand { world: &world, instance: &instance, plan: &plan, job_type };
        rows.extend(stand.run(limits)?);
    }
    instance.cancel(sibling)?;
    world.listeners.prove()?;
    let kept = options.keep.then(|| world.path(""));
    Ok(Report { rows, kept })
}

/// The types to test. The fake ffmpeg can only be given to a private supervisor.
fn types_of(config: &Config, options: &Options) -> io::Result<Vec<String>> {
    let runs_programs = |name: &String| {
        let job_type = &config.types[name];
        let is_tested = match job_type.workload.as_str() {
            "command" => true,
            "encode" => !options.live,
            _ => false,
        };
        is_tested && job_type.worker.is_none() && (job_type.enabled || !options.live)
    };
    let able: Vec<String> =
        config.types.keys().filter(|name| runs_programs(name)).cloned().collect();
    if let Some(strange) = options.types.iter().find(|name| !able.contains(name)) {
        return Err(io::Error::other(format!(
            "type {strange} cannot be tested{}: those that can are {}",
            if options.live { " in a running supervisor" } else { "" },
            able.join(", ")
        )));
    }
    let types = if options.types.is_empty() { able } else { options.types.clone() };
    if types.is_empty() {
        return Err(io::Error::other(
            "no type with workload command is enabled: a running supervisor can be tested with \
             such a type only; leave --live out to test a private one",
        ));
    }
    Ok(types)
}

/// The staged world lies where a type may read and write: below its roots in a running
/// supervisor, else among temporary files.
fn parent_of(config: &Config, options: &Options, types: &[String]) -> PathBuf {
    let root = types.first().and_then(|name| config.types[name].roots.write.first());
    match root.filter(|_| options.live) {
        Some(root) => root.clone(),
        None => std::env::temp_dir(),
    }
}

fn plan(
    world: &World,
    instance: &Instance,
    sibling_scratch: PathBuf,
    [supervisor, worker, sibling]: [Victim; 3],
) -> io::Result<Plan> {
    let config = &instance.config;
    let addresses = world.listeners.addresses()?;
    Ok(Plan {
        token: world.token.clone(),
        phase: Phase::Attempts,
        own_input: world.path("in").join("none.plan"),
        other_input: world.other_input(),
        outside: world.path("outside"),
        sibling_scratch,
        setuid_copy: world.setuid_copy(),
        output: world.path("out"),
        database: config.database.clone(),
        config: config.file.clone(),
        work_dir: config.work_dir.clone(),
        runtime_dir: config.instance_dir(),
        foreign_socket: world.path("service.sock"),
        abstract_name: world.token.clone(),
        tcp_port: addresses.tcp,
        multipath_port: addresses.multipath,
        fast_open_port: addresses.fast_open,
        udp_port: addresses.udp,
        tcp6_port: addresses.tcp6,
        memory_key: addresses.memory_key,
        cgroup_root: cgroup_root(),
        host_init_started: attempts::started(1),
        supervisor,
        worker,
        sibling,
        files_max: 1024,
        file_bytes_max: 0,
        flood_bytes: config.log.attempt_max.bytes() * 4,
    })
}

fn of_type(plan: &Plan, config: &Config, job_type: &str) -> Plan {
    let limits = &config.types[job_type].limits;
    Plan {
        files_max: limits.files.map_or(plan.files_max, u64::from),
        file_bytes_max: limits.file_size.map_or(0, crate::config::Size::bytes),
        ..plan.clone()
    }
}

fn cgroup_root() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })
}

/// Whether the kernel bounds memory and processes of a job's program: bombs explode only then.
fn kernel_limits(program: i32) -> Result<(), String> {
    let none = || "the kernel bounds neither memory nor processes of a job here".to_owned();
    let root = cgroup_root().ok_or_else(none)?;
    let own = std::fs::read_to_string(format!("/proc/{program}/cgroup")).map_err(|_| none())?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or_else(none)?;
    let is_bounded = |file: &str| {
        Path::new(own).ancestors().any(|group| {
            let inside = group.strip_prefix("/").unwrap_or(group);
            let text = std::fs::read_to_string(root.join(inside).join(file));
            text.is_ok_and(|text| text.trim().parse::<u64>().is_ok())
        })
    };
    if is_bounded("memory.max") && is_bounded("pids.max") { Ok(()) } else { Err(none()) }
}

/// The attempts without any cage, as a child of this process.
fn outside(world: &World, plan: &Plan) -> io::Result<Vec<Row>> {
    let plan = Plan { file_bytes_max: 8 << 20, ..plan.clone() };
    let input = world.write_plan("outside", Phase::Attempts, &plan)?;
    let scratch = world.path("scratch");
    std::fs::create_dir_all(&scratch)?;
    let output = Command::new(world.program())
        .args(["selftest", "--inside"])
        .arg(input)
        .current_dir(scratch)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    let (said, _) = report::read_lines(&String::from_utf8_lossy(&output.stdout));
    let mut proofs = world.traces(&plan);
    proofs.extend(world.listeners.arrived());
    Ok(report::rows("no cage", attempts::all(), &said, &proofs, false))
}
