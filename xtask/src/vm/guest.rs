//! One guest on one disk, booted several times: acceptance, power cuts, removal.

use super::image::{Image, Suite};
use super::machine::{self, Boot, Ended};
use super::power::Power;
use super::verdict::{Line, Verdict};
use crate::step;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Bounds of one boot. A loaded host stretches the acceptance, which takes some minutes on a quiet
/// one.
const BOOT_MAX: Duration = Duration::from_secs(1200);

#[derive(Debug)]
pub(super) struct Guest {
    pub(super) suite: Suite,
    pub(super) image: Image,
    pub(super) scripts: PathBuf,
    /// The package and a newer one.
    pub(super) packages: [PathBuf; 2],
    /// Disk, payloads and what every boot left; emptied at the start.
    pub(super) folder: PathBuf,
    /// Whether figures are checked from below too.
    pub(super) figures: bool,
}

impl Guest {
    /// A kernel that breaks under emulation is the machinery's fault and gets a second try, which
    /// is said; nothing else does.
    pub(super) fn run(&self, cuts: u32, seed: u64, keep: bool) -> Result<Verdict> {
        let verdict = match self.scenario(cuts, seed)? {
            Ok(verdict) => verdict,
            Err(oops) => {
                eprintln!("    the guest's kernel broke ({oops}); a second try from the start");
                self.scenario(cuts, seed)?.unwrap_or_else(|oops| {
                    let mut verdict = Verdict::default();
                    verdict.fail(self.suite, &format!("its kernel broke twice: {oops}"));
                    verdict
                })
            }
        };
        if !keep {
            let disk = self.folder.join(machine::DISK);
            std::fs::remove_file(&disk)
                .with_context(|| format!("cannot remove {}", disk.display()))?;
        }
        Ok(verdict)
    }

    /// Installation and acceptance, then cuts, then stop and removal, on one disk. The inner `Err`
    /// is how the guest's kernel broke.
    fn scenario(&self, cuts: u32, seed: u64) -> Result<Result<Verdict, String>> {
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot empty {}", self.folder.display()))?;
        }
        std::fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot make {}", self.folder.display()))?;
        let disk = self.image.new_disk(&self.folder)?;
        let mut verdict = Verdict::default();
        let mut power = Power::new(seed);
        for number in 0..=cuts {
            let mut steps = match number {
                0 => vec!["install", "start", "unit", "cage", "limits", "survive"],
                _ => vec!["recovered"],
            };
            steps.push(if number < cuts { "produce" } else { "remove" });
            let cut = (number < cuts).then(|| power.next_cut());
            let what = format!("{}, boot {number}: {}", self.suite.name(), steps.join(", "));
            step::say(&match cut {
                Some(cut) => format!("{what}, power cut after {cut:?} (seed {seed})"),
                None => what,
            });
            let start = Instant::now();
            let ended = self.boot(&disk, number, &steps, cut, &mut power, &mut verdict)?;
            eprintln!("    {:.1} s: {ended}", start.elapsed().as_secs_f64());
            match (ended, cut) {
                (Ended::Broke(oops), _) => return Ok(Err(oops)),
                (Ended::Said(_), None) | (Ended::Cut, Some(_)) => {}
                (ended, _) => {
                    verdict.fail(self.suite, &format!("boot {number}: {ended}"));
                    break;
                }
            }
        }
        Ok(Ok(verdict))
    }

    fn boot(
        &self,
        disk: &Path,
        number: u32,
        steps: &[&str],
        cut: Option<Duration>,
        power: &mut Power,
        verdict: &mut Verdict,
    ) -> Result<Ended> {
        let out = self.folder.join(format!("boot-{number}"));
        let payload = self.payload(&out, steps, power)?;
        let boot = Boot { disk, payload: &payload, out: &out, limit: BOOT_MAX };
        let ended = machine::run(&self.image, &boot, |text| {
            match Line::parse(text) {
                Line::Note("producing") => return cut,
                Line::Acknowledged(id) => power.acknowledged(id),
                Line::Done(id, attempt) => power.done(id, attempt),
                line => verdict.take(self.suite, number, &line),
            }
            None
        });
        std::fs::remove_file(&payload)
            .with_context(|| format!("cannot remove {}", payload.display()))?;
        ended
    }

    /// The second disk: scripts, packages, what is to be done, what was told before.
    fn payload(&self, out: &Path, steps: &[&str], power: &Power) -> Result<PathBuf> {
        let folder = out.join("payload");
        let write = |name: &str, content: String| {
            let path = folder.join(name);
            std::fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))
        };
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        write("steps", steps.iter().map(|step| format!("{step}\n")).collect())?;
        write("figures", (if self.figures { "yes\n" } else { "no\n" }).to_owned())?;
        write("acked", power.acked_lines())?;
        write("done", power.done_lines())?;
        let file = out.join("payload.tar");
        let mut tar = Command::new("tar");
        tar.arg("--create").arg("--file").arg(&file);
        tar.arg("--directory").arg(&folder).args(["steps", "figures", "acked", "done"]);
        tar.arg("--directory").arg(&self.scripts).arg(".");
        for package in &self.packages {
            let name = package.file_name().unwrap_or_default();
            tar.arg("--directory").arg(package.parent().unwrap_or(package)).arg(name);
        }
        step::output(&mut tar)?;
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
        Ok(file)
    }
}
