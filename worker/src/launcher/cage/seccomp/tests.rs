//! Runs the filter in a machine of its own: what it answers to which call.

use super::*;

/// What the filter answers to a call with these arguments.
fn run(filter: &Filter, architecture: u32, number: u32, arguments: &[u32]) -> u32 {
    let word = |offset: u32| match offset {
        AT_NUMBER => number,
        AT_ARCHITECTURE => architecture,
        _ => arguments.get((offset as usize - 16) / 8).copied().unwrap_or(0),
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let one = &filter.0[at];
        let code = u32::from(one.code);
        at += 1;
        let choose = |yes: bool| usize::from(if yes { one.jt } else { one.jf });
        match (code & 0x07, code & 0xf0) {
            (libc::BPF_LD, _) => accumulator = word(one.k),
            (libc::BPF_ALU, _) => accumulator &= one.k,
            (libc::BPF_RET, _) => return one.k,
            (libc::BPF_JMP, libc::BPF_JA) => at += one.k as usize,
            (libc::BPF_JMP, libc::BPF_JEQ) => at += choose(accumulator == one.k),
            (libc::BPF_JMP, libc::BPF_JGE) => at += choose(accumulator >= one.k),
            (libc::BPF_JMP, libc::BPF_JSET) => at += choose(accumulator & one.k != 0),
            other => panic!("no such instruction: {other:?}"),
        }
    }
}

fn ask(filter: &Filter, number: libc::c_long, arguments: &[i64]) -> u32 {
    let arguments: Vec<u32> = arguments.iter().map(|one| *one as u32).collect();
    run(filter, ARCHITECTURE, number as u32, &arguments)
}

fn socket(filter: &Filter, family: i32, kind: i32, protocol: i32) -> u32 {
    ask(filter, libc::SYS_socket, &[family.into(), kind.into(), protocol.into()])
}

fn closed() -> Filter {
    Filter::new(&Network::None, true, true)
}

#[test]
fn programs_may_do_what_programs_do() {
    let filter = closed();
    for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_openat, libc::SYS_mmap] {
        assert_eq!(ask(&filter, number, &[0; 6]), ALLOW, "{number}");
    }
    let thread = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_FILES;
    assert_eq!(ask(&filter, libc::SYS_clone, &[thread.into()]), ALLOW);
    assert_eq!(ask(&filter, libc::SYS_clone, &[libc::SIGCHLD.into()]), ALLOW);
    assert_eq!(ask(&filter, libc::SYS_personality, &[0]), ALLOW);
    assert_eq!(ask(&filter, libc::SYS_personality, &[0xffff_ffff]), ALLOW);
    assert_eq!(ask(&filter, libc::SYS_ioctl, &[0, 0x5401]), ALLOW);
}

#[test]
fn doors_out_of_the_cage_are_shut() {
    let filter = closed();
    for number in REFUSED_CALLS {
        assert_eq!(ask(&filter, *number, &[0; 6]), REFUSED, "{number}");
    }
    for number in ABSENT_CALLS {
        assert_eq!(ask(&filter, *number, &[0; 6]), ABSENT, "{number}");
    }
    for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWPID, libc::CLONE_NEWNET] {
        let flags = i64::from(flag | libc::CLONE_VM | libc::SIGCHLD);
        assert_eq!(ask(&filter, libc::SYS_clone, &[flags]), REFUSED);
    }
    assert_eq!(ask(&filter, libc::SYS_personality, &[0x0040_0000]), REFUSED);
    assert_eq!(ask(&filter, libc::SYS_ioctl, &[0, 0x5412]), REFUSED);
}

#[test]
fn what_a_missing_namespace_would_keep_apart_is_shut() {
    let shared = closed().without(false, false);
    let apart = closed().without(true, true);
    for number in SHARED_MEMORY {
        assert_eq!(ask(&shared, *number, &[7, 0, 0]), REFUSED, "{number}");
        assert_eq!(ask(&apart, *number, &[7, 0, 0]), ALLOW, "{number}");
    }
    for (number, process) in PROCESS_CALLS {
        let own = [0; 4];
        let mut other = own;
        other[*process as usize] = 812;
        assert_eq!(ask(&shared, *number, &other), REFUSED, "{number}");
        assert_eq!(ask(&shared, *number, &own), ALLOW, "{number}");
        assert_eq!(ask(&apart, *number, &other), ALLOW, "{number}");
    }
    // The rules behind them are where they were.
    assert_eq!(ask(&shared, libc::SYS_mount, &[0; 6]), REFUSED);
    assert_eq!(run(&shared, 0x4000_0003, 1, &[]), KILL);
    assert_eq!(socket(&shared, libc::AF_NETLINK, libc::SOCK_RAW, 0), NO_FAMILY);
}

#[test]
fn no_file_hands_its_owner_to_others() {
    let filter = closed();
    let (at, create) = (i64::from(libc::AT_FDCWD), i64::from(libc::O_CREAT | libc::O_WRONLY));
    for mode in [0o4755, 0o2755, 0o6000] {
        assert_eq!(ask(&filter, libc::SYS_fchmod, &[3, mode]), REFUSED);
        assert_eq!(ask(&filter, libc::SYS_fchmodat, &[at, 0, mode]), REFUSED);
        assert_eq!(ask(&filter, libc::SYS_mknodat, &[at, 0, mode]), REFUSED);
        assert_eq!(ask(&filter, libc::SYS_openat, &[at, 0, create, mode]), REFUSED);
        let temporary = i64::from(libc::O_TMPFILE | libc::O_WRONLY);
        assert_eq!(ask(&filter, libc::SYS_openat, &[at, 0, temporary, mode]), REFUSED);
        // Without a new file the mode is left over from some other call.
        assert_eq!(ask(&filter, libc::SYS_openat, &[at, 0, 0, mode]), ALLOW);
        let folder = i64::from(libc::O_DIRECTORY);
        assert_eq!(ask(&filter, libc::SYS_openat, &[at, 0, folder, mode]), ALLOW);
    }
    for mode in [0o644, 0o755, 0o1777] {
        assert_eq!(ask(&filter, libc::SYS_fchmod, &[3, mode]), ALLOW);
        assert_eq!(ask(&filter, libc::SYS_openat, &[at, 0, create, mode]), ALLOW);
    }
    #[cfg(target_arch = "x86_64")]
    {
        assert_eq!(ask(&filter, libc::SYS_chmod, &[0, 0o4755]), REFUSED);
        assert_eq!(ask(&filter, libc::SYS_creat, &[0, 0o4755]), REFUSED);
        assert_eq!(ask(&filter, libc::SYS_open, &[0, create, 0o4755]), REFUSED);
        assert_eq!(ask(&filter, libc::SYS_open, &[0, 0, 0o4755]), ALLOW);
    }
}

#[test]
fn other_calling_conventions_end_the_program() {
    let filter = closed();
    // 32-bit x86, whose call 1 is exit, not write.
    assert_eq!(run(&filter, 0x4000_0003, 1, &[]), KILL);
    #[cfg(target_arch = "x86_64")]
    for number in [X32, X32 + 1, X32 + 520, u32::MAX] {
        assert_eq!(run(&filter, ARCHITECTURE, number, &[]), KILL);
    }
}

#[test]
fn only_ordinary_families_of_sockets_exist() {
    let filter = closed();
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        assert_eq!(socket(&filter, family, libc::SOCK_DGRAM, 0), ALLOW);
    }
    for family in [libc::AF_NETLINK, libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_KEY] {
        assert_eq!(socket(&filter, family, libc::SOCK_RAW, 0), NO_FAMILY, "{family}");
    }
    let pair = |kind: i32| ask(&filter, libc::SYS_socketpair, &[libc::AF_UNIX.into(), kind.into()]);
    assert_eq!((pair(libc::SOCK_STREAM), pair(libc::SOCK_DGRAM)), (ALLOW, ALLOW));
}

#[test]
fn with_tcp_alone_nothing_passes_by_the_ports() {
    let filter = Filter::new(&Network::Tcp(vec![443]), true, false);
    let stream = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    for family in [libc::AF_INET, libc::AF_INET6] {
        assert_eq!(socket(&filter, family, stream, 0), ALLOW);
        assert_eq!(socket(&filter, family, stream, libc::IPPROTO_TCP), ALLOW);
        assert_eq!(socket(&filter, family, stream, libc::IPPROTO_MPTCP), NO_PROTOCOL);
        assert_eq!(socket(&filter, family, stream, libc::IPPROTO_SCTP), NO_PROTOCOL);
        assert_eq!(socket(&filter, family, libc::SOCK_DGRAM, 0), NO_PROTOCOL);
        assert_eq!(socket(&filter, family, libc::SOCK_RAW, 0), NO_PROTOCOL);
    }
    assert_eq!(socket(&filter, libc::AF_UNIX, libc::SOCK_DGRAM, 0), ALLOW);
    let fast = i64::from(libc::MSG_FASTOPEN);
    assert_eq!(ask(&filter, libc::SYS_sendto, &[0, 0, 0, fast]), NOT_SUPPORTED);
    assert_eq!(ask(&filter, libc::SYS_sendmsg, &[0, 0, fast]), NOT_SUPPORTED);
    assert_eq!(ask(&filter, libc::SYS_sendmmsg, &[0, 0, 0, fast]), NOT_SUPPORTED);
    assert_eq!(ask(&filter, libc::SYS_sendto, &[0, 0, 0, 0]), ALLOW);
    let open = Filter::new(&Network::Host, true, false);
    assert_eq!(socket(&open, libc::AF_INET, libc::SOCK_DGRAM, 0), ALLOW);
}

#[test]
fn without_namespaces_sockets_reach_nothing() {
    let filter = Filter::new(&Network::None, false, false);
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        assert_eq!(socket(&filter, family, libc::SOCK_STREAM, 0), NO_FAMILY);
    }
    let pair = |kind: i32| ask(&filter, libc::SYS_socketpair, &[libc::AF_UNIX.into(), kind.into()]);
    assert_eq!(pair(libc::SOCK_STREAM | libc::SOCK_CLOEXEC), ALLOW);
    assert_eq!((pair(libc::SOCK_SEQPACKET), pair(libc::SOCK_DGRAM)), (ALLOW, NO_FAMILY));
}

fn sealed(devices: &[&str]) -> Filter {
    let devices = devices.iter().map(|path| path.as_bytes().to_vec()).collect();
    let order = CageOrder { network: Network::None, devices, ..CageOrder::default() };
    Filter::only(&[libc::SYS_read, libc::SYS_openat], &order, true)
}

#[test]
fn a_sealed_worker_makes_the_listed_calls_and_is_killed_by_those_of_a_hijacker() {
    let filter = sealed(&[]);
    for number in [libc::SYS_read, libc::SYS_openat, libc::SYS_socket, libc::SYS_socketpair] {
        assert_eq!(ask(&filter, number, &[1, 1]), ALLOW, "{number}");
    }
    for number in REFUSED_CALLS.iter().chain(OTHER_PROGRAMS) {
        assert_eq!(ask(&filter, *number, &[0; 6]), KILL, "{number}");
    }
    // What is merely not listed looks absent, so that a newer library takes its older way.
    for number in [libc::SYS_write, libc::SYS_clone3, libc::SYS_io_uring_setup, 9_999] {
        assert_eq!(ask(&filter, number, &[0; 6]), ABSENT, "{number}");
    }
    assert_eq!(socket(&filter, libc::AF_NETLINK, libc::SOCK_RAW, 0), NO_FAMILY);
    assert_eq!(run(&filter, 0x4000_0003, 1, &[]), KILL);
}

#[test]
fn a_sealed_worker_starts_threads_and_no_processes_and_signals_itself_alone() {
    let filter = sealed(&[]);
    let thread = i64::from(libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND);
    assert_eq!(ask(&filter, libc::SYS_clone, &[thread]), ALLOW);
    for flags in [libc::SIGCHLD, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD] {
        assert_eq!(ask(&filter, libc::SYS_clone, &[flags.into()]), KILL, "{flags}");
    }
    let namespaced = thread | i64::from(libc::CLONE_NEWNET);
    assert_eq!(ask(&filter, libc::SYS_clone, &[namespaced]), KILL);
    let own = i64::from(std::process::id());
    for number in [libc::SYS_kill, libc::SYS_tgkill, libc::SYS_prlimit64] {
        assert_eq!(ask(&filter, number, &[own]), ALLOW, "{number}");
        for other in [1, -1, own + 1] {
            assert_eq!(ask(&filter, number, &[other]), REFUSED, "{number} {other}");
        }
    }
    let name = i64::from(libc::PR_SET_NAME);
    assert_eq!(ask(&filter, libc::SYS_prctl, &[name]), ALLOW);
    assert_eq!(ask(&filter, libc::SYS_prctl, &[i64::from(libc::PR_SET_DUMPABLE)]), REFUSED);
}

#[test]
fn a_sealed_worker_asks_drivers_only_where_it_was_given_a_device() {
    let request = 0xc040_6440_u32;
    let answers =
        |filter: &Filter, request: u32| ask(filter, libc::SYS_ioctl, &[0, i64::from(request)]);
    assert_eq!(answers(&sealed(&[]), request), NO_TERMINAL);
    assert_eq!(answers(&sealed(&[]), libc::FIONBIO as u32), ALLOW);
    let given = sealed(&["/dev/dri/renderD128"]);
    assert_eq!(answers(&given, request), ALLOW);
    assert_eq!(answers(&given, libc::TIOCSTI as u32), REFUSED);
}

#[test]
fn a_worker_that_starts_programs_keeps_the_calls_that_build_a_cage() {
    let filter = Filter::light();
    for number in FOR_CAGES.iter().chain(&[libc::SYS_execve, libc::SYS_clone3, libc::SYS_clone]) {
        assert_eq!(ask(&filter, *number, &[0; 6]), ALLOW, "{number}");
    }
    for number in REFUSED_CALLS.iter().filter(|number| !FOR_CAGES.contains(number)) {
        assert_eq!(ask(&filter, *number, &[0; 6]), REFUSED, "{number}");
    }
    assert_eq!(ask(&filter, libc::SYS_io_uring_setup, &[]), ABSENT);
}
