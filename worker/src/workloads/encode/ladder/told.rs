//! What a ladder's result says.

use super::super::codec::Encoder;
use super::super::film::facts::Facts;
use super::super::output::names::path_text;
use super::super::output::verify::Findings;
use super::{Outputs, Work, milliseconds};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

impl Work<'_> {
    pub(super) fn result(
        &self,
        outputs: &Outputs,
        output_dir: &Path,
        refused: &[(Encoder, String)],
    ) -> Value {
        let mut listed: Vec<Output> = outputs
            .made
            .iter()
            .zip(self.names())
            .map(|(made, name)| Output {
                rendition: &made.name,
                path: path_text(&output_dir.join(name)),
                width: made.width,
                height: made.height,
                duration_ms: made.duration_ms,
                frames: made.video.packets,
                bytes: made.bytes,
                video_codec: &made.codec,
                audio: made.audio,
                check: made.findings(outputs.check),
            })
            .collect();
        let hls = outputs.packed.as_ref().map(|packed| {
            let folder = output_dir.join(packed.parcel.name());
            for (output, rung) in listed.iter_mut().zip(&packed.rungs) {
                output.path = path_text(&folder.join(&rung.playlist));
                output.bytes = rung.bytes;
            }
            packed.result(&folder)
        });
        json!({
            "hls": hls,
            "outputs": listed,
            "input": Input {
                path: path_text(self.input),
                bytes: self.film.bytes,
                frames: self.film.scan.tracks.get(&self.plan.video_stream).map(|t| t.packets),
                facts: &self.film.facts,
            },
            "encoder": self.plan.encoder,
            "encoders_refused": refused
                .iter()
                .map(|(encoder, reason)| json!({"encoder": encoder, "reason": reason}))
                .collect::<Vec<_>>(),
            "notes": self.plan.notes.iter().chain(&outputs.notes).collect::<Vec<_>>(),
            "warnings": outputs.warnings,
            "chunks": outputs.chunks.0,
            "resumed": outputs.chunks.1,
            "chunks_by": outputs.made_by,
            "whole_because": outputs.whole_because,
            "probe_ms": outputs.probe_ms,
            "encode_ms": outputs.encode_ms,
            "ffmpeg_ms": milliseconds(outputs.used.wall),
            "ffmpeg_cpu_ms": milliseconds(outputs.used.cpu),
            "verify_ms": outputs.verify_ms,
            "pack_ms": outputs.pack_ms,
        })
    }
}

/// One output in the job's result.
#[derive(Serialize)]
struct Output<'a> {
    rendition: &'a str,
    path: String,
    width: u32,
    height: u32,
    duration_ms: u64,
    frames: u64,
    bytes: u64,
    video_codec: &'a str,
    audio: bool,
    /// What its check found.
    check: Findings,
}

/// The film in the job's result.
#[derive(Serialize)]
struct Input<'a> {
    path: String,
    bytes: u64,
    /// Packets of the video stream.
    frames: Option<u64>,
    #[serde(flatten)]
    facts: &'a Facts,
}
