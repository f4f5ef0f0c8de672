//! What the payload of an `encode` job may ask for.

mod check;
mod details;
mod filters;
mod jpeg;
mod keying;
mod passthrough;
mod probe;
mod samples;
mod show;
mod sound;
mod stitch;
mod thumbnail;
mod verify;

use super::host::Host;
use super::ladder;
use super::tools::Tools;
use crate::attempt::Job;
use crate::parse_payload;
use crate::path::{check_read, parse_path};
use serde::Deserialize;
use serde_json::Value;
use shiftboss_protocol::job::{Cause, Failure};
use std::path::PathBuf;

/// Runs one attempt of the op that the payload names.
///
/// # Errors
/// A permanent [`Failure`] with cause [`Cause::Payload`] that names the field; else that of the op.
pub(super) fn run(job: &Job, host: &dyn Host) -> Result<Value, Failure> {
    // Read on its own, so that a payload for another op is answered by a sentence about the op and
    // not about the first field that it should not have.
    #[derive(Deserialize)]
    struct Offer {
        op: String,
    }
    let offer: Offer = parse_payload(job)?;
    match offer.op.as_str() {
        "keying" => keying::run(job, host),
        "ladder" => ladder::run(job, host),
        "passthrough" => passthrough::run(job, host),
        "probe" => probe::run(job, host),
        "stitch" => stitch::run(job, host),
        "thumbnail" => thumbnail::run(job, host),
        "verify" => verify::run(job, host),
        other => {
            let other: String = other.chars().take(80).collect();
            let message = format!(
                "payload field op: {other:?} is not offered by this version, which has \
                 \"keying\", \"ladder\", \"passthrough\", \"probe\", \"stitch\", \
                 \"thumbnail\" and \"verify\""
            );
            Err(Failure::permanent(Cause::Payload, message))
        }
    }
}

/// The input that a payload names, and the tools.
fn open(host: &dyn Host, input: &str) -> Result<(PathBuf, Tools), Failure> {
    let settings = host.settings();
    let input = check_read(settings, "input", &parse_path("input", input)?)?;
    let tools = Tools::find(settings)
        .map_err(|sentence| Failure::retryable(Cause::FailedStart, sentence))?;
    Ok((input, tools))
}
