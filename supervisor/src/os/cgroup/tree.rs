//! Finds the group that is ours to divide, and says what can be enforced in it.
//!
//! Under systemd with `DelegateSubgroup=supervisor` that is the unit's own group, whose leaf
//! `supervisor` holds this process. Elsewhere it is a group of our own below that of this process.
//! A group that holds processes cannot hand controllers down (the kernel's rule), and one that
//! hands them down takes no processes: a unit without the subgroup could not be started again.

use super::{Controller, Lack, cpu, group, slot};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The leaf that systemd puts this process into (`DelegateSubgroup=`).
pub const SUBGROUP: &str = "supervisor";

const REMEDY_DELEGATE: &str = "run as a service with Delegate=yes and DelegateSubgroup=supervisor \
                               (systemd 254 or newer), or as root";
const REMEDY_SUBGROUP: &str = "add DelegateSubgroup=supervisor to the unit, which needs systemd \
                               254 or newer";
const REMEDY_MOUNT: &str = "mount cgroup v2 on /sys/fs/cgroup and make it writable here (in a \
                            container: a delegated group of its own)";
const REMEDY_CONTROLLERS: &str = "boot with cgroup v2 alone \
                                  (systemd.unified_cgroup_hierarchy=1) and delegate the controller";
const REMEDY_KERNEL: &str = "a kernel of 5.14 or newer; until then groups are frozen and swept";

/// Where our groups go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The group that all of ours lie in.
    pub base: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// This process is in the leaf `supervisor` of the base.
    Subgroup,
    /// The base is made by us, below the group of this process.
    Below,
    /// The base is the group of this process, a unit's without subgroup: no controllers there.
    Unit,
}

/// The group that is ours, ready for use.
#[derive(Clone, Debug)]
pub struct Tree {
    place: Place,
    lacks: BTreeMap<Controller, Lack>,
}

/// What can be enforced here: for each part nothing, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where, when there is a place at all.
    pub base: Option<PathBuf>,
    /// Killing a whole tree at once.
    pub kill: Option<Lack>,
    /// Limits, by what enforces them.
    pub limits: BTreeMap<Controller, Option<Lack>>,
}

impl Offer {
    /// Why this limit cannot be enforced; `None`: it can.
    #[must_use]
    pub fn lack_of(&self, controller: Controller) -> Option<&Lack> {
        self.limits.get(&controller).and_then(Option::as_ref)
    }
}

/// Where our groups go on this host; `name` is that of a base that we make ourselves, unlike
/// for every database and instance.
///
/// # Errors
/// There is no hierarchy, or this process is outside of what is mounted.
pub fn find(name: &str) -> Result<Place, Lack> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    place(&read("/proc/self/mounts"), &read("/proc/self/cgroup"), name)
}

fn place(mounts: &str, own: &str, name: &str) -> Result<Place, Lack> {
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place.replace("\\040", " ")))
    });
    let lack = |why: &str, remedy| Lack { why: why.to_owned(), remedy };
    let mount = mount.ok_or_else(|| lack("cgroup v2 is not mounted", REMEDY_MOUNT))?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"));
    let own = own.ok_or_else(|| lack("this process has no cgroup v2 group", REMEDY_MOUNT))?;
    if own.split('/').any(|part| part == "..") {
        return Err(lack("this process is outside of the cgroup v2 that is mounted", REMEDY_MOUNT));
    }
    let own = mount.join(own.trim_start_matches('/'));
    let last = own.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (base, kind) = match own.parent() {
        Some(parent) if last == SUBGROUP && own != mount => (parent.to_owned(), Kind::Subgroup),
        _ if last.ends_with(".service") => (own.clone(), Kind::Unit),
        _ => (own.join(name), Kind::Below),
    };
    Ok(Place { mount, base, kind })
}

/// What could be enforced, found without changing anything.
#[must_use]
pub fn offer(found: &Result<Place, Lack>) -> Offer {
    let place = match found {
        Ok(place) => place,
        Err(lack) => {
            let limits = Controller::ALL.map(|one| (one, Some(lack.clone())));
            return Offer { base: None, kill: Some(lack.clone()), limits: limits.into() };
        }
    };
    let closed = place.unwritable();
    let limits = Controller::ALL.map(|one| {
        let lack = closed.clone().or_else(|| place.lack_of(one));
        (one, lack)
    });
    let kill = closed.or_else(|| place.lack_of_kill());
    Offer { base: Some(place.base.clone()), kill, limits: limits.into() }
}

impl Place {
    /// The group in which the base lies or is.
    fn parent(&self) -> &Path {
        match self.kind {
            Kind::Subgroup | Kind::Unit => &self.base,
            Kind::Below => self.base.parent().unwrap_or(&self.base),
        }
    }

    /// Why no group can be made, if none can.
    fn unwritable(&self) -> Option<Lack> {
        // The number keeps supervisors that look at the same time apart.
        let trial = self.parent().join(format!("shiftboss-trial-{}", std::process::id()));
        let made = fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial));
        made.err().map(|error| self.refusal(&error))
    }

    fn refusal(&self, error: &io::Error) -> Lack {
        let parent = self.parent().display();
        let remedy = match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => REMEDY_MOUNT,
            _ => REMEDY_DELEGATE,
        };
        Lack { why: format!("no control group can be made in {parent} ({error})"), remedy }
    }

    fn lack_of_kill(&self) -> Option<Lack> {
        // The root has none of its own, every other group has or has not.
        let any = [&self.base, self.parent()].map(|dir| dir.join("cgroup.kill").exists());
        let is_root = !self.parent().join("cgroup.type").exists();
        let has = any.contains(&true) || (is_root && knows_kill());
        (!has).then(|| Lack {
            why: "this kernel cannot kill a control group at once".to_owned(),
            remedy: REMEDY_KERNEL,
        })
    }

    /// Why a controller cannot limit our groups, if it cannot.
    fn lack_of(&self, controller: Controller) -> Option<Lack> {
        let dir = self.parent();
        let is_in = |file: &str| {
            let list = fs::read_to_string(dir.join(file)).unwrap_or_default();
            list.split_whitespace().any(|one| one == controller.name())
        };
        let lack = |why: String, remedy| Some(Lack { why, remedy });
        let shown = dir.display();
        if !is_in("cgroup.controllers") {
            let why = format!("the {controller} controller is not offered in {shown}");
            return lack(why, REMEDY_CONTROLLERS);
        }
        // The real root is the one group without a type; processes in it are allowed.
        let is_root = !dir.join("cgroup.type").exists();
        match self.kind {
            Kind::Unit => lack(
                format!("the unit's own control group {shown} holds the supervisor"),
                REMEDY_SUBGROUP,
            ),
            Kind::Below if !is_root && !is_in("cgroup.subtree_control") => {
                let why = format!(
                    "the control group {shown} holds processes and hands down no \
                                   {controller} controller"
                );
                lack(why, REMEDY_DELEGATE)
            }
            Kind::Subgroup | Kind::Below => None,
        }
    }
}

impl Tree {
    /// Makes the base and hands down every controller that can be.
    ///
    /// # Errors
    /// No group can be made.
    pub fn set_up(place: Place) -> Result<Self, Lack> {
        match place.kind {
            Kind::Below => {
                group::make(&place.base).map_err(|error| place.refusal(&io_cause(&error)))?;
            }
            Kind::Subgroup | Kind::Unit => {
                if let Some(lack) = place.unwritable() {
                    return Err(lack);
                }
            }
        }
        let mut lacks = BTreeMap::new();
        for controller in Controller::ALL {
            let lack = place.lack_of(controller).or_else(|| {
                let above = (place.kind == Kind::Below).then(|| place.parent().to_owned());
                let dirs = above.into_iter().chain([place.base.clone()]);
                dirs.filter_map(|dir| hand_down(&dir, controller).err()).next()
            });
            if let Some(lack) = lack {
                lacks.insert(controller, lack);
            }
        }
        let tree = Self { place, lacks };
        if tree.place.kind == Kind::Subgroup && tree.offers(Controller::Cpu) {
            // It must answer while programs use all CPUs. Without it, it answers later.
            if let Err(error) = cpu::weigh(&tree.base().join(SUBGROUP), cpu::WEIGHT_HIGH) {
                tracing::warn!(%error, "the supervisor has no larger share of CPU time than jobs");
            }
        }
        Ok(tree)
    }

    /// A tree in an ordinary folder, that offers these controllers.
    #[cfg(test)]
    pub(crate) fn of(base: &Path, controllers: &[Controller]) -> Self {
        let place = Place { mount: base.to_owned(), base: base.to_owned(), kind: Kind::Below };
        let lacking = Controller::ALL.into_iter().filter(|one| !controllers.contains(one));
        let lack = Lack { why: "not offered".to_owned(), remedy: "none" };
        Self { place, lacks: lacking.map(|one| (one, lack.clone())).collect() }
    }

    /// The group that all of ours lie in.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.place.base
    }

    /// Where the hierarchy is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.place.mount
    }

    /// True when the controller limits our groups.
    #[must_use]
    pub fn offers(&self, controller: Controller) -> bool {
        !self.lacks.contains_key(&controller)
    }

    /// The controllers that limit our groups.
    #[must_use]
    pub fn controllers(&self) -> BTreeSet<Controller> {
        Controller::ALL.into_iter().filter(|one| self.offers(*one)).collect()
    }

    /// Why a controller does not.
    #[must_use]
    pub fn lack_of(&self, controller: Controller) -> Option<&Lack> {
        self.lacks.get(&controller)
    }

    /// Groups of slots that exist: of live workers, and what a crash left.
    #[must_use]
    pub fn slots(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.base()).into_iter().flatten().flatten();
        let names = entries.filter(|entry| {
            entry.file_type().is_ok_and(|kind| kind.is_dir())
                && entry.file_name().to_str().is_some_and(slot::is_name)
        });
        names.map(|entry| entry.path()).collect()
    }

    /// The base that another supervisor made beside ours, under this name, if there is one.
    #[must_use]
    pub fn beside(&self, name: &str) -> Option<Self> {
        let base = self.place.parent().join(name);
        let place = Place { base, ..self.place.clone() };
        (place.kind == Kind::Below && place.base.is_dir())
            .then(|| Self { place, lacks: self.lacks.clone() })
    }

    /// Removes a base that we made, when nothing is left in it.
    pub fn dismantle(&self) {
        if self.place.kind == Kind::Below {
            // Fails where a worker lives on, for its next supervisor.
            let _ = fs::remove_dir(self.base());
        }
    }
}

/// Lets the groups below `dir` be limited by a controller.
pub(super) fn hand_down(dir: &Path, controller: Controller) -> Result<(), Lack> {
    let file = "cgroup.subtree_control";
    let has = || {
        let list = fs::read_to_string(dir.join(file)).unwrap_or_default();
        list.split_whitespace().any(|one| one == controller.name())
    };
    if has() {
        return Ok(());
    }
    let refused = match super::write(dir, file, &format!("+{controller}")) {
        Ok(()) if has() => return Ok(()),
        Ok(()) => "the kernel does not keep it".to_owned(),
        Err(error) => io_cause(&error).to_string(),
    };
    let shown = dir.display();
    let why = format!("the {controller} controller cannot be handed down in {shown} ({refused})");
    Err(Lack { why, remedy: REMEDY_DELEGATE })
}

/// Whether groups of this kernel can be killed at once, by its version: the root group, the only
/// one that may exist yet, has no such file on any kernel.
fn knows_kill() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (parts.next(), parts.next()) >= (Some(5), Some(14))
}

fn io_cause(error: &super::Error) -> io::Error {
    let source = std::error::Error::source(error).and_then(|one| one.downcast_ref::<io::Error>());
    let code = source.and_then(io::Error::raw_os_error);
    code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                          cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                          cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    fn found(own: &str) -> (String, Kind) {
        let place = place(MOUNTS, own, "shiftboss-1").expect("there is a place");
        let base = place.base.strip_prefix("/sys/fs/cgroup/unified").expect("in the mount");
        (base.display().to_string(), place.kind)
    }

    #[test]
    fn the_base_is_found_from_the_group_of_this_process() {
        for (own, base, kind) in [
            ("1:cpu:/x\n0::/\n", "shiftboss-1", Kind::Below),
            ("0::/user.slice/a.scope\n", "user.slice/a.scope/shiftboss-1", Kind::Below),
            ("0::/system.slice/s.service/supervisor\n", "system.slice/s.service", Kind::Subgroup),
            ("0::/system.slice/s.service\n", "system.slice/s.service", Kind::Unit),
            // A container whose whole tree is the subgroup's.
            ("0::/supervisor\n", "", Kind::Subgroup),
        ] {
            assert_eq!(found(own), (base.to_owned(), kind), "{own}");
        }
    }

    #[test]
    fn a_host_without_the_hierarchy_says_so_with_a_remedy() {
        for (mounts, own, part) in [
            ("tmpfs /run tmpfs rw 0 0\n", "0::/\n", "not mounted"),
            (MOUNTS, "3:cpu:/\n", "no cgroup v2 group"),
            (MOUNTS, "0::/../other\n", "outside"),
        ] {
            let lack = place(mounts, own, "x").expect_err(part);
            assert!(lack.why.contains(part) && !lack.remedy.is_empty(), "{lack}");
            let offer = offer(&Err(lack.clone()));
            assert_eq!(offer.lack_of(Controller::Memory), Some(&lack));
            assert_eq!((offer.base, offer.kill), (None, Some(lack)));
        }
    }

    fn group(dir: &Path, controllers: &str, subtree: &str) {
        fs::create_dir_all(dir).expect("ours");
        for (file, text) in [
            ("cgroup.controllers", controllers),
            ("cgroup.subtree_control", subtree),
            ("cgroup.type", "domain\n"),
            ("cgroup.kill", ""),
        ] {
            fs::write(dir.join(file), text).expect("ours");
        }
    }

    fn of(base: &Path, kind: Kind) -> Place {
        Place { mount: base.to_owned(), base: base.to_owned(), kind }
    }

    #[test]
    fn controllers_are_offered_only_where_the_kernel_would_hand_them_down() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let unit = dir.path().join("s.service");
        group(&unit, "cpu memory pids\n", "");
        let delegated = offer(&Ok(of(&unit, Kind::Subgroup)));
        assert_eq!(delegated.lack_of(Controller::Memory), None);
        assert_eq!(delegated.kill, None);
        group(&unit, "cpu memory\n", "");
        let fewer = offer(&Ok(of(&unit, Kind::Subgroup)));
        let lack = fewer.lack_of(Controller::Pids).expect("not in the list");
        assert!(lack.why.contains("pids controller is not offered"), "{lack}");
        let undelegated = offer(&Ok(of(&unit, Kind::Unit)));
        let lack = undelegated.lack_of(Controller::Cpu).expect("the unit would be bricked");
        assert!(lack.remedy.contains("DelegateSubgroup=supervisor"), "{lack}");
        let below = |subtree| {
            group(&unit, "cpu memory pids\n", subtree);
            offer(&Ok(of(&unit.join("shiftboss-1"), Kind::Below)))
        };
        let lack = below("memory\n").lack_of(Controller::Pids).cloned().expect("in use");
        assert!(lack.why.contains("holds processes and hands down no pids"), "{lack}");
        assert_eq!(below("memory\n").lack_of(Controller::Memory), None);
    }

    #[test]
    fn a_tree_that_is_missing_is_a_lack_and_not_an_error() {
        let missing = of(Path::new("/nonexistent/base"), Kind::Below);
        let offer = offer(&Ok(missing.clone()));
        let lack = offer.lack_of(Controller::Memory).expect("nothing can be made");
        assert!(lack.why.contains("no control group can be made in /nonexistent"), "{lack}");
        let lack = Tree::set_up(missing).expect_err("nothing can be made");
        assert!(lack.remedy.contains("Delegate=yes"), "{lack}");
    }

    #[test]
    fn a_controller_that_does_not_appear_after_it_was_asked_for_is_told() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        group(dir.path(), "cpu memory pids\n", "");
        // An ordinary file keeps what was written, which no real group would show.
        let tree = Tree::set_up(of(dir.path(), Kind::Subgroup)).expect("groups can be made");
        let lack = tree.lack_of(Controller::Cpu).expect("never handed down");
        assert!(lack.why.contains("does not keep it"), "{lack}");
        group(dir.path(), "cpu memory pids\n", "cpu memory pids\n");
        let tree = Tree::set_up(of(dir.path(), Kind::Subgroup)).expect("groups can be made");
        assert_eq!(tree.controllers().len(), 3);
    }
}
