//! Capabilities: all given up, and no way back to any.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits,
};
use std::io;

/// Bits of a capability set that the kernel has room for.
const BITS: u32 = 64;

const NONE: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

/// Gives up every capability of this process in every set, and locks what could give one back
/// to user id 0 at an exec.
///
/// # Errors
/// One is left.
pub(crate) fn drop_all() -> io::Result<()> {
    let refused = |error: Errno| if error == Errno::PERM { Ok(()) } else { Err(error) };
    // The bounding set and the bits first: both need CAP_SETPCAP. A process that never had it
    // is told EPERM, and has nothing to lose.
    for bit in 0..BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(Errno::INVAL) => break,
            Err(error) => refused(error)?,
        }
    }
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )
    .or_else(refused)?;
    clear_ambient_capability_set().or_else(|error| {
        // A kernel before 4.3 has no such set.
        if error == Errno::INVAL { Ok(()) } else { Err(error) }
    })?;
    set_capabilities(None, NONE)?;
    let left = capabilities(None)?;
    if left == NONE { Ok(()) } else { Err(io::Error::other("capabilities are left")) }
}

/// What building a cage takes: dropping groups and capabilities, and namespaces and mounts where
/// there is no user namespace to have these rights in; and what the kernel asks of whoever maps
/// user id 0 into one (CAP_SETFCAP, since Linux 5.12). Not among them is the right to pass by
/// the owners of files: what a program may not reach, its worker need not either.
const FOR_CAGES: CapabilitySet = CapabilitySet::SETGID
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::NET_ADMIN);

/// Gives up every capability but those that building a cage may take.
///
/// # Errors
/// The kernel refuses that.
pub(crate) fn keep_for_cages() -> io::Result<()> {
    for bit in 0..BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if FOR_CAGES.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The first number that this kernel does not know; or nothing that could be lost.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let sets = capabilities(None)?;
    let kept = CapabilitySets {
        effective: sets.effective & FOR_CAGES,
        permitted: sets.permitted & FOR_CAGES,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, kept)?)
}

/// Runs `step` without any effective capability: with the rights that everybody of this user
/// has. They are back afterwards.
pub(crate) fn without<T>(step: impl FnOnce() -> T) -> io::Result<T> {
    let sets = capabilities(None)?;
    set_capabilities(None, CapabilitySets { effective: CapabilitySet::empty(), ..sets })?;
    let value = step();
    set_capabilities(None, sets)?;
    Ok(value)
}
