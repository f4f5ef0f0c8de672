//! Reaches for other processes: the supervisor, a worker, the program of another job.

use super::super::kernel::{Arg, call, numbers};
use super::super::plan::Victim;
use super::reading::{of_init, started};
use super::{Attempt, FORBIDDEN, NO_PROCESS, attempt, must_fail};
use crate::selftest::verdict::{Denial, Outcome};
use std::io;

/// Signal numbers and requests: harmless ones, whose right is checked like that of the others.
const SIGNAL_NOTHING: i64 = 0;
const PTRACE_SEIZE: i64 = 0x4206;
const PTRACE_TRACEME: i64 = 0;

pub(super) const ATTEMPTS: &[Attempt] = &[
    attempt("signal-supervisor", "signal the supervisor", NO_PROCESS, |scene| {
        signal(scene.plan.supervisor)
    }),
    attempt("signal-worker", "signal a worker", NO_PROCESS, |scene| signal(scene.plan.worker)),
    attempt("signal-sibling", "signal another job's program", NO_PROCESS, |scene| {
        signal(scene.plan.sibling)
    }),
    attempt("signal-by-descriptor", "signal the supervisor over a pidfd", NO_PROCESS, |scene| {
        against(scene.plan.supervisor, |pid| {
            let open = numbers(libc::SYS_pidfd_open, &[pid, 0])?;
            numbers(libc::SYS_pidfd_send_signal, &[open, SIGNAL_NOTHING, 0, 0])
        })
    }),
    attempt("trace-supervisor", "trace the supervisor", NO_PROCESS, |scene| {
        trace(scene.plan.supervisor)
    }),
    attempt("trace-worker", "trace a worker", NO_PROCESS, |scene| trace(scene.plan.worker)),
    attempt("trace-sibling", "trace another job's program", NO_PROCESS, |scene| {
        trace(scene.plan.sibling)
    }),
    attempt("trace-init", "trace pid 1", NO_PROCESS, |scene| {
        of_init(scene, || must_fail(numbers(libc::SYS_ptrace, &[PTRACE_SEIZE, 1, 0, 0])))
    }),
    attempt("trace-me", "be traced by its own parent", FORBIDDEN, |_| {
        must_fail(numbers(libc::SYS_ptrace, &[PTRACE_TRACEME, 0, 0, 0]))
    }),
    attempt("read-supervisor", "read the supervisor's memory", NO_PROCESS, |scene| {
        memory(libc::SYS_process_vm_readv, scene.plan.supervisor)
    }),
    attempt("read-worker", "read a worker's memory", NO_PROCESS, |scene| {
        memory(libc::SYS_process_vm_readv, scene.plan.worker)
    }),
    attempt("read-sibling", "read another program's memory", NO_PROCESS, |scene| {
        memory(libc::SYS_process_vm_readv, scene.plan.sibling)
    }),
    attempt("write-worker", "write a worker's memory", NO_PROCESS, |scene| {
        memory(libc::SYS_process_vm_writev, scene.plan.worker)
    }),
    attempt("take-supervisors-file", "take a descriptor of the supervisor", NO_PROCESS, |scene| {
        take_descriptor(scene.plan.supervisor)
    }),
    attempt("take-workers-file", "take a descriptor of a worker", NO_PROCESS, |scene| {
        take_descriptor(scene.plan.worker)
    }),
    attempt("take-init-file", "take a descriptor of pid 1", NO_PROCESS, |scene| {
        of_init(scene, || {
            let open = numbers(libc::SYS_pidfd_open, &[1, 0]);
            must_fail(open.and_then(|open| numbers(libc::SYS_pidfd_getfd, &[open, 0, 0])))
        })
    }),
    attempt("limit-worker", "ask for a worker's limits", NO_PROCESS, |scene| {
        against(scene.plan.worker, |pid| {
            let mut limit = [0; 16];
            let resource = i64::from(libc::RLIMIT_NOFILE);
            let (none, limit) = (Arg::Number(0), Arg::Bytes(&mut limit));
            call(libc::SYS_prlimit64, &mut [Arg::Number(pid), Arg::Number(resource), none, limit])
        })
    }),
    attempt("pin-worker", "ask for a worker's processors", NO_PROCESS, |scene| {
        against(scene.plan.worker, |pid| {
            let mut set = [0; 128];
            let set = Arg::Bytes(&mut set);
            call(libc::SYS_sched_getaffinity, &mut [Arg::Number(pid), Arg::Number(128), set])
        })
    }),
    attempt("compare-worker", "compare a worker with another process", NO_PROCESS, |scene| {
        let supervisor = i64::from(scene.plan.supervisor.pid);
        against(scene.plan.worker, |pid| numbers(libc::SYS_kcmp, &[pid, supervisor, 1, 0, 0]))
    }),
    attempt("advise-worker", "page a worker's memory out", NO_PROCESS, |scene| {
        against(scene.plan.worker, |pid| {
            let open = numbers(libc::SYS_pidfd_open, &[pid, 0])?;
            numbers(libc::SYS_process_madvise, &[open, 0, 0, 21, 0])
        })
    }),
    attempt("see-others", "find the others in /proc", Denial::Seen, |scene| {
        let victims = [scene.plan.supervisor, scene.plan.worker, scene.plan.sibling];
        match victims.iter().find(|victim| started(victim.pid) == Some(victim.started)) {
            Some(victim) => Outcome::Got(format!("process {} is there", victim.pid)),
            None => Outcome::Held("none of them is there".to_owned()),
        }
    }),
];

fn signal(victim: Victim) -> Outcome {
    against(victim, |pid| numbers(libc::SYS_kill, &[pid, SIGNAL_NOTHING]))
}

/// Seizing does not stop the process, and ends with ours.
fn trace(victim: Victim) -> Outcome {
    against(victim, |pid| numbers(libc::SYS_ptrace, &[PTRACE_SEIZE, pid, 0, 0]))
}

fn take_descriptor(victim: Victim) -> Outcome {
    against(victim, |pid| {
        let open = numbers(libc::SYS_pidfd_open, &[pid, 0])?;
        numbers(libc::SYS_pidfd_getfd, &[open, 0, 0])
    })
}

/// The right is checked before the addresses are, so that nothing need be known of the victim;
/// `EFAULT` means that the right was there.
fn memory(number: i64, victim: Victim) -> Outcome {
    against(victim, |pid| {
        let mut text = [0_u8; 8];
        let mut here = Vec::new();
        here.extend_from_slice(&(text.as_mut_ptr() as u64).to_ne_bytes());
        here.extend_from_slice(&8_u64.to_ne_bytes());
        let mut there = here.clone();
        there[..8].copy_from_slice(&4096_u64.to_ne_bytes());
        let (here, there) = (Arg::Bytes(&mut here), Arg::Bytes(&mut there));
        let one = || Arg::Number(1);
        call(number, &mut [Arg::Number(pid), here, one(), there, one(), Arg::Number(0)])
    })
}

/// Does something to a victim. A success against a process of our own that has the victim's
/// number inside a pid namespace is none.
fn against(victim: Victim, act: impl FnOnce(i64) -> io::Result<i64>) -> Outcome {
    let result = act(i64::from(victim.pid));
    let passed = result.as_ref().map_or_else(
        |error| error.raw_os_error().is_some_and(|number| number == libc::EFAULT),
        |_| true,
    );
    match started(victim.pid) {
        Some(started) if passed && started != victim.started => {
            Outcome::Held("its number is that of a process of our own".to_owned())
        }
        _ => must_fail(result),
    }
}
