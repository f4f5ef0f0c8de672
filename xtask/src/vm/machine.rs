//! One QEMU process from its start to its end: its serial lines are read as they grow, it is
//! killed at a cut or at its limit of time, and by nobody else than us.

use super::image::Image;
use crate::step;
use anyhow::{Context, Result};
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(super) const QEMU: &str = "qemu-system-x86_64";
/// The guest's first disk, in its folder.
pub(super) const DISK: &str = "disk.qcow2";
/// The guest's two serial lines, and its third disk.
const CONSOLE: &str = "console.log";
const RESULTS: &str = "results.log";
const LEFT: &str = "left.tar";

const GLANCE: Duration = Duration::from_millis(20);
/// Room for what a guest leaves on its third disk, bytes.
const LEFT_BYTES_MAX: u64 = 256 << 20;
/// A guest that has not come to its steps by then never will; a minute is slow.
const FIRST_WORD_MAX: Duration = Duration::from_secs(300);
/// mitigations=off: they make emulation slower and protect nobody here. no_timer_check: on a busy
/// host the check fails, and the timer that is then chosen never ticks.
const KERNEL_LINE: &str = "console=ttyS0 quiet panic=-1 oops=panic mitigations=off no_timer_check \
    random.trust_cpu=on systemd.getty_auto=0 systemd.unified_cgroup_hierarchy=1 \
    systemd.show_status=0";

/// What one start of the guest needs.
#[derive(Debug)]
pub(super) struct Boot<'a> {
    pub(super) disk: &'a Path,
    /// A tar that the guest unpacks and runs.
    pub(super) payload: &'a Path,
    /// Gets the logs and what the guest leaves.
    pub(super) out: &'a Path,
    pub(super) limit: Duration,
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its steps came to their end with this exit code, and it switched itself off.
    Said(String),
    /// The power was cut, as planned.
    Cut,
    /// Killed at its limit of time.
    TimedOut,
    /// Its kernel broke, or never came up.
    Broke(String),
    /// It ended without a word.
    Silent,
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(code) => write!(out, "its steps ended with {code}"),
            Self::Cut => out.write_str("the power was cut"),
            Self::TimedOut => out.write_str("it did not end in time and was killed"),
            Self::Broke(how) => write!(out, "its kernel broke: {how}"),
            Self::Silent => write!(out, "it ended without a word, see {CONSOLE}"),
        }
    }
}

/// Boots and follows. `on_line` gets each whole line of the results; a duration from it is when to
/// cut the power.
pub(super) fn run(
    image: &Image,
    boot: &Boot<'_>,
    mut on_line: impl FnMut(&str) -> Option<Duration>,
) -> Result<Ended> {
    let [left, console, results] = [LEFT, CONSOLE, RESULTS].map(|name| boot.out.join(name));
    for (path, length) in [(&left, LEFT_BYTES_MAX), (&console, 0), (&results, 0)] {
        File::create(path)
            .and_then(|file| file.set_len(length))
            .with_context(|| format!("cannot make {}", path.display()))?;
    }
    let child = command(image, boot).stdin(Stdio::null()).spawn().context("cannot start QEMU")?;
    let mut machine = Machine(child);
    let mut lines = Lines::open(&results)?;
    let start = Instant::now();
    let mut has_spoken = false;
    let mut cut = None;
    let mut said = None;
    let ended = loop {
        let over = machine.0.try_wait().context("cannot wait for QEMU")?.is_some();
        lines.read(|line| {
            has_spoken = true;
            if let Some(code) = line.strip_prefix("end ") {
                said = Some(code.to_owned());
            } else if let Some(after) = on_line(line) {
                cut = Some(Instant::now() + after);
            }
        })?;
        let now = Instant::now();
        if over {
            break said.map_or_else(|| why_silent(&console), |code| Ok(Ended::Said(code)))?;
        }
        if cut.is_some_and(|cut| now >= cut) {
            machine.kill()?;
            // What had arrived before the cut had been told.
            lines.read(|line| {
                on_line(line);
            })?;
            break Ended::Cut;
        }
        if !has_spoken && now >= start + FIRST_WORD_MAX {
            machine.kill()?;
            break Ended::Broke(format!("not a word in {FIRST_WORD_MAX:?}"));
        }
        if now >= start + boot.limit {
            machine.kill()?;
            break Ended::TimedOut;
        }
        std::thread::sleep(GLANCE);
    };
    keep(&left, boot.out, &ended)?;
    Ok(ended)
}

/// Kills QEMU when dropped: no way out of here leaves one running.
#[derive(Debug)]
struct Machine(Child);

impl Machine {
    fn kill(&mut self) -> Result<()> {
        self.0.kill().and_then(|()| self.0.wait().map(drop)).context("cannot end QEMU")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("    {error:#}");
        }
    }
}

fn command(image: &Image, boot: &Boot<'_>) -> Command {
    let drive = |file: &Path, more: &str| format!("file={},if=virtio,{more}", file.display());
    let mut qemu = image.program(QEMU);
    for folder in image.firmware() {
        qemu.arg("-L").arg(folder);
    }
    let accelerator = std::env::var("SHIFTBOSS_VM_ACCEL");
    let accelerator = accelerator.as_deref().unwrap_or("tcg,thread=multi,tb-size=512");
    // cmpxchg16b of QEMU 7.2 breaks Linux 6.12.
    qemu.args(["-M", "pc", "-cpu", "max,-cx16", "-smp", "2", "-m", "2048", "-accel", accelerator]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.args(["-nic", "none", "-append", KERNEL_LINE]);
    qemu.arg("-kernel").arg(image.file("vmlinuz")).arg("-initrd").arg(image.file("initrd"));
    for log in [CONSOLE, RESULTS] {
        qemu.arg("-serial").arg(format!("file:{}", boot.out.join(log).display()));
    }
    qemu.arg("-drive").arg(drive(boot.disk, "format=qcow2"));
    qemu.arg("-drive").arg(drive(boot.payload, "format=raw,readonly=on"));
    qemu.arg("-drive").arg(drive(&boot.out.join(LEFT), "format=raw"));
    qemu
}

/// A guest that ended without a word: whether its kernel broke.
fn why_silent(console: &Path) -> Result<Ended> {
    let text = fs::read(console).with_context(|| format!("cannot read {}", console.display()))?;
    let text = String::from_utf8_lossy(&text);
    let oops = text.lines().find(|line| line.contains("Oops") || line.contains("Kernel panic"));
    Ok(oops.map_or(Ended::Silent, |line| Ended::Broke(line.trim().to_owned())))
}

/// Unpacks what the guest left, which is nothing when it did not come to its end.
fn keep(left: &Path, out: &Path, ended: &Ended) -> Result<()> {
    if matches!(ended, Ended::Said(_)) {
        let mut tar = Command::new("tar");
        step::output(tar.arg("--extract").arg("--file").arg(left).arg("--directory").arg(out))?;
    }
    fs::remove_file(left).with_context(|| format!("cannot remove {}", left.display()))
}

/// Whole lines of a file that grows.
#[derive(Debug)]
struct Lines {
    file: File,
    rest: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { file, rest: Vec::new() })
    }

    fn read(&mut self, mut on_line: impl FnMut(&str)) -> Result<()> {
        self.file.read_to_end(&mut self.rest).context("cannot read what the guest says")?;
        while let Some(at) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=at).collect();
            on_line(String::from_utf8_lossy(&line).trim());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_only_when_it_is_whole() {
        let path = std::env::temp_dir().join(format!("shiftboss-lines-{}", std::process::id()));
        fs::write(&path, "ack 1\r\nack 2").expect("the folder is everybody's");
        let mut lines = Lines::open(&path).expect("it was just made");
        let mut seen = Vec::new();
        lines.read(|line| seen.push(line.to_owned())).expect("it can be read");
        assert_eq!(seen, ["ack 1"], "half of a number is another number");
        fs::write(&path, "ack 1\r\nack 23\r\n").expect("it is ours");
        lines.read(|line| seen.push(line.to_owned())).expect("it can be read");
        assert_eq!(seen, ["ack 1", "ack 23"]);
        fs::remove_file(&path).expect("it is ours");
    }
}
