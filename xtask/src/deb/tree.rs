//! The files of the package as they will lie on the machine, each with its mode.

use super::{PROGRAMS, Profile, control};
use crate::place::Place;
use crate::step;
use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// From where in the repository to where on the machine, and the mode.
const FILES: &[(&str, &str, u32)] = &[
    ("systemd/shiftboss.service", "usr/lib/systemd/system/shiftboss.service", 0o644),
    ("systemd/shiftboss.sysusers", "usr/lib/sysusers.d/shiftboss.conf", 0o644),
    ("systemd/shiftboss.tmpfiles", "usr/lib/tmpfiles.d/shiftboss.conf", 0o644),
    ("systemd/before-254.conf", "usr/share/shiftboss/before-254.conf", 0o644),
    ("systemd/shiftboss.toml", "etc/shiftboss/shiftboss.toml", 0o640),
    ("README.md", "usr/share/doc/shiftboss/README.md", 0o644),
    ("systemd/debian/lintian-overrides", "usr/share/lintian/overrides/shiftboss", 0o644),
    ("systemd/debian/postinst", "DEBIAN/postinst", 0o755),
    ("systemd/debian/prerm", "DEBIAN/prerm", 0o755),
    ("systemd/debian/postrm", "DEBIAN/postrm", 0o755),
    ("systemd/debian/triggers", "DEBIAN/triggers", 0o644),
];
/// Files that a person may change and that an upgrade therefore asks about.
const CONFFILES: &str = "/etc/shiftboss/shiftboss.toml\n";
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/shiftboss"),
    ("zsh", "usr/share/zsh/vendor-completions/_shiftboss"),
    ("fish", "usr/share/fish/vendor_completions.d/shiftboss.fish"),
];
const MANUAL: &str = "usr/share/man/man1";

/// The package's tree below `root`.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    root: &'a Path,
    place: &'a Place,
    profile: Profile,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: &'a Path, place: &'a Place, profile: Profile) -> Self {
        Self { root, place, profile }
    }

    /// Puts every file but the description into its place.
    pub(super) fn fill(&self, changelog: &str) -> Result<()> {
        for (from, to, mode) in FILES {
            let from = self.place.root.join(from);
            let content =
                fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
            self.write(to, &content, *mode)?;
        }
        for program in PROGRAMS {
            self.add_program(program)?;
        }
        for (shell, to) in COMPLETIONS {
            let text = step::output(self.shiftboss().args(["completions", shell]))?;
            self.write(to, &text, 0o644)?;
        }
        self.add_manual()?;
        let copyright = control::copyright(&self.place.root)?;
        self.write("usr/share/doc/shiftboss/copyright", copyright.as_bytes(), 0o644)?;
        let changelog = gzip(changelog.as_bytes())?;
        self.write("usr/share/doc/shiftboss/changelog.gz", &changelog, 0o644)
    }

    /// Writes what dpkg reads, computed from the files that are there.
    pub(super) fn describe(&self, version: &str, architecture: &str) -> Result<()> {
        let mut files = Vec::new();
        collect(self.root, &mut files)?;
        files.retain(|file| !file.starts_with(self.root.join("DEBIAN")));
        files.sort();
        let mut bytes = 0;
        let mut sums = Command::new("md5sum");
        sums.current_dir(self.root);
        for file in &files {
            bytes += fs::metadata(file)?.len();
            sums.arg(file.strip_prefix(self.root)?);
        }
        self.write("DEBIAN/md5sums", &step::output(&mut sums)?, 0o644)?;
        self.write("DEBIAN/conffiles", CONFFILES.as_bytes(), 0o644)?;
        let mut glibc = (0, 0);
        for program in PROGRAMS {
            let content = fs::read(self.root.join("usr/bin").join(program))?;
            let asked = control::glibc_of(&content)
                .with_context(|| format!("{program} names no version of glibc"))?;
            glibc = glibc.max(asked);
        }
        let glibc = format!("{}.{}", glibc.0, glibc.1);
        let text = control::control(version, architecture, &glibc, bytes.div_ceil(1024));
        self.write("DEBIAN/control", text.as_bytes(), 0o644)
    }

    fn add_program(&self, name: &str) -> Result<()> {
        let from = self.built(name);
        let to = format!("usr/bin/{name}");
        let content = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write(&to, &content, 0o755)?;
        // The release profile leaves names of functions for backtraces; Debian's packages have
        // none, and debug builds would be ten times as large. What cannot be stripped is shipped
        // as it is.
        if !step::succeeds(
            Command::new("strip").arg("--remove-section=.comment").arg(self.root.join(&to)),
        ) {
            eprintln!("    {name} is not stripped: strip (binutils) is missing or refuses it");
        }
        Ok(())
    }

    fn add_manual(&self) -> Result<()> {
        let folder = self.root.join("man");
        step::output(self.shiftboss().args(["man", "--out"]).arg(&folder))?;
        let mut pages = Vec::new();
        collect(&folder, &mut pages)?;
        pages.push(self.place.root.join("systemd/debian/shiftboss-worker.1"));
        for page in pages {
            let text =
                fs::read(&page).with_context(|| format!("cannot read {}", page.display()))?;
            let name = page.file_name().unwrap_or_default().to_string_lossy();
            self.write(&format!("{MANUAL}/{name}.gz"), &gzip(&text)?, 0o644)?;
        }
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
    }

    fn shiftboss(&self) -> Command {
        Command::new(self.built(PROGRAMS[0]))
    }

    fn built(&self, name: &str) -> PathBuf {
        let profile = match self.profile {
            Profile::Release => "release",
            Profile::Debug => "debug",
        };
        self.place.target.join(profile).join(name)
    }

    /// Modes are set whatever the umask says, of folders too.
    fn write(&self, to: &str, content: &[u8], mode: u32) -> Result<()> {
        let path = self.root.join(to);
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        let written = fs::create_dir_all(path.parent().unwrap_or(self.root))
            .and_then(|()| fs::write(&path, content))
            .and_then(|()| set(&path, mode))
            .and_then(|()| {
                path.ancestors()
                    .skip(1)
                    .take_while(|folder| folder.starts_with(self.root))
                    .try_for_each(|folder| set(folder, 0o755))
            });
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let cannot = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        if entry.file_type().with_context(cannot)?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Without name and time, so that the same text gives the same bytes.
fn gzip(text: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("gzip")
        .args(["-9", "-n"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run gzip")?;
    let mut input = child.stdin.take().context("gzip has no standard input")?;
    let output = std::thread::scope(|scope| {
        // Written from a thread of its own: both pipes are small.
        scope.spawn(move || input.write_all(text));
        child.wait_with_output()
    })
    .context("cannot wait for gzip")?;
    anyhow::ensure!(output.status.success(), "gzip ended with {}", output.status);
    Ok(output.stdout)
}
