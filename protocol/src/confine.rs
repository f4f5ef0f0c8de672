//! Confinement in words: what a type asks for, and what really holds around a worker or a program.
//!
//! [`InForce`] is the text of `attempts.confinement`, which outside scripts read: its spelling is a
//! contract like that of [`crate::job::Cause`].

use serde::{Deserialize, Serialize};
use std::fmt;

/// Most that is recorded of a text, bytes: a dozen walls, each missing with its reason, fit.
pub const TEXT_BYTES_MAX: usize = 2 << 10;

/// Whether an attempt may run where its host cannot confine it in full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confine {
    /// It runs with what there is, and that is recorded.
    #[default]
    BestEffort,
    /// It fails, naming what is missing and what would bring it.
    Require,
}

/// Which network a confined process reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// None, not even the host's loopback.
    #[default]
    None,
    /// The host's.
    Host,
    /// TCP connections from the host's network to these ports, each from 1.
    Tcp(Vec<u16>),
}

/// One part of a confinement. Ordered by strength, as the parts are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Wall {
    /// A user namespace: root inside is nobody outside.
    UserNs,
    /// A mount namespace whose root shows only what was granted.
    MountNs,
    /// A pid namespace: other processes have no number, and the tree ends with its first process.
    PidNs,
    /// An IPC namespace: System V objects and message queues of its own.
    IpcNs,
    /// A host name of its own.
    UtsNs,
    /// A cgroup namespace: the place of its cgroup in the host's tree is hidden.
    CgroupNs,
    /// A network namespace with nothing in it but a loopback of its own.
    NetNs,
    /// Landlock of this ABI.
    Landlock(u8),
    /// A seccomp filter.
    Seccomp,
    /// Setuid programs and file capabilities give nothing.
    NoNewPrivs,
    /// Limits and kills by a cgroup.
    Cgroup,
    /// Resource limits of each process.
    Rlimits,
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::UserNs => "user-ns",
            Self::MountNs => "mount-ns",
            Self::PidNs => "pid-ns",
            Self::IpcNs => "ipc-ns",
            Self::UtsNs => "uts-ns",
            Self::CgroupNs => "cgroup-ns",
            Self::NetNs => "net-ns",
            Self::Landlock(0) => "landlock",
            Self::Landlock(abi) => return write!(f, "landlock-{abi}"),
            Self::Seccomp => "seccomp",
            Self::NoNewPrivs => "no-new-privs",
            Self::Cgroup => "cgroup",
            Self::Rlimits => "rlimits",
        };
        f.write_str(word)
    }
}

impl Wall {
    const PLAIN: [Self; 11] = [
        Self::UserNs,
        Self::MountNs,
        Self::PidNs,
        Self::IpcNs,
        Self::UtsNs,
        Self::CgroupNs,
        Self::NetNs,
        Self::Seccomp,
        Self::NoNewPrivs,
        Self::Cgroup,
        Self::Rlimits,
    ];

    fn parse(word: &str) -> Option<Self> {
        if let Some(abi) = word.strip_prefix("landlock") {
            let abi = abi.strip_prefix('-').unwrap_or("0");
            return abi.parse().ok().map(Self::Landlock);
        }
        Self::PLAIN.into_iter().find(|wall| wall.to_string() == word)
    }
}

/// What really holds. [`fmt::Display`] is the recorded text: the walls that hold, strongest first,
/// separated by commas, or `none`; then, behind a semicolon each, `missing: WALL (reason)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    holds: Vec<Wall>,
    missing: Vec<(Wall, String)>,
}

impl InForce {
    /// What such a text says. Words of a later version are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut in_force = Self::default();
        let mut parts = text.split("; missing: ");
        let holds = parts.next().unwrap_or_default();
        in_force.holds = holds.split(", ").filter_map(Wall::parse).collect();
        for part in parts {
            let (word, reason) = part.split_once(" (").unwrap_or((part, ")"));
            let reason = reason.strip_suffix(')').unwrap_or(reason);
            in_force.missing.extend(Wall::parse(word).map(|wall| (wall, reason.to_owned())));
        }
        in_force
    }

    /// This wall was put on, and is known to hold.
    pub fn add(&mut self, wall: Wall) {
        self.holds.push(wall);
        self.holds.sort_unstable();
        self.holds.dedup();
    }

    /// This wall was wanted and could not be had, for this reason.
    pub fn lack(&mut self, wall: Wall, reason: impl Into<String>) {
        self.missing.push((wall, reason.into()));
        self.missing.sort();
        self.missing.dedup();
    }

    /// What held both times: the walls that hold in both, and all that was missing in either.
    #[must_use]
    pub fn least(&self, other: &Self) -> Self {
        let common = self.holds.iter().filter(|wall| other.holds.contains(wall));
        let mut least = Self { holds: common.copied().collect(), missing: self.missing.clone() };
        for (wall, reason) in &other.missing {
            least.lack(*wall, reason.clone());
        }
        least
    }

    /// The walls that hold, strongest first.
    #[must_use]
    pub fn holds(&self) -> &[Wall] {
        &self.holds
    }

    /// The walls that were wanted and do not hold, each with its reason.
    #[must_use]
    pub fn missing(&self) -> &[(Wall, String)] {
        &self.missing
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holds.is_empty() {
            f.write_str("none")?;
        }
        for (at, wall) in self.holds.iter().enumerate() {
            write!(f, "{}{wall}", if at == 0 { "" } else { ", " })?;
        }
        for (wall, reason) in &self.missing {
            // A reason must not look like the next part.
            write!(f, "; missing: {wall} ({})", reason.replace(';', ","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_is_told_strongest_first_and_what_is_missing_with_its_reason() {
        let mut in_force = InForce::default();
        assert_eq!(in_force.to_string(), "none");
        in_force.lack(Wall::UserNs, "EPERM; see sysctl");
        assert_eq!(in_force.to_string(), "none; missing: user-ns (EPERM, see sysctl)");
        for wall in [Wall::Rlimits, Wall::Seccomp, Wall::Landlock(7), Wall::Seccomp] {
            in_force.add(wall);
        }
        let text = "landlock-7, seccomp, rlimits; missing: user-ns (EPERM, see sysctl)";
        assert_eq!(in_force.to_string(), text);
        for text in [text, "none", "none; missing: landlock (no)", "user-ns, cgroup, rlimits"] {
            assert_eq!(InForce::parse(text).to_string(), text);
        }
        let odd = InForce::parse("later-ns, seccomp; missing: later (x); missing: net-ns");
        assert_eq!(odd.to_string(), "seccomp; missing: net-ns ()");
    }

    #[test]
    fn of_two_programs_what_held_around_both_is_told() {
        let [mut first, mut second] = [InForce::default(), InForce::default()];
        first.add(Wall::MountNs);
        first.add(Wall::Seccomp);
        second.add(Wall::Seccomp);
        second.lack(Wall::MountNs, "EPERM");
        let text = "seccomp; missing: mount-ns (EPERM)";
        assert_eq!(first.least(&second).to_string(), text);
        assert_eq!(second.least(&first).to_string(), text);
    }

    #[test]
    fn what_a_type_asks_for_has_the_spelling_of_the_configuration() {
        let text = |value: &Network| serde_json::to_string(value).expect("plain data");
        assert_eq!(text(&Network::None), "\"none\"");
        assert_eq!(text(&Network::Host), "\"host\"");
        assert_eq!(text(&Network::Tcp(vec![443])), "{\"tcp\":[443]}");
        let word = serde_json::to_string(&Confine::BestEffort).expect("plain data");
        assert_eq!(word, "\"best-effort\"");
    }
}
