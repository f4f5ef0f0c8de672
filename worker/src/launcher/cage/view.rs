//! What a program sees: the system's public files, and what its order names. Says where things
//! are; nothing is opened here.

use super::order::{Access, CageOrder, Shown};
use shiftboss_protocol::confine::Network;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where programs and libraries lie. Of these those that are links (on a system with one merged
/// /usr) are links in the cage too.
const SYSTEM: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// Files and folders of /etc that programs need to start, to name users, times and types, and
/// to check certificates. No file in them holds a secret.
const ETC: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "fonts",
    "group",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki/tls/certs",
    "pki/ca-trust/extracted",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
];

/// Which servers resolve names: of use only with a network.
const RESOLVER: &str = "resolv.conf";

/// Device nodes that every program may use.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Where graphics libraries look for the devices that a type was given.
const DEVICE_FACTS: &[&str] = &["/sys/dev/char", "/sys/devices", "/sys/class/drm"];

/// One thing that a program sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A public file or folder of the system, read-only. Links of the host are followed; what
    /// does not exist is left out.
    Public(PathBuf),
    /// A link to such a folder.
    Link { path: PathBuf, target: PathBuf },
    /// A device node; of those that the order names, the place in its list.
    Device { path: PathBuf, named: Option<usize> },
    /// What the order shows, by its place there.
    Shown { at: usize, shown: Shown },
}

impl Item {
    /// Where the program sees it.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Public(path) | Self::Link { path, .. } | Self::Device { path, .. } => path,
            Self::Shown { shown, .. } => path_of(&shown.path),
        }
    }
}

/// All that a program sees, what lies above before what lies below it.
#[derive(Debug)]
pub(super) struct View(pub(super) Vec<Item>);

impl View {
    pub(super) fn of(order: &CageOrder) -> Self {
        let system = SYSTEM.iter().map(|path| {
            let path = PathBuf::from(path);
            match path.read_link() {
                Ok(target) => Item::Link { path, target },
                Err(_) => Item::Public(path),
            }
        });
        let mut items: Vec<Item> = system.collect();
        let resolver = (order.network != Network::None).then_some(RESOLVER);
        let etc = ETC.iter().copied().chain(resolver);
        items.extend(etc.map(|name| Item::Public(Path::new("/etc").join(name))));
        let device = |path: &Path, named| Item::Device { path: path.to_owned(), named };
        items.extend(DEVICES.iter().map(|path| device(Path::new(path), None)));
        let named = order.devices.iter().enumerate();
        items.extend(named.map(|(at, path)| device(path_of(path), Some(at))));
        if !order.devices.is_empty() {
            items.extend(DEVICE_FACTS.iter().map(|path| Item::Public(path.into())));
        }
        let shown = order.shown.iter().cloned().enumerate();
        items.extend(shown.map(|(at, shown)| Item::Shown { at, shown }));
        // A stable sort: of two at one place the later one lies on top and is what is seen, so
        // those that may be written come last.
        items.sort_by(|one, other| one.path().cmp(other.path()).then(rank(one).cmp(&rank(other))));
        Self(items)
    }
}

fn rank(item: &Item) -> Option<Access> {
    match item {
        Item::Public(_) | Item::Link { .. } | Item::Device { .. } => None,
        Item::Shown { shown, .. } => Some(shown.access),
    }
}

pub(super) fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Whether every program sees this path anyway.
pub(crate) fn is_system(path: &Path) -> bool {
    SYSTEM.iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str, access: Access) -> Shown {
        let bytes = path.as_bytes().to_vec();
        Shown { path: bytes.clone(), real: bytes, device: 0, inode: 0, access }
    }

    fn paths(order: &CageOrder) -> Vec<String> {
        let View(items) = View::of(order);
        items.iter().map(|item| item.path().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_lies_above_comes_before_what_lies_below_it() {
        let order = CageOrder {
            shown: vec![
                shown("/srv/a/b", Access::Write),
                shown("/srv/a", Access::Write),
                shown("/srv/a", Access::Read),
            ],
            ..CageOrder::default()
        };
        let View(items) = View::of(&order);
        let at = |wanted: usize| {
            items.iter().position(|item| matches!(item, Item::Shown { at, .. } if *at == wanted))
        };
        assert!(at(2) < at(1) && at(1) < at(0), "{items:?}");
    }

    #[test]
    fn secrets_of_the_system_are_not_shown() {
        let order = CageOrder { network: Network::Host, ..CageOrder::default() };
        let paths = paths(&order);
        assert!(paths.contains(&"/etc/resolv.conf".to_owned()));
        for hidden in ["/etc", "/etc/shadow", "/etc/ssl", "/etc/ssl/private", "/root", "/var", "/"]
        {
            assert!(!paths.iter().any(|path| path == hidden), "{hidden}");
        }
        assert!(!self::paths(&CageOrder::default()).contains(&"/etc/resolv.conf".to_owned()));
    }

    #[test]
    fn system_paths_are_told_by_whole_names() {
        assert!(is_system(Path::new("/usr/bin/true")) && is_system(Path::new("/bin/sh")));
        assert!(!is_system(Path::new("/usrlocal/x")) && !is_system(Path::new("/opt/tool")));
    }
}
