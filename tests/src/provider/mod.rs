//! A provider that does not exist: real HTTP on loopback in a process of its own, in the shapes of
//! real ones, with every fault that they have.
//!
//! It keeps a journal of all requests; [`check`] judges a run by that journal alone. What an
//! operation does is asked for by the job's own input (`mode`), what befalls requests by
//! [`Behaviour`].

pub mod check;
mod http;
mod operations;
mod rooms;
pub mod scene;
mod server;
mod shape;
pub mod storm;
mod tls;
pub mod tokens;
pub mod verdict;

pub use server::serve;
pub use shape::Shape;

use crate::built;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

/// What befalls requests; shares are of a thousand.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Polls of an operation until it is done.
    pub polls: u64,
    /// Before every answer, milliseconds.
    pub latency_ms: u64,
    /// Submissions that are accepted and not answered.
    pub lost_submits: u64,
    /// Polls that are not answered.
    pub lost_polls: u64,
    /// Polls that are answered by status 500.
    pub errors: u64,
    /// Requests that are refused by status 429 with a hint.
    pub refusals: u64,
    /// Polls that are answered by a page of HTML.
    pub pages: u64,
    /// Answers to polls and files that pause in the middle for up to 320 ms.
    pub slow: u64,
    /// Polls that are answered twice.
    pub twice: u64,
    /// Downloads whose link has expired.
    pub expired: u64,
    /// Downloads that break off.
    pub broken_files: u64,
    /// It speaks TLS, as nobody that anybody trusts: see [`Simulator::certificate`].
    pub tls: bool,
    /// Seed of all chance.
    pub seed: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            polls: 2,
            latency_ms: 0,
            lost_submits: 0,
            lost_polls: 0,
            errors: 0,
            refusals: 0,
            pages: 0,
            slow: 0,
            twice: 0,
            expired: 0,
            broken_files: 0,
            tls: false,
            seed: 1,
        }
    }
}

impl Behaviour {
    fn to_json(&self) -> Value {
        json!({
            "polls": self.polls, "latency_ms": self.latency_ms, "lost_submits": self.lost_submits,
            "lost_polls": self.lost_polls, "errors": self.errors, "refusals": self.refusals,
            "pages": self.pages, "slow": self.slow, "twice": self.twice,
            "expired": self.expired, "broken_files": self.broken_files, "tls": self.tls,
            "seed": self.seed,
        })
    }

    fn of_json(value: &Value) -> Self {
        let number = |name: &str, or: u64| value[name].as_u64().unwrap_or(or);
        let or = Self::default();
        Self {
            polls: number("polls", or.polls),
            latency_ms: number("latency_ms", 0),
            lost_submits: number("lost_submits", 0),
            lost_polls: number("lost_polls", 0),
            errors: number("errors", 0),
            refusals: number("refusals", 0),
            pages: number("pages", 0),
            slow: number("slow", 0),
            twice: number("twice", 0),
            expired: number("expired", 0),
            broken_files: number("broken_files", 0),
            tls: value["tls"] == true,
            seed: number("seed", 1),
        }
    }
}

/// A simulator that runs. Ends when it is dropped.
#[derive(Debug)]
pub struct Simulator {
    child: Child,
    shape: Shape,
    /// Where it listens, on loopback.
    pub port: u16,
    tls: bool,
    began: SystemTime,
    journal: PathBuf,
}

impl Simulator {
    /// Starts one that writes its journal into `folder`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(shape: Shape, behaviour: &Behaviour, folder: &Path) -> Self {
        let journal = folder.join(format!("journal-{}.jsonl", shape.name()));
        let mut child = Command::new(built("provider-simulator"))
            .arg(shape.name())
            .arg(&journal)
            .arg(behaviour.to_json().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it is built");
        let output = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("it says where it listens");
        let port = line.trim().parse().expect("a port");
        Self { child, shape, port, tls: behaviour.tls, began: SystemTime::now(), journal }
    }

    /// The shipped description of its shape, at its address, with its certificate where it speaks
    /// TLS; `change` may change the text.
    ///
    /// # Panics
    /// When `folder`, that of a configuration, cannot be written.
    pub fn describe(&self, folder: &Path, change: impl Fn(&str) -> String) {
        let name = self.shape.name();
        let shipped = shiftboss_provider::shipped::ALL.iter().find(|(known, _)| *known == name);
        let (_, text) = shipped.expect("it is shipped");
        let scheme = if self.tls { "https" } else { "http" };
        let here = format!("{scheme}://127.0.0.1:{}", self.port);
        let base = text.lines().find(|line| line.starts_with("base = ")).expect("it has a base");
        let mut new = format!("base = {here:?}\nprivate = [\"127.0.0.1:{}\"]", self.port);
        if self.tls {
            new = format!("{new}\nca_file = {:?}", self.certificate());
        }
        // Veo's files lie elsewhere.
        let text = text.replacen(base, &new, 1).replace("https://storage.googleapis.com", &here);
        let text = change(&text);
        let providers = folder.join("providers");
        std::fs::create_dir_all(&providers).expect("the folder is ours");
        std::fs::write(providers.join(format!("{name}.toml")), text).expect("the folder is ours");
    }

    /// The `env` of a type that knows its secrets.
    #[must_use]
    pub fn env(&self) -> String {
        let secrets = self.shape.secrets().iter();
        let secrets: Vec<_> = secrets.map(|name| format!("{name} = \"sk-simulated\"")).collect();
        format!("env = {{ {} }}", secrets.join(", "))
    }

    /// Where its certificate is, which nobody but itself vouches for.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.journal.with_extension("pem")
    }

    /// Where its journal is.
    #[must_use]
    pub fn journal_path(&self) -> &Path {
        &self.journal
    }

    /// What it has been asked so far.
    ///
    /// # Panics
    /// When its journal cannot be read.
    #[must_use]
    pub fn journal(&self) -> Vec<check::Line> {
        check::read(&self.journal)
    }

    /// When the clock of its journal was 0, and up to a moment later.
    #[must_use]
    pub fn began(&self) -> SystemTime {
        self.began
    }

    /// How long its journal is: cheaper than to read it.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        std::fs::metadata(&self.journal).expect("the simulator writes it").len()
    }
}

/// A description that polls as fast as a test wants.
#[must_use]
pub fn quick(text: &str) -> String {
    let keeps = |line: &&str| !line.starts_with("first =") && !line.starts_with("every =");
    let text: Vec<_> = text.lines().filter(keeps).collect();
    let pace = "[poll]\nfirst = \"20ms\"\nevery = { min = \"20ms\", max = \"200ms\" }";
    text.join("\n").replacen("[poll]", pace, 1)
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
