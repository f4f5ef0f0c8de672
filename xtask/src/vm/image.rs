//! QEMU and the guest's image: built once from Debian's packages, kept in a cache folder.
//!
//! The folder's name holds a hash of the recipe, so a changed recipe builds anew. apt is not
//! pinned: a cache keeps the packages of the day it was made.

use super::machine;
use crate::step;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the scripts end with when packages cannot be reached.
const UNREACHABLE: i32 = 75;
/// Bounds of a build, seconds; 100 s were measured for an image.
const BUILD_SECONDS_MAX: &str = "1200";
/// What goes into the tools and the image: a change of any builds anew.
const TOOLS_RECIPE: &[&str] = &["build-tools.sh"];
const IMAGE_RECIPE: &[&str] =
    &["build-tools.sh", "build-image.sh", "init.sh", "agent.sh", "agent.service"];

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suite {
    /// 13, with systemd 257.
    Trixie,
    /// 12, with systemd 252, where work does not outlive its supervisor.
    Bookworm,
}

impl Suite {
    pub(super) fn parse(text: &str) -> Result<Self> {
        [Self::Trixie, Self::Bookworm]
            .into_iter()
            .find(|suite| suite.name() == text)
            .with_context(|| format!("suite {text:?}: trixie and bookworm are known"))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Bookworm => "bookworm",
        }
    }
}

/// A built image and the QEMU that runs it.
#[derive(Debug)]
pub(super) struct Image {
    tools: PathBuf,
    folder: PathBuf,
}

impl Image {
    /// The inner `Err` is why it cannot be built here.
    pub(super) fn find_or_build(scripts: &Path, suite: Suite) -> Result<Result<Self, String>> {
        let cache = cache_folder()?;
        std::fs::create_dir_all(&cache)
            .with_context(|| format!("cannot make {}", cache.display()))?;
        let tools = cache.join(format!("tools-{:016x}", hash(scripts, TOOLS_RECIPE)?));
        let name = format!("{}-{:016x}", suite.name(), hash(scripts, IMAGE_RECIPE)?);
        let image = Self { folder: cache.join(name), tools };

        let mut tools = script(scripts, "build-tools.sh");
        tools.arg(&image.tools);
        let mut guest = script(scripts, "build-image.sh");
        guest.arg(suite.name()).arg(&image.folder).arg(&image.tools);
        for (what, mut build, folder) in
            [("fetch QEMU", tools, &image.tools), ("build the guest", guest, &image.folder)]
        {
            if folder.join(".done").exists() {
                continue;
            }
            let what = format!("{what} ({})", folder.display());
            match step::run_to_end(&what, &mut build)?.code() {
                Some(0) => {}
                Some(UNREACHABLE) => return Ok(Err("Debian's packages cannot be had".to_owned())),
                code => bail!("cannot {what}: its script ended with {code:?}"),
            }
        }
        let works = step::succeeds(image.program(machine::QEMU).arg("--version"));
        Ok(if works { Ok(image) } else { Err("QEMU does not run here".to_owned()) })
    }

    /// A program of the tools, with their libraries. It ends when we do.
    pub(super) fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.tools.join("usr/bin").join(name));
        let libraries = self.tools.join("usr/lib/x86_64-linux-gnu");
        let more = self.tools.join("lib/x86_64-linux-gnu");
        command.env("LD_LIBRARY_PATH", format!("{}:{}", libraries.display(), more.display()));
        command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        command
    }

    pub(super) fn firmware(&self) -> [PathBuf; 2] {
        ["qemu", "seabios"].map(|name| self.tools.join("usr/share").join(name))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A disk that starts as the image and keeps what is written to it. qcow2, because QEMU holds
    /// back what the guest has not flushed into it, as a disk with a cache does.
    pub(super) fn new_disk(&self, folder: &Path) -> Result<PathBuf> {
        let disk = folder.join(machine::DISK);
        let own = self.tools.join("usr/bin/qemu-img").exists();
        let mut create = if own { self.program("qemu-img") } else { Command::new("qemu-img") };
        create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
        step::output(create.arg(self.file("root.img")).arg(&disk))?;
        Ok(disk)
    }
}

/// A script of the recipe under a limit of time.
fn script(scripts: &Path, name: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", BUILD_SECONDS_MAX, "bash"]).arg(scripts.join(name));
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command
}

/// `SHIFTBOSS_VM_CACHE`, else the person's cache folder.
fn cache_folder() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    variable("SHIFTBOSS_VM_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("shiftboss-vm")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/shiftboss-vm")))
        .context("cannot tell where the cache is: set SHIFTBOSS_VM_CACHE")
}

/// FNV-1a over the files: only to tell recipes apart.
fn hash(scripts: &Path, names: &[&str]) -> Result<u64> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for name in names {
        let path = scripts.join(name);
        let content =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for byte in content {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(hash)
}
