//! The seal of a worker that starts no program: put on before Ready, by the process itself, for
//! good. What its supervisor and its jobs need is shown to it, and nothing else.
//!
//! The walls are those of a program's cage ([`crate::launcher`]), with another list of calls:
//! [`calls`]. There is no pid namespace: only a child could be in one, and there is none.

mod calls;

use crate::launcher::{self, Access, CageOrder, Held, Shown, Step, confine_self};
use crate::program::cage_lacks;
use calls::ALLOWED;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use shiftboss_protocol::confine::{Confine, InForce};
use shiftboss_protocol::message::Settings;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Whether this process is sealed: then it starts no program.
static SEALED: OnceLock<()> = OnceLock::new();

/// True once [`put_on`] has been called.
pub(crate) fn is_on() -> bool {
    SEALED.get().is_some()
}

/// Seals this process, which must have one thread. `socket` is where its supervisors listen.
///
/// # Errors
/// A sentence: what is missing where the type requires everything, or which of its own folders
/// cannot be shown.
pub(crate) fn put_on(settings: &Settings, socket: &Path) -> Result<InForce, String> {
    let shown = all_shown(settings, socket)?;
    let order = CageOrder {
        shown: shown.iter().map(|one| one.shown.clone()).collect(),
        network: settings.network.clone(),
        devices: settings.devices.iter().map(|path| path.as_bytes().to_vec()).collect(),
        processes_max: 0,
        is_required: settings.confine == Confine::Require,
        lacks: cage_lacks(),
    };
    let mut held = Held::new(order.lacks.clone());
    let _ = SEALED.set(());
    confine_self(&order, &mut held, ALLOWED).map_err(|refusal| {
        let what = match refusal.step {
            Step::Shown(at) => {
                let path = shown.get(at as usize).map(|one| one.path.display().to_string());
                format!("cannot show {} to it", path.unwrap_or_default())
            }
            Step::Device(at) => {
                let path = settings.devices.get(at as usize).cloned().unwrap_or_default();
                format!("cannot give it device {path}")
            }
            Step::Confinement | Step::Group | Step::WorkingDirectory | Step::Program => {
                "confine = \"require\"".to_owned()
            }
        };
        format!("this worker cannot be sealed: {what}: {}", refusal.error)
    })?;
    Ok(held.in_force())
}

/// Takes from a worker that starts programs what it needs neither itself nor to build their
/// cages. It stays trusted: it never looks into what its programs read.
///
/// # Errors
/// A sentence: what cannot be given up.
pub(crate) fn ease() -> Result<InForce, String> {
    let mut held = Held::new(cage_lacks());
    launcher::ease(&mut held).map_err(|error| {
        format!("cannot give up the rights that a worker need not have: {error}")
    })?;
    Ok(held.in_force())
}

/// Something that the worker sees.
struct Seen {
    path: PathBuf,
    shown: Shown,
}

fn all_shown(settings: &Settings, socket: &Path) -> Result<Vec<Seen>, String> {
    let mut all = Vec::new();
    // The folder and not the socket: the next supervisor makes a new one. Not to be written: a
    // socket of another name could be put in its place, to which other workers would talk.
    let meeting = socket.parent().unwrap_or(Path::new("/"));
    all.push((meeting.to_owned(), Access::Connect, true));
    for folder in [&settings.outcomes_dir, &settings.scratch_dir, &settings.logs_dir] {
        if !folder.is_empty() {
            all.push((PathBuf::from(folder), Access::Write, true));
        }
    }
    let root = |roots: &[String], access| {
        roots.iter().map(|root| (PathBuf::from(root), access, false)).collect::<Vec<_>>()
    };
    all.extend(root(&settings.read_roots, Access::Read));
    all.extend(root(&settings.write_roots, Access::Write));
    let mut seen = Vec::new();
    for (path, access, is_own) in all {
        if is_own {
            // Nobody can make them once the worker is sealed. What fails is told below.
            let _ = std::fs::create_dir_all(&path);
        }
        match show(&path, access) {
            Ok(both) => seen.extend(both),
            // A root that is not there, or not for this user, serves no job: the job that names
            // something in it is told so.
            Err(_) if !is_own => {}
            Err(error) => return Err(format!("cannot look at {}: {error}", path.display())),
        }
    }
    Ok(seen)
}

/// Shows a folder under the name that it is known by, and under its own.
fn show(path: &Path, access: Access) -> std::io::Result<Vec<Seen>> {
    let real = path.canonicalize()?;
    if access == Access::Read {
        std::fs::read_dir(&real).map(drop)?;
    }
    let facts = statx(CWD, &real, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    let device = rustix::fs::makedev(facts.stx_dev_major, facts.stx_dev_minor);
    let mut names = vec![real.clone()];
    if path != real {
        names.push(path.to_owned());
    }
    let seen = |name: PathBuf| Seen {
        shown: Shown {
            path: name.as_os_str().as_bytes().to_vec(),
            real: real.as_os_str().as_bytes().to_vec(),
            device,
            inode: facts.stx_ino,
            access,
        },
        path: name,
    };
    Ok(names.into_iter().map(seen).collect())
}
