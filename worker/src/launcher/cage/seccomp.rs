//! The system calls that a program in a cage may not make.
//!
//! A list of what is refused, because foreign programs need all the rest. It is assembled here
//! and not by a crate: one program gives several answers (a call that looks absent makes a
//! library take another way, an error would end it) and looks at ranges of call numbers.

mod instruction;

use super::order::CageOrder;
use instruction::{
    ahead, and, answer, any_bit, any_of, distance, jump, load, none_of, on_call, unless_among,
    unless_bit,
};
use shiftboss_protocol::confine::Network;
use std::io;

/// Answers.
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const REFUSED: u32 = errno(libc::EPERM);
const ABSENT: u32 = errno(libc::ENOSYS);
const NO_FAMILY: u32 = errno(libc::EAFNOSUPPORT);
const NO_PROTOCOL: u32 = errno(libc::EPROTONOSUPPORT);
const NO_TERMINAL: u32 = errno(libc::ENOTTY);
const NOT_SUPPORTED: u32 = errno(libc::EOPNOTSUPP);

const fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.cast_unsigned()
}

/// The only calling convention that is let in: others have other numbers for the same calls.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// Calls from this number on belong to x32, the second convention of x86-64.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Places in the kernel's `struct seccomp_data`.
const AT_NUMBER: u32 = 0;
const AT_ARCHITECTURE: u32 = 4;

/// The lower half of an argument; both architectures are little-endian.
const fn at_argument(index: u32) -> u32 {
    16 + 8 * index
}

/// Flags of `clone` that make namespaces.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

/// The flag of `clone` that makes a thread.
const THREAD: u32 = libc::CLONE_THREAD.cast_unsigned();

/// The type of a socket without its flags.
const SOCKET_TYPE: u32 = 0xf;

/// Calls that get an error: they change the host or what is seen of it, look into other
/// processes, or are doors into the kernel that no media or model program uses.
const REFUSED_CALLS: &[libc::c_long] = &[
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Tracing and programs in the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_syslog,
    // Keys.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Page faults in the program's own hands make races in the kernel winnable.
    libc::SYS_userfaultfd,
    // Files by handle pass by every folder.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // The host itself.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
];

/// Calls that look absent, so that libraries take their older way, which is then looked at.
const ABSENT_CALLS: &[libc::c_long] = &[
    // Its flags lie in memory, where a filter cannot read them: the C library falls back to
    // `clone`.
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Absent for programs only: their modes lie in memory, or came too late for libraries to rely on,
/// see `SET_ID`. Workers and launchers look paths up with the first.
const MODELESS_CALLS: &[libc::c_long] = &[libc::SYS_openat2, libc::SYS_fchmodat2];

/// Of the refused calls those that a launcher makes to build a cage.
const FOR_CAGES: &[libc::c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_unshare,
    libc::SYS_keyctl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// Calls that a process which starts no program makes only when somebody else has got hold of
/// it.
const OTHER_PROGRAMS: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// Objects that have no place in the file system, for programs that share the host's.
const SHARED_MEMORY: &[libc::c_long] =
    &[libc::SYS_shmget, libc::SYS_msgget, libc::SYS_semget, libc::SYS_mq_open];

/// Calls that name another process by its number, and where it stands; 0 is the caller. They are
/// harmless where the numbers are the job's own.
const PROCESS_CALLS: &[(libc::c_long, u32)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_getaffinity, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
];

/// `prctl` of a process's own name, memory names and further walls, and questions.
const PRCTL: [u32; 7] = [
    libc::PR_SET_NAME.cast_unsigned(),
    libc::PR_GET_NAME.cast_unsigned(),
    libc::PR_SET_VMA.cast_unsigned(),
    libc::PR_GET_DUMPABLE.cast_unsigned(),
    libc::PR_CAPBSET_READ.cast_unsigned(),
    libc::PR_SET_NO_NEW_PRIVS.cast_unsigned(),
    libc::PR_GET_NO_NEW_PRIVS.cast_unsigned(),
];

/// `ioctl` of every descriptor, and the questions whether one is a terminal.
const IOCTL: [u32; 6] = [
    libc::FIONBIO as u32,
    libc::FIONREAD as u32,
    libc::FIOCLEX as u32,
    libc::FIONCLEX as u32,
    libc::TCGETS as u32,
    libc::TIOCGWINSZ as u32,
];
/// A file with one of these bits outlives its job: outside of the cage, where nothing ignores
/// them, it would hand the supervisor's user to whoever executes it.
const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

/// Calls that give a file its mode, and which argument that is.
const MODE_CALLS: &[(libc::c_long, u32)] = &[
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (libc::SYS_mknodat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
];

/// Calls that do so only when they make a file, and where their flags stand; the mode follows.
const OPEN_CALLS: &[(libc::c_long, u32)] = &[
    (libc::SYS_openat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
];

/// Flags of a call that makes a file; the second is O_TMPFILE without what it shares with others.
const MAKES_FILE: u32 = libc::O_CREAT.cast_unsigned() | 0o20_000_000;

/// Requests that put text into a terminal's input.
const TERMINAL_REQUESTS: [u32; 2] = [libc::TIOCSTI as u32, 0x541c];

/// `personality` values that change nothing: Linux itself, and the question.
const PERSONALITIES: [u32; 2] = [0, u32::MAX];

/// A filter, ready to be installed.
#[derive(Debug)]
pub(super) struct Filter(Vec<libc::sock_filter>);

/// Whether this kernel has filters: asked whether it knows the answer that ours ends with.
pub(super) fn is_available() -> io::Result<()> {
    let answer = KILL;
    // SAFETY: the kernel reads one number, which outlives the call.
    #[expect(unsafe_code, reason = "no safe wrapper of seccomp exists")]
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const answer)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Filter {
    /// The filter for a program with this network. Without a root of its own it could reach
    /// any named socket of the host, without a network of its own any address; Landlock before
    /// its ABI 9 covers neither.
    pub(super) fn new(network: &Network, has_root: bool, has_net: bool) -> Self {
        let mut code = begin();
        for number in ABSENT_CALLS.iter().chain(MODELESS_CALLS) {
            on_call(&mut code, *number, vec![answer(ABSENT)]);
        }
        for number in REFUSED_CALLS {
            on_call(&mut code, *number, vec![answer(REFUSED)]);
        }
        on_call(&mut code, libc::SYS_clone, any_bit(0, NAMESPACES, REFUSED));
        on_call(&mut code, libc::SYS_ioctl, any_of(1, &TERMINAL_REQUESTS, REFUSED));
        on_call(&mut code, libc::SYS_personality, none_of(0, &PERSONALITIES, REFUSED));
        add_modes(&mut code);
        add_sockets(&mut code, network, has_root, has_net);
        code.push(answer(ALLOW));
        Self(code)
    }

    /// Shuts also what the namespaces that are missing would have kept to the job itself.
    pub(super) fn without(mut self, has_ipc: bool, has_pids: bool) -> Self {
        let mut code = Vec::new();
        for number in SHARED_MEMORY.iter().filter(|_| !has_ipc) {
            on_call(&mut code, *number, vec![answer(REFUSED)]);
        }
        for (number, process) in PROCESS_CALLS.iter().filter(|_| !has_pids) {
            on_call(&mut code, *number, none_of(*process, &[0], REFUSED));
        }
        // Jumps are relative: what stands behind may move.
        let place = begin().len();
        self.0.splice(place..place, code);
        self
    }

    /// The filter for a process that starts no program: `calls`, the harmless forms of some
    /// others, and death for what only a taken-over process calls. What is left looks absent.
    pub(super) fn only(calls: &[libc::c_long], order: &CageOrder, has_net: bool) -> Self {
        let own = std::process::id();
        let allow = |mut body: Vec<libc::sock_filter>| {
            body.push(answer(ALLOW));
            body
        };
        let mut code = begin();
        for number in ABSENT_CALLS {
            on_call(&mut code, *number, vec![answer(ABSENT)]);
        }
        // A thread; another process is a child, which only a launcher has.
        let mut thread = vec![load(at_argument(0)), unless_bit(THREAD), answer(KILL)];
        thread.extend(any_bit(0, NAMESPACES, KILL));
        on_call(&mut code, libc::SYS_clone, allow(thread));
        on_call(&mut code, libc::SYS_prctl, allow(none_of(0, &PRCTL, REFUSED)));
        let ioctl = if order.devices.is_empty() {
            none_of(1, &IOCTL, NO_TERMINAL)
        } else {
            // Drivers have their own requests.
            any_of(1, &TERMINAL_REQUESTS, REFUSED)
        };
        on_call(&mut code, libc::SYS_ioctl, allow(ioctl));
        // To itself: it shares its numbers with the whole host.
        for number in [libc::SYS_kill, libc::SYS_tgkill] {
            on_call(&mut code, number, allow(none_of(0, &[own], REFUSED)));
        }
        on_call(&mut code, libc::SYS_prlimit64, allow(none_of(0, &[0, own], REFUSED)));
        // With named sockets also where it has no root of its own: it must find its supervisor.
        add_sockets(&mut code, &order.network, true, has_net);
        for number in [libc::SYS_socket, libc::SYS_socketpair].iter().chain(calls) {
            on_call(&mut code, *number, vec![answer(ALLOW)]);
        }
        for number in REFUSED_CALLS.iter().chain(OTHER_PROGRAMS) {
            on_call(&mut code, *number, vec![answer(KILL)]);
        }
        code.push(answer(ABSENT));
        Self(code)
    }

    /// The filter for a worker that starts programs: what neither it nor a launcher calls.
    pub(super) fn light() -> Self {
        let mut code = begin();
        for number in ABSENT_CALLS.iter().filter(|number| **number != libc::SYS_clone3) {
            on_call(&mut code, *number, vec![answer(ABSENT)]);
        }
        for number in REFUSED_CALLS.iter().filter(|number| !FOR_CAGES.contains(number)) {
            on_call(&mut code, *number, vec![answer(REFUSED)]);
        }
        code.push(answer(ALLOW));
        Self(code)
    }

    /// Installs it for this process and all that it will start.
    pub(super) fn install(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).map_err(io::Error::other)?,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel copies the instructions, which outlive the call, and writes none.
        #[expect(unsafe_code, reason = "no safe wrapper of seccomp exists")]
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// What every filter begins with. The number of the call is loaded behind it.
fn begin() -> Vec<libc::sock_filter> {
    let mut code = vec![load(AT_ARCHITECTURE)];
    code.extend(unless_among(&[ARCHITECTURE], KILL));
    code.push(load(AT_NUMBER));
    #[cfg(target_arch = "x86_64")]
    code.extend([jump(libc::BPF_JGE, X32, 0, 1), answer(KILL)]);
    code
}

fn add_modes(code: &mut Vec<libc::sock_filter>) {
    for (number, mode) in MODE_CALLS {
        on_call(code, *number, any_bit(*mode, SET_ID, REFUSED));
    }
    for (number, flags) in OPEN_CALLS {
        let of_new_file = any_bit(flags + 1, SET_ID, REFUSED);
        let mut body = vec![load(at_argument(*flags))];
        body.push(jump(libc::BPF_JSET, MAKES_FILE, 0, distance(of_new_file.len())));
        body.extend(of_new_file);
        on_call(code, *number, body);
    }
}

fn add_sockets(
    code: &mut Vec<libc::sock_filter>,
    network: &Network,
    has_root: bool,
    has_net: bool,
) {
    const UNIX: u32 = libc::AF_UNIX.cast_unsigned();
    const INET: [u32; 2] = [libc::AF_INET.cast_unsigned(), libc::AF_INET6.cast_unsigned()];
    let has_internet = has_net || *network != Network::None;
    let mut families = if has_internet { INET.to_vec() } else { Vec::new() };
    if has_root {
        families.push(UNIX);
    }
    let mut body = none_of(0, &families, NO_FAMILY);
    if matches!(network, Network::Tcp(_)) {
        body.extend(only_tcp(&INET));
    }
    on_call(code, libc::SYS_socket, body);
    // Pairs are connected to each other and nothing else; but a datagram socket can be
    // connected anew, to a name.
    let mut body = none_of(0, &[UNIX], NO_FAMILY);
    if !has_root {
        let connected = [libc::SOCK_STREAM.cast_unsigned(), libc::SOCK_SEQPACKET.cast_unsigned()];
        body.push(load(at_argument(1)));
        body.push(and(SOCKET_TYPE));
        body.extend(unless_among(&connected, NO_FAMILY));
    }
    on_call(code, libc::SYS_socketpair, body);
    if matches!(network, Network::Tcp(_)) {
        // Data in the first packet passes by Landlock's look at `connect`.
        let fast_open = libc::MSG_FASTOPEN.cast_unsigned();
        on_call(code, libc::SYS_sendto, any_bit(3, fast_open, NOT_SUPPORTED));
        on_call(code, libc::SYS_sendmsg, any_bit(2, fast_open, NOT_SUPPORTED));
        on_call(code, libc::SYS_sendmmsg, any_bit(3, fast_open, NOT_SUPPORTED));
    }
}

/// Within these families nothing but TCP: Landlock's ports bound neither UDP nor MPTCP.
fn only_tcp(families: &[u32]) -> Vec<libc::sock_filter> {
    let stream = [libc::SOCK_STREAM.cast_unsigned()];
    let protocols = [0, libc::IPPROTO_TCP.cast_unsigned()];
    let mut rest = vec![load(at_argument(1)), and(SOCKET_TYPE)];
    rest.extend(unless_among(&stream, NO_PROTOCOL));
    rest.push(load(at_argument(2)));
    rest.extend(unless_among(&protocols, NO_PROTOCOL));
    let mut body = vec![load(at_argument(0))];
    // A socket of no such family skips the rest: all that follows of these questions, and it.
    for (at, family) in families.iter().enumerate() {
        let questions_left = families.len() - at - 1;
        body.push(jump(libc::BPF_JEQ, *family, distance(questions_left + 1), 0));
    }
    body.push(ahead(rest.len()));
    body.extend(rest);
    body
}

#[cfg(test)]
mod tests;
