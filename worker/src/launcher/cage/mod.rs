//! The cage around one program: what it sees, what it may call, what it may become.
//!
//! The launcher (`inside.rs`) enters the namespaces that its child is born into, the keeper
//! (`keeper.rs`, pid 1 of the cage) does the rest in the order of [`put_on`], and the program's
//! own process the last steps ([`Walls::close`]). Where the kernel or its owner refuses a step,
//! the others still hold, and [`Held`] says so.

mod capabilities;
mod held;
mod landlock;
mod lookup;
mod namespaces;
mod order;
mod root;
mod seccomp;
mod source;
mod view;

pub(crate) use held::Held;
pub(crate) use lookup::open_without_links;
pub(crate) use namespaces::enter_before_fork;
pub(crate) use order::{Access, CageOrder, Shown};
pub(crate) use view::is_system;

use super::Step;
use seccomp::Filter;
use shiftboss_protocol::confine::Wall;
use std::io;
use view::View;

/// Why a program is not started in its cage.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) step: Step,
    pub(crate) error: io::Error,
}

/// What the program's own process still has to put on, between fork and exec.
#[derive(Debug)]
pub(crate) struct Walls {
    rules: Option<landlock::Rules>,
    filter: Option<Filter>,
}

/// Confines this process, the keeper, for good. What it sees afterwards is what its program
/// will see.
///
/// # Errors
/// A path of the order that cannot be shown, or capabilities that are left.
pub(crate) fn put_on(order: &CageOrder, held: &mut Held) -> Result<Walls, Refusal> {
    // Everything else that makes this cage is one's own from here on: also the mounts, which
    // nobody else is to see. Before any path is opened, because a descriptor of one mount
    // namespace cannot be mounted in another.
    let has_mounts = namespaces::enter_after_fork(order, held);
    // While /proc can be written, which the new root does not allow.
    namespaces::bound(order, held);
    // All paths are looked up here, once, with no more rights than the program will have, and
    // held by descriptors from then on: mounting over a folder must not hide another one, and
    // nothing may change what a checked path means.
    let view = View::of(order);
    let sources = source::open_all(&view)?;
    if has_mounts {
        // A root of its own, and /proc before the old root goes: the kernel only mounts a new
        // one beside an old one that is whole.
        let has_own_pids = held.has(Wall::PidNs);
        held.put(Wall::MountNs, || root::change(&sources, has_own_pids));
    }
    let (has_root, has_net) = (held.has(Wall::MountNs), held.has(Wall::NetNs));
    // No later step needs a capability, and the next one makes sure that none comes back.
    capabilities::drop_all().map_err(confinement)?;
    held.put(Wall::NoNewPrivs, || Ok(rustix::thread::set_no_new_privs(true)?));
    // Made here, where the descriptors are; put on by the program's process, so that pid 1
    // stays outside of its domain: a program cannot signal or trace what is outside.
    let rules = landlock::prepare(order, &sources, has_root, held);
    let (has_ipc, has_pids) = (held.has(Wall::IpcNs), held.has(Wall::PidNs));
    let filter = held.put_value(Wall::Seccomp, || {
        let filter = || Filter::new(&order.network, has_root, has_net).without(has_ipc, has_pids);
        seccomp::is_available().map(|()| filter())
    });
    Ok(Walls { rules, filter })
}

/// Confines this process itself, for good: a worker that starts no program, and makes no call
/// but `calls`. It must have one thread.
///
/// # Errors
/// As [`put_on`].
pub(crate) fn confine_self(
    order: &CageOrder,
    held: &mut Held,
    calls: &[libc::c_long],
) -> Result<(), Refusal> {
    // Without a pid namespace: only a child is born into one, and the kernel gives no thread to
    // a process whose children are to be born elsewhere.
    namespaces::enter_user(held);
    let mut walls = put_on(order, held)?;
    let has_net = held.has(Wall::NetNs);
    walls.filter = walls.filter.map(|_| Filter::only(calls, order, has_net));
    walls.close().map_err(confinement)
}

/// Takes from a worker that starts programs what building their cages does not need.
///
/// # Errors
/// A step fails that needs no right at all.
pub(crate) fn ease(held: &mut Held) -> io::Result<()> {
    capabilities::keep_for_cages()?;
    held.put(Wall::NoNewPrivs, || Ok(rustix::thread::set_no_new_privs(true)?));
    held.put(Wall::Seccomp, || {
        seccomp::is_available()?;
        Filter::light().install()
    });
    Ok(())
}

/// Takes from a process that runs the operator's own commands what neither it nor they need: every
/// capability, every way to more rights, and what [`Filter::light`] refuses, where the kernel has
/// filters.
///
/// # Errors
/// A step fails that needs no right at all.
pub(crate) fn strip() -> io::Result<()> {
    capabilities::drop_all()?;
    rustix::thread::set_no_new_privs(true)?;
    match seccomp::is_available() {
        Ok(()) => Filter::light().install(),
        Err(_) => Ok(()),
    }
}

impl Walls {
    /// The last steps, in the process that is about to become the program. Landlock before
    /// seccomp, which may refuse what Landlock needs; seccomp last of all.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        if let Some(rules) = self.rules.take() {
            rules.put_on()?;
        }
        self.filter.as_ref().map_or(Ok(()), Filter::install)
    }
}

fn confinement(error: io::Error) -> Refusal {
    Refusal { step: Step::Confinement, error }
}
