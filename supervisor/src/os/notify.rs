//! What the service manager is told, and how often it wants to hear (sd_notify(3)).
//!
//! Datagrams to the socket that `NOTIFY_SOCKET` names. No library is needed for five words.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager that started us.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl Notifier {
    /// From `NOTIFY_SOCKET`; `None` when nobody listens.
    ///
    /// # Errors
    /// When the variable names what is no socket address (a path or `@name`), or no socket can
    /// be made.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let name = name.into_vec();
        let to = match name.split_first() {
            Some((b'@', rest)) => SocketAddr::from_abstract_name(rest)?,
            Some((b'/', _)) => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(&name))?,
            _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not stop the loop; what matters is said again later.
        socket.set_nonblocking(true)?;
        Ok(Some(Self { socket, to }))
    }

    /// Sends assignments, one a line, for example `READY=1`.
    ///
    /// # Errors
    /// When the manager does not take them now.
    pub fn send(&self, text: &str) -> io::Result<()> {
        self.socket.send_to_addr(text.as_bytes(), &self.to).map(|_| ())
    }
}

/// How often the service manager wants a sign of life: half of `WATCHDOG_USEC`, as
/// sd_watchdog_enabled(3) advises. `None` when it wants none from this process.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    let variable = |name: &str| std::env::var(name).ok();
    interval(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id())
}

fn interval(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    // Meant for another process: a program in between passed its environment on.
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let usec: u64 = usec?.parse().ok().filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec / 2).max(Duration::from_millis(1)))
}

/// CLOCK_MONOTONIC in microseconds, which systemd wants with `RELOADING=1`.
#[must_use]
pub fn monotonic_usec() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000)
}

/// True when systemd started this process as the main process of a service, but not in the
/// subgroup `supervisor`: systemd is older than 254, or the unit lacks `DelegateSubgroup=`.
#[must_use]
pub fn lacks_subgroup() -> bool {
    let own = std::process::id().to_string();
    if std::env::var("SYSTEMD_EXEC_PID").ok().as_deref() != Some(&own) {
        return false;
    }
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().find_map(|line| line.strip_prefix("0::")).is_some_and(is_outside_subgroup)
}

fn is_outside_subgroup(group: &str) -> bool {
    !group.ends_with("/supervisor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_asked_and_only_when_meant() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(interval(text("3000000"), None, 7), Some(Duration::from_millis(1500)));
        assert_eq!(interval(text("3000000"), text("7"), 7), Some(Duration::from_millis(1500)));
        assert_eq!(interval(text("3000000"), text("8"), 7), None);
        assert_eq!(interval(text("0"), None, 7), None);
        assert_eq!(interval(text("soon"), None, 7), None);
        assert_eq!(interval(None, None, 7), None);
    }

    #[test]
    fn only_the_subgroup_of_the_unit_keeps_survivors_apart() {
        assert!(is_outside_subgroup("/system.slice/shiftboss.service"));
        assert!(!is_outside_subgroup("/system.slice/shiftboss.service/supervisor"));
    }
}
