//! Which parts of a cage hold, and which are missing for what reason.

use super::Refusal;
use super::order::CageOrder;
use crate::launcher::Step;
use shiftboss_protocol::confine::{InForce, Wall};
use std::io;

/// What the owner of a host can do about a wall that is missing.
const fn remedy(wall: Wall) -> &'static str {
    match wall {
        Wall::UserNs => {
            "allow user namespaces: sysctl user.max_user_namespaces above 0, and \
             kernel.unprivileged_userns_clone = 1 or an AppArmor profile where the \
             distribution has these"
        }
        Wall::MountNs | Wall::PidNs | Wall::IpcNs | Wall::UtsNs | Wall::CgroupNs => {
            "allow namespaces: in a container its seccomp profile must allow unshare and \
             mount; in a systemd unit RestrictNamespaces must be unset"
        }
        Wall::NetNs => "allow network namespaces, or set network = \"host\" for the type",
        Wall::Landlock(_) => {
            "boot a kernel from 5.13 on (for TCP ports from 6.7 on) with landlock in its lsm= list"
        }
        Wall::Seccomp | Wall::NoNewPrivs => {
            "use a kernel with CONFIG_SECCOMP_FILTER, and allow the system call seccomp (a unit's \
             SystemCallFilter=, a container's profile)"
        }
        Wall::Cgroup => "delegate a cgroup v2 tree to the supervisor (Delegate=yes)",
        Wall::Rlimits => "raise the hard limits of the supervisor",
    }
}

/// What holds of a cage and what does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    holds: Vec<Wall>,
    missing: Vec<(Wall, String)>,
    /// What a test wants to be missing.
    lacks: Vec<String>,
}

impl Held {
    /// Nothing holds yet.
    pub(crate) fn new(lacks: Vec<String>) -> Self {
        Self { lacks, ..Self::default() }
    }

    pub(crate) fn has(&self, wall: Wall) -> bool {
        self.holds.contains(&wall)
    }

    /// Tries a part, and notes whether it holds or why not.
    pub(crate) fn put(&mut self, wall: Wall, step: impl FnOnce() -> io::Result<()>) {
        self.put_value(wall, step);
    }

    /// The same for a step that makes something.
    pub(crate) fn put_value<T>(
        &mut self,
        wall: Wall,
        step: impl FnOnce() -> io::Result<T>,
    ) -> Option<T> {
        let pretended = self.lacks.contains(&wall.to_string());
        let done = if pretended { Err(io::Error::other("a test wants that")) } else { step() };
        match done {
            Ok(value) => {
                self.holds.push(wall);
                Some(value)
            }
            Err(error) => {
                self.missing.push((wall, error.to_string()));
                None
            }
        }
    }

    /// Which version of Landlock's rules is in force, after [`Wall::Landlock`] was put.
    pub(super) fn note_landlock(&mut self, abi: u8) {
        self.holds.retain(|wall| *wall != Wall::Landlock(0));
        self.holds.push(Wall::Landlock(abi));
    }

    /// A part of a wall is missing.
    pub(super) fn lack(&mut self, wall: Wall, reason: String) {
        self.missing.push((wall, reason));
    }

    /// Under `require`, refuses a cage that is not whole.
    pub(crate) fn settle(&self, order: &CageOrder) -> Result<(), Refusal> {
        if !order.is_required {
            return Ok(());
        }
        let Some((wall, reason)) = self.missing.first() else { return Ok(()) };
        let reason = format!("this host cannot give {wall} ({reason}); {}", remedy(*wall));
        Err(Refusal { step: Step::Confinement, error: io::Error::other(reason) })
    }

    /// For people and for the record.
    pub(crate) fn in_force(&self) -> InForce {
        let mut in_force = InForce::default();
        for wall in &self.holds {
            in_force.add(*wall);
        }
        for (wall, reason) in &self.missing {
            in_force.lack(*wall, reason.as_str());
        }
        in_force
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(lacks: &[&str]) -> Held {
        let mut held = Held::new(lacks.iter().map(|lack| (*lack).to_owned()).collect());
        held.put(Wall::Landlock(0), || Ok(()));
        held.note_landlock(7);
        held.put(Wall::UserNs, || Ok(()));
        held.put(Wall::PidNs, || Err(io::Error::from_raw_os_error(libc::EPERM)));
        held
    }

    #[test]
    fn what_holds_is_told_and_what_is_missing_for_what_reason() {
        let text = held(&[]).in_force().to_string();
        assert!(text.starts_with("user-ns, landlock-7; missing: pid-ns (Operation not"), "{text}");
        let text = held(&["user-ns"]).in_force().to_string();
        assert!(text.starts_with("landlock-7; missing: user-ns (a test wants that); "), "{text}");
    }

    #[test]
    fn require_refuses_a_cage_that_is_not_whole_and_names_the_remedy() {
        let mut order = CageOrder { is_required: true, ..CageOrder::default() };
        let refusal = held(&["user-ns"]).settle(&order).expect_err("user-ns is missing");
        let reason = refusal.error.to_string();
        assert!(reason.contains("user-ns") && reason.contains("user.max_user_namespaces"));
        let mut whole = Held::default();
        whole.note_landlock(3);
        assert!(whole.settle(&order).is_ok());
        whole.lack(Wall::Landlock(4), "TCP ports are not bounded".to_owned());
        let refusal = whole.settle(&order).expect_err("ports are not bounded");
        assert!(refusal.error.to_string().contains("from 6.7 on"));
        order.is_required = false;
        assert!(held(&[]).settle(&order).is_ok());
    }
}
