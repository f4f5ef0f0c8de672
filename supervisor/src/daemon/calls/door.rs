//! Who may ask something at the control socket: nobody that this supervisor has to confine.

use crate::os::process::peer::Standing;

/// What is known of ourselves when somebody asks.
pub(super) struct House<'a> {
    /// Our own process.
    pub(super) pid: u32,
    /// Our own cgroup.
    pub(super) group: Option<&'a str>,
    /// Whether a number is that of a living worker.
    pub(super) is_worker: &'a dyn Fn(u32) -> bool,
    /// The cgroups of our workers.
    pub(super) worker_groups: &'a [&'a str],
}

/// Whoever cannot be examined may be anybody.
const UNSEEN: &str = "the process that connected has ended, or /proc does not show it to this \
                      supervisor (hidepid, ProtectProc=)";

/// Why a peer may not ask; `None`: it may.
///
/// A worker that was taken over by its hostile job, or a program that got past its cage, has our
/// user's rights on the socket. It is known by any of these: it stems from us or from one of our
/// workers (also one that was not our child), it lives in a pid namespace below ours (no
/// administrator does), or in the cgroup of a worker.
pub(super) fn why_not(standing: Option<&Standing>, house: &House<'_>) -> Option<&'static str> {
    let Some(standing) = standing else {
        return Some(UNSEEN);
    };
    if standing.line.iter().any(|pid| (house.is_worker)(*pid)) {
        return Some("it is a worker of this supervisor, or was started by one");
    }
    // Whatever a dead worker leaves behind becomes our child.
    if standing.line.iter().skip(1).any(|pid| *pid == house.pid) {
        return Some("it was started by this supervisor");
    }
    if standing.namespaces != 1 {
        return Some("it is in a pid namespace of its own");
    }
    let group = standing.group.as_deref();
    let is_in = |worker_group: &str| {
        // Without groups of their own our workers are where we are, and so are honest clients.
        let is_own = house.group.is_none_or(|own| own == worker_group);
        !is_own && group.is_some_and(|group| is_below(group, slot_of(worker_group)))
    };
    if house.worker_groups.iter().any(|group| is_in(group)) {
        return Some("it is in the cgroup of a worker");
    }
    None
}

/// A worker's group and those of its jobs lie in that of its slot.
fn slot_of(worker_group: &str) -> &str {
    worker_group.strip_suffix("/worker").unwrap_or(worker_group)
}

fn is_below(group: &str, of: &str) -> bool {
    group.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u32 = 10;
    const WORKER: u32 = 20;

    fn asked(line: &[u32], namespaces: usize, group: &str) -> Option<&'static str> {
        let group = Some(group.to_owned());
        let standing = Standing { line: line.to_vec(), namespaces, group };
        let groups = ["/unit/encode-0/worker", "/unit/supervisor"];
        why_not(
            Some(&standing),
            &House {
                pid: US,
                group: Some("/unit/supervisor"),
                is_worker: &|pid| pid == WORKER,
                worker_groups: &groups,
            },
        )
    }

    #[test]
    fn an_ordinary_client_may_ask() {
        assert_eq!(asked(&[99, 2, 1], 1, "/user/session"), None);
        // Beside us in the unit, as `ExecReload=` is.
        assert_eq!(asked(&[99, 1], 1, "/unit/.control"), None);
        assert_eq!(asked(&[99, 1], 1, "/unit/supervisor"), None);
        assert_eq!(asked(&[99, 1], 1, "/unit/encode-00/x"), None);
        assert_eq!(asked(&[US, 1], 1, "/unit/supervisor"), None, "we ourselves");
    }

    #[test]
    fn nobody_asks_whom_we_have_to_confine() {
        let of = |line: &[u32], namespaces, group| asked(line, namespaces, group).expect("refused");
        assert!(of(&[WORKER, 1], 1, "/").contains("a worker"));
        assert!(of(&[99, 98, WORKER, US, 1], 1, "/").contains("started by one"));
        assert!(of(&[99, US, 1], 1, "/").contains("started by this supervisor"));
        assert!(of(&[99, 1], 2, "/").contains("pid namespace"));
        for group in ["/unit/encode-0/worker", "/unit/encode-0/job-1", "/unit/encode-0/job-0/deep"]
        {
            assert!(of(&[99, 1], 1, group).contains("cgroup"), "{group}");
        }
        let house = House { pid: US, group: None, is_worker: &|_| false, worker_groups: &["/any"] };
        assert_eq!(why_not(None, &house), Some(UNSEEN));
        let standing = Standing { line: vec![99], namespaces: 1, group: Some("/any".to_owned()) };
        assert_eq!(why_not(Some(&standing), &house), None, "our own group is not known");
    }
}
