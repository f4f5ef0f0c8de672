//! The programs that the project needs beside Rust, and how to get them.
//!
//! As root, missing ones are installed with the system's package manager; otherwise the line to
//! type is printed: this program never asks for a password.

use crate::step;
use anyhow::{Result, bail};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

/// A program, why it is needed, and the package that brings it, by package manager.
#[derive(Debug)]
pub(crate) struct Program {
    name: &'static str,
    why: &'static str,
    apt: &'static [&'static str],
    dnf: &'static [&'static str],
    apk: &'static [&'static str],
    pacman: &'static [&'static str],
}

const CC: Program = Program {
    name: "cc",
    why: "compiles the bundled SQLite",
    apt: &["gcc", "libc6-dev"],
    dnf: &["gcc", "glibc-devel"],
    apk: &["build-base"],
    pacman: &["gcc"],
};
const FFMPEG: Program = Program {
    name: "ffmpeg",
    why: "encodes films",
    apt: &["ffmpeg"],
    dnf: &["ffmpeg-free"],
    apk: &["ffmpeg"],
    pacman: &["ffmpeg"],
};
const FFPROBE: Program = Program { name: "ffprobe", why: "looks into films", ..FFMPEG };
const SQLITE: Program = Program {
    name: "sqlite3",
    why: "plays the foreign program that inserts jobs",
    apt: &["sqlite3"],
    dnf: &["sqlite"],
    apk: &["sqlite"],
    pacman: &["sqlite"],
};
const PYTHON: Program = Program {
    name: "python3",
    why: "plays programs that run as jobs",
    apt: &["python3"],
    dnf: &["python3"],
    apk: &["python3"],
    pacman: &["python"],
};
const STRACE: Program = Program {
    name: "strace",
    why: "shows that what is acknowledged was synced, and plays a broken disk",
    apt: &["strace"],
    dnf: &["strace"],
    apk: &["strace"],
    pacman: &["strace"],
};

/// What `cargo xtask demo` needs.
pub(crate) const FOR_DEMO: &[&Program] = &[&CC, &FFMPEG, &FFPROBE];
/// What the tests need, and so everything.
pub(crate) const FOR_TESTS: &[&Program] = &[&CC, &FFMPEG, &FFPROBE, &SQLITE, &PYTHON, &STRACE];

/// A package manager and how it is told to install without asking.
#[derive(Clone, Copy, Debug)]
enum Manager {
    Apt,
    Dnf,
    Apk,
    Pacman,
}

impl Manager {
    fn find() -> Option<Self> {
        [Self::Apt, Self::Dnf, Self::Apk, Self::Pacman]
            .into_iter()
            .find(|manager| find_program(manager.program()).is_some())
    }

    fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Apk => "apk",
            Self::Pacman => "pacman",
        }
    }

    fn packages(self, program: &Program) -> &'static [&'static str] {
        match self {
            Self::Apt => program.apt,
            Self::Dnf => program.dnf,
            Self::Apk => program.apk,
            Self::Pacman => program.pacman,
        }
    }

    /// The commands that install packages, in order.
    fn commands(self, packages: &[&str]) -> Vec<Vec<String>> {
        let lines: &[&str] = match self {
            Self::Apt => &["apt-get update -qq", "apt-get install -y -qq --no-install-recommends"],
            Self::Dnf => &["dnf install -y -q --setopt=install_weak_deps=False"],
            Self::Apk => &["apk add --quiet"],
            Self::Pacman => &["pacman -Sy --noconfirm --needed --quiet"],
        };
        let mut commands: Vec<Vec<String>> =
            lines.iter().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
        if let Some(install) = commands.last_mut() {
            install.extend(packages.iter().map(|&package| package.to_owned()));
        }
        commands
    }
}

/// Finds the programs and installs the missing ones. An error says what is missing and the line
/// to type.
pub(crate) fn install_missing(wanted: &[&Program]) -> Result<()> {
    let missing = missing(wanted);
    if missing.is_empty() {
        let names: Vec<&str> = wanted.iter().map(|program| program.name).collect();
        eprintln!("set-up: {} are here", names.join(", "));
        return Ok(());
    }
    for program in &missing {
        eprintln!("set-up: {} is missing ({})", program.name, program.why);
    }
    let Some(manager) = Manager::find() else {
        bail!("no package manager that xtask knows: install them by hand and try again");
    };
    let commands = manager.commands(&packages(manager, &missing));
    if !is_root() {
        bail!("not root, so nothing is installed; type this and try again:\n\n    {}\n", {
            let lines: Vec<String> =
                commands.iter().map(|words| format!("sudo {}", words.join(" "))).collect();
            lines.join(" && ")
        });
    }
    for words in &commands {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive");
        step::run(&words.join(" "), &mut command)?;
    }
    if let Some(program) = self::missing(wanted).first() {
        bail!("{} is still missing after {}", program.name, manager.program());
    }
    Ok(())
}

/// Where a program is, looked up in `PATH` as a shell would.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| {
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// Whether this process runs as root: /proc/self belongs to the effective user.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn missing<'a>(wanted: &[&'a Program]) -> Vec<&'a Program> {
    wanted.iter().copied().filter(|program| find_program(program.name).is_none()).collect()
}

fn packages(manager: Manager, missing: &[&Program]) -> Vec<&'static str> {
    let mut packages: Vec<&str> =
        missing.iter().flat_map(|program| manager.packages(program)).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_brings_two_programs_is_installed_once() {
        assert_eq!(
            packages(Manager::Apt, &[&FFMPEG, &FFPROBE, &CC]),
            ["ffmpeg", "gcc", "libc6-dev"]
        );
    }

    #[test]
    fn apt_updates_its_lists_before_it_installs() {
        let commands = Manager::Apt.commands(&["sqlite3"]);
        assert_eq!(commands[0].join(" "), "apt-get update -qq");
        assert!(commands[1].ends_with(&["sqlite3".to_owned()]));
    }

    #[test]
    fn a_program_that_is_nowhere_in_the_path_is_not_found() {
        assert_eq!(find_program("no-such-program-as-this"), None);
        assert!(find_program("sh").is_some());
    }
}
