//! The command line's words. Names and exit codes are a contract: scripts depend on them.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Runs heavy, long and untrusted background work off an SQLite job table.
#[derive(Debug, Parser)]
#[command(name = "shiftboss", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done; 1 the job failed or was cancelled; 2 usage; \
                        3 no supervisor answers; 100 configuration refused.")]
pub(super) struct Arguments {
    /// Configuration file [first found: this, SHIFTBOSS_CONFIG, ./shiftboss.toml,
    /// /etc/shiftboss/shiftboss.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print JSON: a listing is one array, what follows is one object a line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// What to do
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the supervisor, in the foreground
    Run,
    /// Encode a film into renditions, as MP4 files or for HLS
    Encode(Encode),
    /// Insert a job
    Submit(Submit),
    /// List jobs, newest first
    Jobs(Jobs),
    /// Tell the whole story of one job
    Job {
        /// Its number
        id: i64,
    },
    /// Print the logs of a job's newest attempt
    Logs {
        /// Its number
        id: i64,
        /// Go on until the job ends
        #[arg(long)]
        follow: bool,
    },
    /// Wait until jobs end
    Wait(Ids),
    /// Stop jobs, or keep them from starting
    Cancel(Ids),
    /// Make ended or held jobs available again
    Retry(Ids),
    /// Tell how the supervisor is
    Status,
    /// List worker processes
    Workers,
    /// List job types
    Types,
    /// Start no more jobs of a type, also after a restart
    Pause {
        /// The type
        job_type: String,
    },
    /// Start jobs of a paused type again
    Resume {
        /// The type
        job_type: String,
    },
    /// Finish running jobs, start none, then stop the supervisor
    Drain,
    /// Go on with the program that is installed now; nothing is stopped
    Upgrade,
    /// Check, show, describe or reload the configuration
    Config {
        /// What of it
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Check, back up or restore the database
    Db {
        /// What of it
        #[command(subcommand)]
        what: DbCommand,
    },
    /// List, check or try descriptions of providers; decide about a held operation
    Provider {
        /// What of it
        #[command(subcommand)]
        what: ProviderCommand,
    },
    /// Find out by trying what this host offers
    Doctor,
    /// Run a hostile program as a job, and see that it gets nowhere
    Selftest(Selftest),
    /// Print shell completions
    Completions {
        /// For this shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one page per command
    Man {
        /// Write the pages into this folder
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// `shiftboss encode`.
#[derive(Debug, Args)]
pub(super) struct Encode {
    /// The film
    pub(super) file: PathBuf,
    /// Folder for the renditions; made when its parent exists
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Short sides of the renditions; nothing is scaled up [default: the profile's, or
    /// 1080p,720p,480p]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub(super) renditions: Vec<String>,
    /// What is made of them [default: the profile's, or mp4]
    #[arg(long, value_enum)]
    pub(super) format: Option<Format>,
    /// A profile of the configuration; what is said here goes before it
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Option<String>,
    /// Wait until it ends, with a progress line
    #[arg(long)]
    pub(super) wait: bool,
}

/// What an encode is packed into, in the words of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One file for each rendition
    Mp4,
    /// A folder with playlists and segments of fMP4
    Hls,
}

impl Format {
    /// The word of a payload.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Hls => "hls",
        }
    }
}

/// `shiftboss submit`.
#[derive(Debug, Args)]
pub(super) struct Submit {
    /// The job type
    pub(super) job_type: String,
    /// The payload: JSON, @FILE, or - for standard input [default: {}]
    #[arg(long, value_name = "JSON|@FILE|-", conflicts_with = "from_file")]
    pub(super) payload: Option<String>,
    /// Insert one job per line of this file, each line a payload
    #[arg(long, value_name = "JSONL")]
    pub(super) from_file: Option<PathBuf>,
    /// The larger runs first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(super) priority: i64,
    /// Start after this time, such as 10m
    #[arg(long, conflicts_with = "at")]
    pub(super) delay: Option<crate::config::Span>,
    /// Start at this time, such as 2026-11-22T20:00:00Z
    #[arg(long, value_name = "RFC3339")]
    pub(super) at: Option<jiff::Timestamp>,
    /// Failures after which it is given up [default: the type's]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_attempts: Option<u32>,
    /// Longest run of one attempt, such as 10m [default: the type's]
    #[arg(long)]
    pub(super) timeout: Option<crate::config::Span>,
    /// At most one unfinished job has this key
    #[arg(long, value_name = "KEY")]
    pub(super) unique: Option<String>,
    /// Free text
    #[arg(long)]
    pub(super) tag: Option<String>,
    /// Wait until it ends
    #[arg(long)]
    pub(super) wait: bool,
}

/// `shiftboss jobs`.
#[derive(Debug, Args)]
pub(super) struct Jobs {
    /// Only this state
    #[arg(long, value_parser = parse_state)]
    pub(super) state: Option<shiftboss_protocol::job::JobState>,
    /// Only this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) job_type: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) limit: u32,
}

/// Numbers of jobs.
#[derive(Debug, Args)]
pub(super) struct Ids {
    /// Numbers of jobs
    #[arg(required = true, value_name = "ID")]
    pub(super) ids: Vec<i64>,
}

/// `shiftboss selftest`.
#[derive(Debug, Args)]
pub(super) struct Selftest {
    /// Only this type; may be given several times [default: all that run programs]
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) types: Vec<String>,
    /// Give the jobs to the supervisor that runs, not to a private one
    #[arg(long)]
    pub(super) live: bool,
    /// Leave behind what was staged
    #[arg(long)]
    pub(super) keep: bool,
    /// Make the attempts without any cage, to see that they would get through
    #[arg(long, hide = true, conflicts_with_all = ["live", "types"])]
    pub(super) outside: bool,
    /// Be the hostile program of this plan
    #[arg(long, hide = true, value_name = "PLAN")]
    pub(super) inside: Option<PathBuf>,
}

/// `shiftboss config`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Refuse mistakes; say which file was read
    Check,
    /// Print every value in force and where it came from
    Show,
    /// Print a JSON Schema of the file, for editors
    Schema,
    /// Have the supervisor read its file again (as SIGHUP does); say what it took over
    Reload,
}

/// `shiftboss db`.
#[derive(Debug, Subcommand)]
pub(super) enum DbCommand {
    /// Read the whole database for damage and broken rules, while it is in use
    Check,
    /// Write a consistent copy, while the database is in use
    Backup {
        /// The copy; must not exist
        file: PathBuf,
    },
    /// Put a backup in the database's place; no supervisor may run
    Restore {
        /// The backup
        file: PathBuf,
    },
}

/// `shiftboss provider`.
#[derive(Debug, Subcommand)]
pub(super) enum ProviderCommand {
    /// List the providers that jobs of type remote can name
    List,
    /// Refuse mistakes in descriptions, naming line and key
    Check {
        /// Only these files [default: all of the configuration's folder, and the shipped ones]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the requests that a job would send, secrets masked; nothing is sent
    Try {
        /// The provider
        name: String,
        /// The job's input: JSON, @FILE, or - for standard input [default: {}]
        #[arg(long, value_name = "JSON|@FILE|-")]
        input: Option<String>,
        /// The operation's id in the requests that follow the submission
        #[arg(long, value_name = "OP", default_value = "ID")]
        id: String,
    },
    /// Read recorded answers as the provider's, and print what an operation makes of them
    Replay {
        /// The provider
        name: String,
        /// One answer per line, in their order: {"status": 200, "body": {...}}
        #[arg(value_name = "JSONL")]
        answers: PathBuf,
    },
    /// Decide about a held job whose submission may or may not have been accepted
    Resolve {
        /// Its number
        id: i64,
        /// The provider has it, under this id: it is polled
        #[arg(long, value_name = "OP", required_unless_present = "resubmit")]
        adopt: Option<String>,
        /// The provider has it not: it is submitted again, and paid for
        #[arg(long, conflicts_with = "adopt")]
        resubmit: bool,
    },
}

fn parse_state(text: &str) -> Result<shiftboss_protocol::job::JobState, String> {
    use shiftboss_protocol::job::JobState;
    JobState::parse(text).ok_or_else(|| {
        let known: Vec<_> = JobState::ALL.iter().map(|state| state.as_str()).collect();
        format!("states are {}", known.join(", "))
    })
}
