//! Who the program is, what it was given, and whether it can become more than that.

use super::super::kernel::{Arg, call, numbers};
use super::{Attempt, Scene, attempt, must_fail};
use crate::selftest::verdict::{Denial, Outcome};
use std::path::Path;
use std::process::{Command, Stdio};

/// Refused, also because that user does not exist in here.
const NO_SUCH_USER: Denial =
    Denial::Errno(&[libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EINVAL]);

/// A file of /proc that cannot be written, whoever one is.
const NOT_WRITABLE: Denial = Denial::Errno(&[libc::EPERM, libc::EACCES, libc::EROFS, libc::ENOENT]);

/// Variables that every program gets.
const VARIABLES: [&str; 7] =
    ["PATH", "HOME", "TMPDIR", "LANG", "SHIFTBOSS_JOB", "SHIFTBOSS_ATTEMPT", "SHIFTBOSS_OWNER"];
/// What the shell adds that starts us in place of ffmpeg.
const OF_SHELLS: [&str; 4] = ["PWD", "OLDPWD", "SHLVL", "_"];

pub(super) const ATTEMPTS: &[Attempt] = &[
    attempt("descriptors", "find inherited descriptors", Denial::Seen, |scene| {
        match scene.inherited.first() {
            Some(_) => Outcome::Got(format!("{:?} are open", scene.inherited)),
            None => Outcome::Held("none".to_owned()),
        }
    }),
    attempt("streams", "find more in its standard streams", Denial::Seen, |_| streams()),
    attempt("environment", "find foreign variables", Denial::Seen, |_| environment()),
    attempt("capabilities", "have a capability in any set", Denial::Seen, |_| capabilities()),
    attempt("bounding-set", "have a capability to be gained by exec", Denial::Seen, |_| {
        bounding_set()
    }),
    attempt("ambient-set", "have a capability that exec keeps", Denial::Seen, |_| ambient_set()),
    attempt("new-privileges", "be allowed new privileges", Denial::Seen, |_| {
        match numbers(libc::SYS_prctl, &[i64::from(libc::PR_GET_NO_NEW_PRIVS), 0, 0, 0, 0]) {
            Ok(1) => Outcome::Held("no_new_privs is set".to_owned()),
            other => Outcome::Got(format!("no_new_privs is {other:?}")),
        }
    }),
    attempt("filter", "be without a seccomp filter", Denial::Seen, |_| {
        match numbers(libc::SYS_prctl, &[i64::from(libc::PR_GET_SECCOMP), 0, 0, 0, 0]) {
            Ok(2) => Outcome::Held("mode 2".to_owned()),
            other => Outcome::Got(format!("mode {other:?}")),
        }
    }),
    attempt("secure-bits", "keep capabilities over a change of user", Denial::Seen, |_| {
        // SECBIT_KEEP_CAPS set by the short way, then a change of user that would keep them.
        let keep = numbers(libc::SYS_prctl, &[i64::from(libc::PR_SET_KEEPCAPS), 1, 0, 0, 0]);
        match (keep, permitted()) {
            (_, Ok(0)) => Outcome::Held("there are none to keep".to_owned()),
            (keep, sets) => Outcome::Got(format!("{keep:?}, permitted {sets:?}")),
        }
    }),
    attempt("other-user", "become another user", NO_SUCH_USER, |_| {
        must_fail(numbers(libc::SYS_setresuid, &[1, 1, 1]))
    }),
    attempt("other-group", "become another group", NO_SUCH_USER, |_| {
        must_fail(numbers(libc::SYS_setresgid, &[1, 1, 1]))
    }),
    attempt("other-groups", "take other groups", NO_SUCH_USER, |_| {
        let mut group = 6_u32.to_ne_bytes();
        must_fail(call(libc::SYS_setgroups, &mut [Arg::Number(1), Arg::Bytes(&mut group)]))
    }),
    attempt("map-users", "write its map of users", NOT_WRITABLE, |_| {
        must_fail(std::fs::write("/proc/self/uid_map", "0 0 1"))
    }),
    attempt("setuid-copy", "gain by a setuid program in an input folder", Denial::Seen, |scene| {
        setuid_copy(scene)
    }),
    attempt("su", "gain by su", Denial::Seen, |_| {
        gain(&["/usr/bin/su", "/bin/su"], &["root", "-c", "test -r /etc/shadow"])
    }),
    attempt("sudo", "gain by sudo", Denial::Seen, |_| {
        gain(&["/usr/bin/sudo"], &["-n", "test", "-r", "/etc/shadow"])
    }),
    attempt("mount-program", "gain by mount", Denial::Seen, |_| {
        let _ = std::fs::create_dir("mount-program");
        let arguments = ["-t", "tmpfs", "none", "mount-program"];
        let outcome = gain(&["/usr/bin/mount", "/bin/mount"], &arguments);
        if matches!(outcome, Outcome::Got(_)) {
            let _ = Command::new("umount").arg("mount-program").status();
        }
        outcome
    }),
    attempt("more-files", "raise its own limit of open files", Denial::Seen, |_| {
        raise(libc::RLIMIT_NOFILE)
    }),
    attempt("core-dumps", "have its memory dumped", Denial::Seen, |_| raise(libc::RLIMIT_CORE)),
    attempt("terminal", "reach a terminal", Denial::Seen, |_| {
        match std::fs::File::open("/dev/tty") {
            Ok(_) => Outcome::Got("/dev/tty can be opened".to_owned()),
            Err(error) => Outcome::Held(error.to_string()),
        }
    }),
];

/// A pipe or /dev/null and nothing else.
fn streams() -> Outcome {
    for number in 0..3 {
        let kind = std::fs::read_link(format!("/proc/self/fd/{number}"));
        let Ok(kind) = kind else { continue };
        let text = kind.to_string_lossy();
        if !text.starts_with("pipe:") && text != "/dev/null" {
            return Outcome::Got(format!("{number} is {text}"));
        }
    }
    Outcome::Held("pipes and /dev/null".to_owned())
}

fn environment() -> Outcome {
    let known = |name: &str| VARIABLES.contains(&name) || OF_SHELLS.contains(&name);
    let foreign: Vec<String> = std::env::vars_os()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .filter(|name| !known(name))
        .collect();
    match foreign.is_empty() {
        true => Outcome::Held("none".to_owned()),
        false => Outcome::Got(foreign.join(", ")),
    }
}

/// Effective, permitted and inheritable sets, as one number that is 0 when all are empty.
fn permitted() -> std::io::Result<u64> {
    // Version 3 of the header, for this process.
    let mut header = [0; 8];
    header[..4].copy_from_slice(&0x2008_0522_u32.to_ne_bytes());
    let mut sets = [0; 24];
    call(libc::SYS_capget, &mut [Arg::Bytes(&mut header), Arg::Bytes(&mut sets)])?;
    Ok(sets.iter().fold(0, |all, byte| all | u64::from(*byte)))
}

fn capabilities() -> Outcome {
    match permitted() {
        Ok(0) => Outcome::Held("all sets are empty".to_owned()),
        Ok(_) => Outcome::Got("a set is not empty".to_owned()),
        Err(error) => Outcome::Unable(error.to_string()),
    }
}

fn bounding_set() -> Outcome {
    let has = |number: i64| {
        numbers(libc::SYS_prctl, &[i64::from(libc::PR_CAPBSET_READ), number, 0, 0, 0])
            .is_ok_and(|answer| answer == 1)
    };
    match (0..64).filter(|number| has(*number)).count() {
        0 => Outcome::Held("it is empty".to_owned()),
        count => Outcome::Got(format!("{count} capabilities")),
    }
}

fn ambient_set() -> Outcome {
    let ask = i64::from(libc::PR_CAP_AMBIENT_IS_SET);
    let has = |number: i64| {
        numbers(libc::SYS_prctl, &[i64::from(libc::PR_CAP_AMBIENT), ask, number, 0, 0])
            .is_ok_and(|answer| answer == 1)
    };
    match (0..64).filter(|number| has(*number)).count() {
        0 => Outcome::Held("it is empty".to_owned()),
        count => Outcome::Got(format!("{count} capabilities")),
    }
}

/// The copy prints its effective user, which must be that of this process.
fn setuid_copy(scene: &Scene) -> Outcome {
    let output = Command::new(&scene.plan.setuid_copy).arg("-u").stdin(Stdio::null()).output();
    let said = match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => return Outcome::Held(format!("it cannot be executed: {error}")),
    };
    let own = numbers(libc::SYS_geteuid, &[]).unwrap_or(-1).to_string();
    if said == own {
        Outcome::Held(format!("it is user {own} as before"))
    } else if said.is_empty() {
        Outcome::Held("it ended without a word".to_owned())
    } else {
        Outcome::Got(format!("it is user {said} instead of {own}"))
    }
}

/// Runs the first program that is there; it must fail.
fn gain(programs: &[&str], arguments: &[&str]) -> Outcome {
    let Some(program) = programs.iter().find(|program| Path::new(program).exists()) else {
        return Outcome::Held("there is none".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Outcome::Got("it did as it was told".to_owned()),
        Ok(status) => Outcome::Held(status.to_string()),
        Err(error) => Outcome::Held(error.to_string()),
    }
}

/// Raises the hard limit by one.
fn raise(resource: libc::__rlimit_resource_t) -> Outcome {
    let number = i64::from(resource);
    let mut limit = [0; 16];
    let asked = call(
        libc::SYS_prlimit64,
        &mut [Arg::Number(0), Arg::Number(number), Arg::Number(0), Arg::Bytes(&mut limit)],
    );
    if let Err(error) = asked {
        return Outcome::Unable(error.to_string());
    }
    let hard = u64::from_ne_bytes(limit[8..].try_into().expect("half of 16 bytes"));
    if hard == u64::MAX {
        return Outcome::Got("it has no limit".to_owned());
    }
    let mut raised = [(hard + 1).to_ne_bytes(), (hard + 1).to_ne_bytes()].concat();
    let set = call(
        libc::SYS_prlimit64,
        &mut [Arg::Number(0), Arg::Number(number), Arg::Bytes(&mut raised), Arg::Number(0)],
    );
    match set {
        Ok(_) => Outcome::Got(format!("raised above {hard}")),
        Err(error) => Outcome::Held(format!("{hard} is the most: {error}")),
    }
}
