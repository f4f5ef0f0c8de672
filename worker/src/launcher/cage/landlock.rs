//! Landlock: what the root shows may be read, what it lets write may be written, and nothing
//! else; no TCP but the ports of the type; no signal and no abstract socket out of the cage.

use super::held::Held;
use super::order::{Access as Use, CageOrder};
use super::source::Source;
use super::view::Item;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};
use shiftboss_protocol::confine::{Network, Wall};
use std::io;

/// The newest rules that this program knows. Of those the kernel enforces what it knows.
const NEWEST: ABI = ABI::V10;

/// The first rules that bound the ports of TCP.
const PORTS_SINCE: u32 = 4;

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: libc::c_ulong = 1;

/// Rules that are ready to be put on.
#[derive(Debug)]
pub(super) struct Rules(RulesetCreated);

impl Rules {
    /// Puts them on this process and all that it will start.
    pub(super) fn put_on(self) -> io::Result<()> {
        self.0.restrict_self().map(|_| ()).map_err(io::Error::other)
    }
}

/// Makes the rules. `None`, and noted: this kernel has no Landlock.
pub(super) fn prepare(
    order: &CageOrder,
    sources: &[Source],
    has_root: bool,
    held: &mut Held,
) -> Option<Rules> {
    // Behind a loopback of its own a program may listen and connect as it likes.
    let has_ports = match order.network {
        Network::None => !held.has(Wall::NetNs),
        Network::Host => false,
        Network::Tcp(_) => true,
    };
    let rules = held.put_value(Wall::Landlock(0), || {
        version()?;
        make_rules(order, sources, (has_root, has_ports)).map(Rules).map_err(io::Error::other)
    })?;
    let abi = version().unwrap_or(0).min(NEWEST as u32);
    held.note_landlock(u8::try_from(abi).unwrap_or(u8::MAX));
    if has_ports && abi < PORTS_SINCE {
        held.lack(Wall::Landlock(4), "this kernel's does not bound TCP ports".to_owned());
    }
    Some(rules)
}

fn version() -> io::Result<u32> {
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: asked for its version the kernel reads no memory.
    #[expect(unsafe_code, reason = "the crate keeps the version that it finds to itself")]
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, ASK_VERSION) };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}

fn make_rules(
    order: &CageOrder,
    sources: &[Source],
    (has_root, has_ports): (bool, bool),
) -> Result<RulesetCreated, landlock::RulesetError> {
    let (read, all) = (AccessFs::from_read(NEWEST), AccessFs::from_all(NEWEST));
    let mut ruleset = Ruleset::default().handle_access(all)?;
    if has_ports {
        ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let mut created = ruleset.scope(Scope::from_all(NEWEST))?.create()?;
    for source in sources {
        let Some(opened) = &source.opened else { continue };
        let access = match &source.item {
            Item::Link { .. } => continue,
            Item::Public(_) => read,
            Item::Device { .. } => device(),
            Item::Shown { shown, .. } => match shown.access {
                Use::Connect => AccessFs::ReadDir | AccessFs::ResolveUnix,
                Use::Read => read,
                Use::Write => all,
            },
        };
        created = created.add_rule(PathBeneath::new(opened, access))?;
    }
    if has_root {
        // Only in a root of one's own: these folders of the host are not the program's. What
        // stands in the root itself may be listed.
        for (path, access) in [
            ("/", AccessFs::ReadDir.into()),
            ("/proc", read & !BitFlags::from(AccessFs::Execute)),
            ("/tmp", all),
            ("/dev/shm", all),
        ] {
            if let Ok(folder) = PathFd::new(path) {
                created = created.add_rule(PathBeneath::new(folder, access))?;
            }
        }
    }
    if let Network::Tcp(ports) = &order.network {
        for port in ports {
            created = created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
    }
    Ok(created)
}

fn device() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev
}
