//! Namespaces: which are entered where, and what a new one needs before it is of use.

use super::held::Held;
use super::order::CageOrder;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid, setgroups};
use rustix::system::{setdomainname, sethostname, uname};
use shiftboss_protocol::confine::{Network, Wall};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;

/// What a program sees as its host's name.
const HOST_NAME: &[u8] = b"shiftboss";

/// Processes and threads at once where the type says nothing: enough for any honest program,
/// too few to hurt the host.
const PROCESSES_MAX: u32 = 4096;

/// Numbers below this are never given out a second time, so they do not count.
const RESERVED_PIDS: u32 = 300;

/// The least that the kernel accepts for `kernel.pid_max`.
const PID_MAX_MIN: u32 = 301;

/// Enters the namespaces into which the next child must be born: of users, and of processes.
///
/// The user's own id is mapped to itself: programs see who they are and whose files they make,
/// and user id 0 does not exist where it is not theirs. Capabilities in the new namespace do
/// not depend on the number. This process keeps its view of processes and files.
pub(crate) fn enter_before_fork(held: &mut Held) {
    enter_user(held);
    held.put(Wall::PidNs, || Ok(unshare(CloneFlags::CLONE_NEWPID)?));
}

/// Enters the one of users.
pub(super) fn enter_user(held: &mut Held) {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        // Groups would outlive the drop of all rights. A user who is not root cannot drop them,
        // and has them with good reason. In the new namespace nobody could.
        let _ = setgroups(&[]);
    }
    held.put(Wall::UserNs, || {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        // Without this the kernel lets no user but root write the map of groups: dropping a
        // group can give access.
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
    });
}

/// Enters the others. True when mounts are this process's own, and so a root can be made.
pub(super) fn enter_after_fork(order: &CageOrder, held: &mut Held) -> bool {
    for (word, flag) in [
        (Wall::IpcNs, CloneFlags::CLONE_NEWIPC),
        (Wall::UtsNs, CloneFlags::CLONE_NEWUTS),
        (Wall::CgroupNs, CloneFlags::CLONE_NEWCGROUP),
    ] {
        held.put(word, || Ok(unshare(flag)?));
    }
    if order.network == Network::None {
        held.put(Wall::NetNs, || Ok(unshare(CloneFlags::CLONE_NEWNET)?));
    }
    if held.has(Wall::NetNs) {
        // A convenience: programs that talk to themselves over loopback go on to work.
        let _ = raise_loopback();
    }
    if held.has(Wall::UtsNs) {
        let _ = sethostname(HOST_NAME);
        let _ = setdomainname(b"(none)");
    }
    // Keys of the supervisor's session are not the program's. Where there are no keys at all,
    // none can be had.
    let _ = join_new_keyring();
    match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => true,
        Err(error) => {
            held.put(Wall::MountNs, || Err(error.into()));
            false
        }
    }
}

/// Bounds the number of processes and forbids more user namespaces, for this cage only. Needs
/// a writable `/proc/sys`; the root shows it read-only later.
pub(super) fn bound(order: &CageOrder, held: &Held) {
    // Each of the two would be the whole host's where the namespace is not our own.
    if held.has(Wall::UserNs) {
        let _ = fs::write("/proc/sys/user/max_user_namespaces", "0");
    }
    if held.has(Wall::PidNs) && has_own_pid_max() {
        let processes = if order.processes_max == 0 { PROCESSES_MAX } else { order.processes_max };
        let pid_max = processes.saturating_add(RESERVED_PIDS).max(PID_MAX_MIN);
        let _ = fs::write("/proc/sys/kernel/pid_max", pid_max.to_string());
    }
}

/// Whether `kernel.pid_max` belongs to a pid namespace: since Linux 6.14. Before, a root's
/// write changes the host.
fn has_own_pid_max() -> bool {
    let name = uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|sign: char| !sign.is_ascii_digit());
    let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok());
    matches!((number(), number()), (Some(major), Some(minor)) if (major, minor) >= (6, 14))
}

fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an all-zero request is a valid one of plain numbers and bytes.
    #[expect(unsafe_code, reason = "libc's structure has no constructor")]
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: the kernel reads one request of this layout, which outlives the call.
    #[expect(unsafe_code, reason = "no safe wrapper of this request exists")]
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn join_new_keyring() -> io::Result<()> {
    let no_name = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name the kernel reads no memory and makes a keyring of its own.
    #[expect(unsafe_code, reason = "no safe wrapper of keyctl exists")]
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
