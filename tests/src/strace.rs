//! strace, attached to a running supervisor: what it asks of the kernel, in order, and errors
//! put in the kernel's place.

use crate::{Stage, has_program, skip, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A strace that is attached until [`Strace::detach`].
#[derive(Debug)]
pub struct Strace {
    child: Child,
    output: PathBuf,
}

impl Strace {
    /// Attaches to all threads of the supervisor; `None`, and the reason told, where that cannot
    /// be done.
    ///
    /// # Panics
    /// When strace neither attaches nor says why not.
    #[must_use]
    pub fn attach(test: &str, stage: &Stage, args: &[&str]) -> Option<Self> {
        if !has_program("strace") {
            skip(test, "strace is not installed");
            return None;
        }
        let (output, said) = (stage.path("strace.out"), stage.path("strace.err"));
        let _ = std::fs::remove_file(&output);
        let errors = std::fs::File::create(&said).expect("the folder is ours");
        let mut command = Command::new("strace");
        command.args(["-f", "-yy", "-s", "0", "-e", "signal=none"]).args(args);
        command.arg("-o").arg(&output).arg("-p").arg(stage.pid().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let mut child = command.spawn().expect("it is installed");
        let attached = wait_for("strace attaches", || {
            let said = std::fs::read_to_string(&said).unwrap_or_default();
            let ended = child.try_wait().expect("it is ours").is_some();
            (ended || said.contains("attached")).then_some(!ended)
        });
        if !attached {
            let said = std::fs::read_to_string(&said).unwrap_or_default();
            skip(test, &format!("strace may not attach here: {}", said.trim()));
            return None;
        }
        Some(Self { child, output })
    }

    /// Lets the supervisor go; what was seen, one call a line.
    ///
    /// # Panics
    /// When strace does not end.
    #[must_use]
    pub fn detach(mut self) -> String {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are small"));
        kill(pid, Signal::SIGINT).expect("it is ours");
        wait_for("strace ends", || self.child.try_wait().expect("it is ours"));
        std::fs::read_to_string(&self.output).expect("it has written")
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Without effect once it was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
