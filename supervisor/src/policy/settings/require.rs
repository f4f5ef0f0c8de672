//! What a type that requires its confinement and its limits needs of the host.

use shiftboss_protocol::confine::Network;

/// One thing that a host offers or lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Piece {
    /// Memory limits by a cgroup.
    Memory,
    /// CPU limits by a cgroup.
    Cpu,
    /// Limits of processes by a cgroup.
    Pids,
    /// Limits of reading and writing by a cgroup.
    Io,
    /// Killing, freezing and watching a tree by its cgroup.
    GroupKill,
    /// User namespaces that give capabilities inside.
    UserNs,
    /// Mount namespaces in which one may mount.
    MountNs,
    /// Pid namespaces.
    PidNs,
    /// IPC namespaces.
    IpcNs,
    /// Host name namespaces.
    UtsNs,
    /// Cgroup namespaces.
    CgroupNs,
    /// Network namespaces.
    NetNs,
    /// Landlock for files.
    Landlock,
    /// Landlock for TCP ports.
    LandlockTcp,
    /// Seccomp filters that kill a process.
    Seccomp,
    /// `kernel.pid_max` of a pid namespace's own.
    PidMax,
    /// RLIMIT_NPROC that binds: it does not bind root.
    ProcessLimit,
}

impl Piece {
    /// The word for it: that of `attempts.confinement` where it is one.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Io => "io",
            Self::GroupKill => "cgroup",
            Self::UserNs => "user-ns",
            Self::MountNs => "mount-ns",
            Self::PidNs => "pid-ns",
            Self::IpcNs => "ipc-ns",
            Self::UtsNs => "uts-ns",
            Self::CgroupNs => "cgroup-ns",
            Self::NetNs => "net-ns",
            Self::Landlock => "landlock",
            Self::LandlockTcp => "landlock-tcp",
            Self::Seccomp => "seccomp",
            Self::PidMax => "pid-max",
            Self::ProcessLimit => "nproc",
        }
    }
}

/// What a type was given to hold, of which `require` promises all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its network.
    pub network: Network,
    /// It has `limits.memory`.
    pub memory: bool,
    /// It has `limits.cpu`.
    pub cpu: bool,
    /// It has `limits.cpu_weight`.
    pub cpu_weight: bool,
    /// It has `limits.pids`.
    pub pids: bool,
    /// It has `limits.io_read`.
    pub io_read: bool,
    /// It has `limits.io_write`.
    pub io_write: bool,
}

/// Something that a key needs: any one of these pieces is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The key within its type, such as `limits.memory`.
    pub key: &'static str,
    /// The pieces, that to be recommended first.
    pub any_of: &'static [Piece],
}

const fn need(key: &'static str, any_of: &'static [Piece]) -> Need {
    Need { key, any_of }
}

/// Everything that is needed, in the order in which it is told.
#[must_use]
pub fn needs(wanted: &Wanted) -> Vec<Need> {
    let mut needs = vec![
        need("confine", &[Piece::UserNs]),
        need("confine", &[Piece::MountNs]),
        need("confine", &[Piece::PidNs]),
        need("confine", &[Piece::IpcNs]),
        need("confine", &[Piece::UtsNs]),
        need("confine", &[Piece::CgroupNs]),
        need("confine", &[Piece::Landlock]),
        need("confine", &[Piece::Seccomp]),
    ];
    match &wanted.network {
        Network::None => needs.push(need("network", &[Piece::NetNs])),
        Network::Tcp(_) => needs.push(need("network", &[Piece::LandlockTcp])),
        Network::Host => {}
    }
    if wanted.memory {
        needs.push(need("limits.memory", &[Piece::Memory]));
    }
    if wanted.cpu {
        needs.push(need("limits.cpu", &[Piece::Cpu]));
    }
    if wanted.cpu_weight {
        needs.push(need("limits.cpu_weight", &[Piece::Cpu]));
    }
    if wanted.pids {
        needs.push(need("limits.pids", &[Piece::Pids, Piece::PidMax, Piece::ProcessLimit]));
    }
    if wanted.io_read {
        needs.push(need("limits.io_read", &[Piece::Io]));
    }
    if wanted.io_write {
        needs.push(need("limits.io_write", &[Piece::Io]));
    }
    needs
}

/// The needs that a host without the `lacked` pieces cannot serve.
#[must_use]
pub fn unmet(wanted: &Wanted, is_lacked: impl Fn(Piece) -> bool) -> Vec<Need> {
    let mut needs = needs(wanted);
    needs.retain(|need| need.any_of.iter().all(|piece| is_lacked(*piece)));
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(wanted: &Wanted, lacked: &[Piece]) -> Vec<&'static str> {
        unmet(wanted, |piece| lacked.contains(&piece)).iter().map(|need| need.key).collect()
    }

    #[test]
    fn only_what_was_written_is_needed() {
        let lacked = [Piece::Memory, Piece::Cpu, Piece::Pids, Piece::PidMax, Piece::GroupKill];
        assert_eq!(keys(&Wanted::default(), &lacked), Vec::<&str>::new());
        let wanted = Wanted { memory: true, cpu: true, ..Wanted::default() };
        assert_eq!(keys(&wanted, &lacked), ["limits.memory", "limits.cpu"]);
        let wanted =
            Wanted { cpu_weight: true, io_read: true, io_write: true, ..Wanted::default() };
        let all = ["limits.cpu_weight", "limits.io_read", "limits.io_write"];
        assert_eq!(keys(&wanted, &[Piece::Cpu, Piece::Io]), all);
    }

    #[test]
    fn a_limit_of_processes_is_kept_by_any_of_three_pieces() {
        let wanted = Wanted { pids: true, ..Wanted::default() };
        let all = [Piece::Pids, Piece::PidMax, Piece::ProcessLimit];
        for spared in all {
            let lacked: Vec<_> = all.into_iter().filter(|piece| *piece != spared).collect();
            assert_eq!(keys(&wanted, &lacked), Vec::<&str>::new(), "{spared:?}");
        }
        assert_eq!(keys(&wanted, &all), ["limits.pids"]);
    }

    #[test]
    fn each_network_needs_its_own_wall() {
        let lacked = [Piece::NetNs, Piece::LandlockTcp];
        let of = |network| keys(&Wanted { network, ..Wanted::default() }, &lacked);
        assert_eq!(of(Network::None), ["network"]);
        assert_eq!(of(Network::Tcp(vec![443])), ["network"]);
        assert_eq!(of(Network::Host), Vec::<&str>::new());
    }

    #[test]
    fn every_wall_of_the_confinement_is_needed() {
        for piece in [
            Piece::UserNs,
            Piece::MountNs,
            Piece::PidNs,
            Piece::IpcNs,
            Piece::UtsNs,
            Piece::CgroupNs,
            Piece::Landlock,
            Piece::Seccomp,
        ] {
            assert_eq!(keys(&Wanted::default(), &[piece]), ["confine"], "{piece:?}");
        }
    }
}
