//! Parts of the kernel that no media program needs and that most ways out lead through, and what
//! would change the machine. The latter get arguments that the kernel refuses only after it has
//! checked the right, so that a missing wall shows and nothing happens.

use super::super::kernel::{Arg, call, numbers};
use super::{Attempt, FORBIDDEN, attempt, may_succeed, must_fail};
use crate::selftest::verdict::{Denial, Outcome};
use std::io;

/// What says that the right was there and the argument was not.
const REFUSED: Denial = FORBIDDEN;

pub(super) const ATTEMPTS: &[Attempt] = &[
    attempt("bpf-map", "make a BPF map", REFUSED, |_| {
        // `union bpf_attr` for an array of one number.
        let mut attributes = [0; 48];
        for (at, number) in [2_u32, 4, 4, 1].iter().enumerate() {
            attributes[at * 4..at * 4 + 4].copy_from_slice(&number.to_ne_bytes());
        }
        must_fail(structure(libc::SYS_bpf, &[0], &mut attributes, &[48]))
    }),
    attempt("bpf-program", "load a BPF program", REFUSED, |_| {
        let mut attributes = [0; 48];
        must_fail(structure(libc::SYS_bpf, &[5], &mut attributes, &[48]))
    }),
    attempt("performance-events", "count events of the machine", REFUSED, |_| {
        // `struct perf_event_attr` of a software clock, for this process.
        let mut attributes = [0; 64];
        attributes[0] = 1;
        attributes[4] = 64;
        must_fail(structure(libc::SYS_perf_event_open, &[], &mut attributes, &[0, -1, -1, 0]))
    }),
    attempt("user-faults", "handle page faults itself", REFUSED, |_| {
        const USER_MODE_ONLY: i64 = 1;
        must_fail(numbers(libc::SYS_userfaultfd, &[USER_MODE_ONLY]))
    }),
    attempt("io-uring", "make a ring of io_uring", REFUSED, |_| {
        let mut parameters = [0; 120];
        must_fail(structure(libc::SYS_io_uring_setup, &[1], &mut parameters, &[]))
    }),
    attempt("io-uring-enter", "enter a ring of io_uring", REFUSED, |_| {
        must_fail(numbers(libc::SYS_io_uring_enter, &[-1, 0, 0, 0, 0, 0]))
    }),
    attempt("keyring", "ask for its session's keyring", REFUSED, |_| {
        must_fail(numbers(libc::SYS_keyctl, &[0, -3, 0]))
    }),
    attempt("add-key", "add a key", REFUSED, |_| {
        let (kind, name) = (Arg::Text(c"user"), Arg::Text(c"shiftboss-selftest"));
        let (text, length) = (Arg::Text(c"x"), Arg::Number(1));
        // Into the process's own keyring, which ends with it.
        must_fail(call(libc::SYS_add_key, &mut [kind, name, text, length, Arg::Number(-2)]))
    }),
    attempt("request-key", "have a key fetched", REFUSED, |_| {
        let (kind, name) = (Arg::Text(c"user"), Arg::Text(c"shiftboss-selftest"));
        must_fail(call(libc::SYS_request_key, &mut [kind, name, Arg::Number(0), Arg::Number(0)]))
    }),
    attempt("load-kernel", "load another kernel", REFUSED, |_| {
        // Flags that no kernel knows.
        must_fail(numbers(libc::SYS_kexec_load, &[0, 0, 0, 0xffff]))
    }),
    attempt("load-kernel-file", "load another kernel from a file", REFUSED, |_| {
        must_fail(numbers(libc::SYS_kexec_file_load, &[-1, -1, 0, 0, 0xffff]))
    }),
    attempt("load-module", "load a module from memory", REFUSED, |_| {
        let (image, options) = (Arg::Text(c""), Arg::Text(c""));
        must_fail(call(libc::SYS_init_module, &mut [image, Arg::Number(0), options]))
    }),
    attempt("load-module-file", "load a module from a file", REFUSED, |_| {
        let options = Arg::Text(c"");
        must_fail(call(libc::SYS_finit_module, &mut [Arg::Number(-1), options, Arg::Number(0)]))
    }),
    attempt("unload-module", "unload a module", REFUSED, |_| {
        let name = Arg::Text(c"shiftboss_selftest");
        must_fail(call(libc::SYS_delete_module, &mut [name, Arg::Number(0)]))
    }),
    attempt("name-handle", "ask for a file's handle", REFUSED, |_| {
        let (mut handle, mut mount) = ([0; 136], [0; 4]);
        handle[0] = 128;
        must_fail(call(
            libc::SYS_name_to_handle_at,
            &mut [
                Arg::Number(i64::from(libc::AT_FDCWD)),
                Arg::Text(c"."),
                Arg::Bytes(&mut handle),
                Arg::Bytes(&mut mount),
                Arg::Number(0),
            ],
        ))
    }),
    attempt("open-by-handle", "open a file by its handle", REFUSED, |_| {
        // The handle of inode 2, the root of ext4, in its 32-bit form.
        let mut handle = [0; 16];
        (handle[0], handle[4], handle[8]) = (8, 1, 2);
        let folder = std::fs::File::open(".");
        must_fail(folder.and_then(|folder| {
            let folder = i64::from(std::os::fd::AsRawFd::as_raw_fd(&folder));
            structure(libc::SYS_open_by_handle_at, &[folder], &mut handle, &[0])
        }))
    }),
    attempt("quota", "ask for a disk's quota", REFUSED, |_| {
        const Q_GETINFO_USER: i64 = 0x8000_0500;
        let device = Arg::Text(c"/dev/null");
        let zero = || Arg::Number(0);
        must_fail(call(
            libc::SYS_quotactl,
            &mut [Arg::Number(Q_GETINFO_USER), device, zero(), zero()],
        ))
    }),
    attempt("swap-on", "use a file as swap", REFUSED, |_| {
        must_fail(call(libc::SYS_swapon, &mut [Arg::Text(c"no-such-file"), Arg::Number(0)]))
    }),
    attempt("swap-off", "stop the use of swap", REFUSED, |_| {
        must_fail(call(libc::SYS_swapoff, &mut [Arg::Text(c"no-such-file")]))
    }),
    attempt("reboot", "restart the machine", REFUSED, |_| {
        // Without the magic numbers that are checked after the right.
        must_fail(numbers(libc::SYS_reboot, &[0, 0, 0, 0]))
    }),
    attempt("set-clock", "set the clock", REFUSED, |_| {
        // A zone further west than any is refused after the right was checked.
        let mut zone = [0; 8];
        zone[..4].copy_from_slice(&10_000_i32.to_ne_bytes());
        must_fail(structure(libc::SYS_settimeofday, &[0], &mut zone, &[]))
    }),
    attempt("account", "write accounts of processes", REFUSED, |_| {
        must_fail(call(libc::SYS_acct, &mut [Arg::Text(c"no-such-file")]))
    }),
    attempt("personality", "change how programs are laid out", REFUSED, |_| {
        const READ_IMPLIES_EXEC: i64 = 0x0040_0000;
        must_fail(numbers(libc::SYS_personality, &[READ_IMPLIES_EXEC]))
    }),
    attempt("host-name", "rename the machine", REFUSED, |_| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let mut name = name.trim().as_bytes().to_vec();
        let length = i64::try_from(name.len()).unwrap_or(0);
        must_fail(structure(libc::SYS_sethostname, &[], &mut name, &[length]))
    }),
    attempt("read-messages", "read the kernel's messages", REFUSED, |_| {
        let mut text = [0; 256];
        must_fail(structure(libc::SYS_syslog, &[3], &mut text, &[256]))
    }),
    attempt("watch-all-files", "watch every file of a file system", REFUSED, |_| {
        // FAN_CLASS_CONTENT: may deny others their access.
        must_fail(numbers(libc::SYS_fanotify_init, &[4, 0]))
    }),
    attempt("ports", "reach the ports of the machine", REFUSED, |_| ports()),
    attempt("port-range", "reach one port of the machine", REFUSED, |_| port_range()),
    attempt("x32", "call by the numbers of x32", Denial::Errno(&[libc::ENOSYS]), |_| {
        must_fail(numbers(0x4000_0000 + libc::SYS_getpid, &[]))
    }),
    attempt("int80", "call by the gate of 32-bit programs", Denial::Errno(&[libc::ENOSYS]), |_| {
        gate()
    }),
    attempt("segments", "change its table of segments", REFUSED, |_| segments()),
    attempt("real-time", "run before everybody else", REFUSED, |_| {
        // SCHED_FIFO at the lowest rank.
        let mut parameters = 1_i32.to_ne_bytes();
        must_fail(structure(libc::SYS_sched_setscheduler, &[0, 1], &mut parameters, &[]))
    }),
    attempt("raise-priority", "run before the supervisor", REFUSED, |_| {
        must_fail(numbers(libc::SYS_setpriority, &[0, 0, -20]))
    }),
    attempt("disk-priority", "read and write before everybody else", REFUSED, |_| {
        // IOPRIO_CLASS_RT, for this process.
        must_fail(numbers(libc::SYS_ioprio_set, &[1, 0, 1 << 13]))
    }),
    attempt(
        "foreign-memory",
        "take a piece of the host's System V memory",
        Denial::Errno(&[libc::ENOENT, libc::EACCES, libc::EPERM, libc::ENOSYS]),
        |scene| must_fail(numbers(libc::SYS_shmget, &[i64::from(scene.plan.memory_key), 0, 0])),
    ),
    attempt(
        "foreign-queue",
        "take the host's message queue",
        Denial::Contained(&[libc::ENOENT, libc::EACCES, libc::EPERM, libc::ENOSYS]),
        |scene| {
            const CREATE: i64 = 0o1000 | 0o600;
            may_succeed(numbers(libc::SYS_msgget, &[i64::from(scene.plan.memory_key), CREATE]))
        },
    ),
];

/// A call whose one buffer stands between numbers.
fn structure(number: i64, before: &[i64], bytes: &mut [u8], after: &[i64]) -> io::Result<i64> {
    let mut arguments: Vec<Arg<'_>> = before.iter().map(|one| Arg::Number(*one)).collect();
    arguments.push(Arg::Bytes(bytes));
    arguments.extend(after.iter().map(|one| Arg::Number(*one)));
    call(number, &mut arguments)
}

#[cfg(target_arch = "x86_64")]
fn ports() -> Outcome {
    must_fail(numbers(libc::SYS_iopl, &[3]))
}

#[cfg(target_arch = "x86_64")]
fn port_range() -> Outcome {
    must_fail(numbers(libc::SYS_ioperm, &[0x80, 1, 1]))
}

#[cfg(target_arch = "x86_64")]
fn segments() -> Outcome {
    // Reads the table, in the form that needs no description of a segment.
    let mut table = [0; 64];
    must_fail(structure(libc::SYS_modify_ldt, &[0], &mut table, &[64]))
}

/// A fault is how a kernel without that gate says no.
#[cfg(target_arch = "x86_64")]
fn gate() -> Outcome {
    let answer = super::super::kernel::in_child(|| match super::super::kernel::getpid_by_int80() {
        answer if answer == i64::from(std::process::id()) => {
            Outcome::Got("the kernel answered".to_owned())
        }
        answer => Outcome::Errno(i32::try_from(-answer).unwrap_or(0)),
    });
    match answer {
        Outcome::Killed(libc::SIGSEGV) => Outcome::Held("there is no such gate".to_owned()),
        answer => answer,
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod other {
    use super::Outcome;
    pub(super) fn absent() -> Outcome {
        Outcome::Held("this machine has none".to_owned())
    }
}
#[cfg(not(target_arch = "x86_64"))]
use other::{absent as gate, absent as port_range, absent as ports, absent as segments};
