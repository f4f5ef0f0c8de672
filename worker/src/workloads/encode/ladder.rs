//! The op `ladder`, step by step: finish what an earlier attempt left, look at the film, plan,
//! encode, verify, publish.

mod told;
mod wishes;

use super::arguments;
use super::chunks::check;
use super::chunks::cut::{self, Cuts};
use super::chunks::make::{self, Parts};
use super::chunks::shelf;
use super::codec::{Encoder, choice, sessions, trial};
use super::film::probe::{self, Film};
use super::film::scan::Track;
use super::hls::{self, Packed};
use super::host::{Host, Steady, go_on, threads};
use super::output::decode;
use super::output::names::{folder_name, output_name};
use super::output::publish::{self, RenameList, Staging};
use super::output::verify::{self, Made};
use super::payload::{self, Check, Format, Ladder};
use super::plan::{self, Plan};
use super::progress::{Block, Meter};
use super::run::{self as run_ffmpeg, Files, Lost, Ran, Used};
use super::tools::Tools;
use crate::attempt::Job;
use crate::path::{check_read, check_write, parse_path};
use serde_json::Value;
use shiftboss_protocol::job::{Cause, Failure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Runs one attempt.
///
/// # Errors
/// The [`Failure`] of the step that failed; nothing is left in the output folder then, unless
/// the outputs are complete and only their renaming was interrupted. What a next attempt can
/// use is kept.
pub(super) fn run(job: &Job, host: &dyn Host) -> Result<Value, Failure> {
    let outcome = attempt(job, &Steady::new(host));
    let is_over = match &outcome {
        Ok(_) => true,
        Err(failure) => failure.permanent || failure.cause == Cause::Cancelled,
    };
    if is_over {
        host.remove_kept();
    }
    outcome
}

fn attempt(job: &Job, host: &dyn Host) -> Result<Value, Failure> {
    let ladder = payload::read(job, host.settings())?;
    let settings = host.settings();
    let output_dir = parse_path("output_dir", &ladder.output_dir)?;
    let output_dir = check_write(settings, "output_dir", &output_dir)?;
    if let Some(result) = publish::finish(job.checkpoint.as_deref(), &output_dir, job.id.0)? {
        host.log("an earlier attempt had verified its outputs: they are in place now");
        return Ok(result);
    }
    let input = parse_path("input", &ladder.input)?;
    let input = check_read(settings, "input", &input)?;
    let tools = Tools::find(settings)
        .map_err(|sentence| Failure::retryable(Cause::FailedStart, sentence))?;

    let began = Instant::now();
    let film = probe::film(host, &tools, &input, ladder.expect.duration_ms)?;
    let probe_ms = milliseconds(began.elapsed());
    let (resumed, mut again) = (OnceLock::new(), false);
    let mut refused = Vec::new();
    loop {
        go_on(host)?;
        let begun = begun(host, &film, &ladder)?;
        let lost: Vec<Encoder> = refused.iter().map(|(encoder, _)| *encoder).collect();
        let order = choice::order(&ladder.codecs.0, begun.last().copied(), &lost);
        let chosen = trial::choose(host, &tools, &order, &mut refused)?;
        let mut plan = plan::plan(&film.facts, &ladder, &chosen)?;
        plan.threads = threads(settings);
        plan.sets = u32::from(begun.iter().any(|other| *other != chosen.encoder));
        let places =
            sessions::Places { devices: &settings.devices, folder: &settings.sessions_dir };
        let _held = match sessions::take(places, chosen.encoder, plan.rungs.len()) {
            Ok(held) => held,
            Err(reason) => {
                refused.push((chosen.encoder, reason));
                continue;
            }
        };
        let work = Work {
            host,
            tools: &tools,
            input: &input,
            film: &film,
            plan: &plan,
            ladder: &ladder,
            lost: Lost::default(),
            again,
            resumed: &resumed,
        };
        match work.run(job, &output_dir, (began, probe_ms), &refused) {
            Err(failure) => match work.lost.words() {
                // No attempt is spent: the next encoder goes on with the chunks that are missing,
                // where its own fit those, and makes all anew where not.
                Some(words) if host.stop_reason().is_none() => {
                    host.log(&format!("{}: {words}; the next is tried", chosen.encoder.name()));
                    trial::forget(chosen.encoder);
                    sessions::learn(places, chosen.encoder, &words);
                    refused.push((chosen.encoder, words));
                    again = true;
                }
                Some(_) | None => return Err(failure),
            },
            done => return done,
        }
    }
}

/// The encoders of the chunks that are there, the last one last.
fn begun(host: &dyn Host, film: &Film, ladder: &Ladder) -> Result<Vec<Encoder>, Failure> {
    if ladder.codecs.0.len() < 2 || !cut::is_long(film, ladder.chunk_seconds.0) {
        return Ok(Vec::new());
    }
    Ok(shelf::encoders_of(&host.kept()?))
}

/// What all steps of one attempt share, as long as it keeps its encoder.
pub(super) struct Work<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) tools: &'a Tools,
    pub(super) input: &'a Path,
    pub(super) film: &'a Film,
    pub(super) plan: &'a Plan,
    pub(super) ladder: &'a Ladder,
    /// Set when the encoder failed, and not the film.
    pub(super) lost: Lost,
    /// Another encoder was lost in this attempt, with what it had made in one go.
    pub(super) again: bool,
    /// How many chunks of earlier attempts there were when this one began.
    pub(super) resumed: &'a OnceLock<usize>,
}

/// How a film is to be encoded: in one go because it is short, or because of the reason.
enum Way {
    Chunks(Cuts),
    Whole(Option<String>),
}

/// The same, with the parts made.
enum Encoding<'a> {
    Chunks(Box<Parts<'a>>),
    Whole(Option<String>),
}

/// Outputs that were verified, and how long that took.
#[derive(Default)]
struct Outputs {
    made: Vec<Made>,
    /// The same as HLS, if that was asked for.
    packed: Option<Packed>,
    warnings: Vec<String>,
    /// How many chunks there are, and how many of them were taken over.
    chunks: (usize, usize),
    /// And how many each encoder has made.
    made_by: BTreeMap<&'static str, usize>,
    /// What became of chunks of a lost encoder.
    notes: Vec<String>,
    check: Check,
    whole_because: Option<String>,
    probe_ms: u64,
    encode_ms: u64,
    /// By FFmpeg itself, in this attempt.
    used: Used,
    verify_ms: u64,
    pack_ms: u64,
}

impl Work<'_> {
    /// From the cuts to the outputs in their place.
    fn run(
        &self,
        job: &Job,
        output_dir: &Path,
        times: (Instant, u64),
        refused: &[(Encoder, String)],
    ) -> Result<Value, Failure> {
        let open_staging = || Staging::open(output_dir, job.id.0, job.attempt.0);
        let cuts = self.cuts(self.ladder.chunk_seconds.0);
        let way = match &cuts {
            Way::Chunks(cuts) => {
                // A folder that cannot be written is found now and not after hours.
                open_staging()?.discard();
                self.parts(cuts)?
            }
            Way::Whole(reason) => {
                if self.again {
                    self.host.begin_anew();
                }
                Encoding::Whole(reason.clone())
            }
        };
        let staging = open_staging()?;
        let list = match self.sealed(way, &staging, times, (output_dir, refused)) {
            Ok(list) => list,
            Err(failure) => {
                staging.discard();
                return Err(failure);
            }
        };
        staging.publish(&list, output_dir)?;
        staging.discard();
        Ok(list.result)
    }

    /// Makes the outputs and stores the list that puts them into their place.
    fn sealed(
        &self,
        way: Encoding<'_>,
        staging: &Staging,
        times: (Instant, u64),
        (output_dir, refused): (&Path, &[(Encoder, String)]),
    ) -> Result<RenameList, Failure> {
        let mut made = self.make(way, staging, times)?;
        if self.ladder.format == Format::Hls {
            made = self.pack(made, staging, self.ladder.segment_seconds.0)?;
        }
        // What is stored is finished, by this attempt or the next: the last moment to stop.
        go_on(self.host)?;
        let result = self.result(&made, output_dir, refused);
        let list = match &made.packed {
            Some(packed) => staging.seal_parcel(&packed.parcel, result)?,
            None => staging.seal(&self.names(), result)?,
        };
        let bytes = serde_json::to_vec(&list).expect("the list is made of strings and numbers");
        self.host.checkpoint(&bytes)?;
        Ok(list)
    }

    fn names(&self) -> Vec<String> {
        self.plan.rungs.iter().map(|rung| output_name(self.input, &rung.name)).collect()
    }

    fn cuts(&self, chunk_seconds: u32) -> Way {
        if !cut::is_long(self.film, chunk_seconds) {
            return Way::Whole(None);
        }
        match cut::cut(self.film, self.plan, chunk_seconds) {
            Ok(cuts) => Way::Chunks(cuts),
            Err(reason) => Way::Whole(Some(self.in_one_go(reason))),
        }
    }

    fn parts<'b>(&'b self, cuts: &'b Cuts) -> Result<Encoding<'b>, Failure> {
        Ok(match make::parts(self, cuts)? {
            make::Made::Parts(parts) => Encoding::Chunks(parts),
            make::Made::Whole(reason) => {
                self.host.begin_anew();
                Encoding::Whole(Some(self.in_one_go(reason)))
            }
        })
    }

    /// Shows a share of what is done before the outputs are checked.
    pub(super) fn show(&self, share: f64, note: &str) {
        self.host.progress(Some(share * self.plan.check.begin()), note);
    }

    fn in_one_go(&self, reason: String) -> String {
        self.host.log(&format!(
            "the film is encoded in one go, and from its begin after a crash, because {reason}"
        ));
        reason
    }

    fn make(
        &self,
        way: Encoding<'_>,
        staging: &Staging,
        (began, probe_ms): (Instant, u64),
    ) -> Result<Outputs, Failure> {
        let names = self.names();
        let staged: Vec<PathBuf> = names.iter().map(|name| staging.path_of(name)).collect();
        let mut outputs = Outputs { check: self.plan.check, probe_ms, ..Outputs::default() };
        let (last, complaint, parts) = match way {
            Encoding::Whole(reason) => {
                outputs.whole_because = reason;
                if self.again {
                    outputs.notes = vec!["all was made anew: no chunks could be kept".to_owned()];
                }
                let Ran { last, stderr, used } = self.encode(&staged, staging.path())?;
                outputs.used = used;
                let complaint = stderr.first().map(|first| {
                    format!("ffmpeg reported {} errors, the first: {first}", stderr.errors)
                });
                (last, complaint, None)
            }
            Encoding::Chunks(mut parts) => {
                outputs.chunks = parts.counts();
                parts.join(&staged)?;
                (outputs.notes, outputs.made_by) = (parts.notes(), parts.made_by());
                if outputs.made_by.len() > 1 {
                    // The ends prove nothing about where two encoders meet.
                    outputs.check = Check::Full;
                }
                outputs.used = parts.used();
                let frame = u64::try_from(parts.cuts().times_us.len()).ok();
                let last = Block { frame, is_last: true, ..Block::default() };
                (last, parts.complaint(), Some(parts))
            }
        };
        outputs.encode_ms = milliseconds(began.elapsed()).saturating_sub(probe_ms);

        let verifying = Instant::now();
        for (at, (rung, name)) in self.plan.rungs.iter().zip(&names).enumerate() {
            go_on(self.host)?;
            let note = format!("checking output {} of {}", at + 1, names.len());
            self.host.progress(Some(self.plan.check.begin()), &note);
            let bytes = staging.bytes_of(name)?;
            let of = (rung, self.plan);
            outputs.made.push(verify::open(self.host, self.tools, &staged[at], bytes, of)?);
        }
        if let Some(parts) = &parts {
            self.compare(parts, &outputs.made)?;
        }
        for made in &outputs.made {
            self.is_worth_it(&made.name, made.bytes, (1, 1))?;
        }
        let film = self.as_kept(&outputs.made);
        outputs.warnings = verify::judge(&outputs.made, (&film, self.plan), &last)?;
        outputs.warnings.extend(complaint);
        // Last: what the packets tell already needs no decoder.
        self.decode(&mut outputs, &staged, parts.as_deref())?;
        outputs.verify_ms = milliseconds(verifying.elapsed());
        Ok(outputs)
    }

    /// Decodes what the check of the outputs asks for.
    fn decode(
        &self,
        outputs: &mut Outputs,
        staged: &[PathBuf],
        parts: Option<&Parts<'_>>,
    ) -> Result<(), Failure> {
        let count = outputs.made.len();
        for (at, (made, path)) in outputs.made.iter_mut().zip(staged).enumerate() {
            go_on(self.host)?;
            let check = (outputs.check, at, count);
            let decoded = decode::decode((self.host, self.tools), path, made, check);
            // Another attempt would join the same chunks again.
            if let (Err(failure), Some(parts)) = (&decoded, parts)
                && outputs.made_by.len() > 1
            {
                parts.give_up(&failure.message)?;
            }
            made.decoded = decoded?;
        }
        Ok(())
    }

    /// Makes HLS of the verified outputs.
    fn pack(
        &self,
        mut outputs: Outputs,
        staging: &Staging,
        seconds: u32,
    ) -> Result<Outputs, Failure> {
        let packing = Instant::now();
        let staged: Vec<PathBuf> = self.names().iter().map(|name| staging.path_of(name)).collect();
        let name = folder_name(self.input, "hls");
        let made = (staged.as_slice(), outputs.made.as_slice());
        outputs.packed = Some(hls::pack(self, staging, made, (&name, seconds))?);
        outputs.pack_ms = milliseconds(packing.elapsed());
        Ok(outputs)
    }

    /// Joined outputs hold every picture of the film at its time. When one does not, all is
    /// made again in one go.
    fn compare(&self, parts: &Parts<'_>, made: &[Made]) -> Result<(), Failure> {
        for (at, made) in made.iter().enumerate() {
            let verdict = check::compare_all(parts.cuts(), parts.start_us(at), &made.pictures);
            if let Err(what) = verdict {
                let message = format!("joined output {} failed its check: {what}", made.name);
                parts.give_up(&message)?;
                return Err(Failure::retryable(Cause::Error, message));
            }
        }
        Ok(())
    }

    /// Runs FFmpeg to its end; gives its last progress block and what it complained about.
    fn encode(&self, staged: &[PathBuf], folder: &Path) -> Result<Ran, Failure> {
        let measured = self.loudness(None)?;
        let outputs = (staged, measured.as_slice());
        let argv = arguments::ladder(&self.tools.ffmpeg, self.input, self.plan, outputs);
        let (began, mut meter) = (Instant::now(), Meter::new(self.expected_us()));
        let files = Files::of(self.input, folder);
        let lost = self.lost.of(self.plan.encoder);
        run_ffmpeg::encode(self.host, files, (argv, lost), &mut |block| {
            let sizes: Vec<u64> =
                staged.iter().map(|path| run_ffmpeg::bytes_of([path.as_path()])).collect();
            let (fraction, note) = meter.report(began.elapsed(), block, sizes.iter().sum());
            let fraction = fraction.map(|fraction| fraction * self.plan.check.begin());
            self.host.progress(fraction, &format!("{note}{}", self.plan.sizes(&sizes)));
        })
    }

    /// How long the outputs will be, as far as the packets tell.
    fn expected_us(&self) -> Option<u64> {
        let scan = &self.film.scan;
        let is_broken = !scan.tracks.values().all(Track::has_steady_clock);
        u64::try_from(scan.length_us()).ok().filter(|_| !is_broken)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
