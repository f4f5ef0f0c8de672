//! How each encoder is told about quality, peak and speed. Names of options were read from
//! FFmpeg's own help; those of hardware were not run where they were written.

use super::super::payload::Preset;
use super::super::plan::{KEYFRAME_SECONDS, Plan, Rung};
use super::{Codec, Encoder, Engine};
use ffmpeg_sidecar::command::FfmpegCommand;

/// What opens the device, before the inputs.
pub(crate) fn device(command: &mut FfmpegCommand, encoder: Encoder, path: Option<&str>) {
    let path = path.unwrap_or_default();
    match encoder.engine {
        Engine::Vaapi => {
            command.args(["-init_hw_device", &format!("vaapi=va:{path}")]);
            command.args(["-filter_hw_device", "va"]);
        }
        Engine::Qsv => {
            command.args(["-init_hw_device", &format!("vaapi=va:{path}")]);
            command.args(["-init_hw_device", "qsv=qs@va", "-filter_hw_device", "qs"]);
        }
        Engine::X264 | Engine::X265 | Engine::SvtAv1 | Engine::Vpx | Engine::Nvenc => {}
    }
}

/// The end of a rung's filters: pictures as the encoder takes them.
pub(crate) const fn hand_over(encoder: Encoder) -> &'static str {
    match encoder.engine {
        Engine::Vaapi => "format=nv12,hwupload",
        Engine::Qsv => "format=nv12,hwupload=extra_hw_frames=64",
        Engine::X264 | Engine::X265 | Engine::SvtAv1 | Engine::Vpx | Engine::Nvenc => {
            "format=yuv420p"
        }
    }
}

/// The encoder of a rung with its quality, its peak and its preset.
pub(crate) fn encoder(command: &mut FfmpegCommand, plan: &Plan, rung: &Rung) {
    let Encoder { engine, codec } = plan.encoder;
    command.codec_video(plan.encoder.name());
    let (peak, buffer) = (format!("{}k", rung.rate_max_kbit), format!("{}k", rung.buffer_kbit));
    let crf = plan.crf.to_string();
    let mut add = |arguments: &[&str]| {
        command.args(arguments.iter().copied());
    };
    let speed = speed(engine, plan.preset).to_string();
    match engine {
        Engine::X264 => {
            add(&["-preset", plan.preset.as_str(), "-crf", &crf, "-pix_fmt", "yuv420p"]);
            let sets = match plan.sets {
                0 => String::new(),
                number => format!(":sps-id={number}"),
            };
            add(&["-sc_threshold", "0", "-x264-params", &format!("open-gop=0{sets}")]);
        }
        Engine::X265 => {
            add(&["-preset", plan.preset.as_str(), "-crf", &crf, "-pix_fmt", "yuv420p"]);
            add(&["-x265-params", "open-gop=0:scenecut=0:log-level=error"]);
        }
        Engine::SvtAv1 => {
            add(&["-preset", &speed, "-crf", &crf, "-pix_fmt", "yuv420p"]);
            add(&["-g", &count(plan).to_string()]);
        }
        Engine::Vpx => {
            add(&["-deadline", "good", "-cpu-used", &speed, "-row-mt", "1"]);
            // Quality within a rate: the rate is what a peak would be elsewhere.
            add(&["-crf", &crf, "-b:v", &peak, "-pix_fmt", "yuv420p"]);
        }
        Engine::Nvenc => {
            add(&["-preset", &format!("p{speed}"), "-tune", "hq", "-rc", "vbr", "-cq", &crf]);
            add(&["-b:v", "0", "-forced-idr", "1", "-no-scenecut", "1", "-strict_gop", "1"]);
            add(&["-pix_fmt", "yuv420p"]);
        }
        Engine::Vaapi => {
            let rate = format!("{}k", rung.rate_max_kbit * 7 / 10);
            add(&["-rc_mode", "VBR", "-b:v", &rate]);
        }
        Engine::Qsv => {
            add(&["-preset", &speed, "-global_quality", &crf, "-forced_idr", "1"]);
        }
    }
    add(&["-maxrate", &peak, "-bufsize", &buffer]);
    if codec == Codec::Hevc {
        // Apple's players know no other mark.
        add(&["-tag:v", "hvc1"]);
    }
}

/// Pictures between two keyframes.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn count(plan: &Plan) -> u32 {
    let rate = plan.rate.unwrap_or(25.0);
    (rate * f64::from(KEYFRAME_SECONDS)).round().clamp(1.0, 1000.0) as u32
}

/// The preset in the encoder's own numbers.
const fn speed(engine: Engine, preset: Preset) -> &'static str {
    let place = preset as usize;
    match engine {
        Engine::SvtAv1 => ["12", "11", "10", "9", "8", "7", "5", "4", "3"][place],
        Engine::Vpx => ["5", "5", "5", "4", "3", "2", "1", "1", "0"][place],
        Engine::Nvenc => ["1", "2", "3", "4", "4", "5", "6", "7", "7"][place],
        // Their names begin with veryfast.
        Engine::Qsv => [
            "veryfast", "veryfast", "veryfast", "faster", "fast", "medium", "slow", "slower",
            "veryslow",
        ][place],
        Engine::X264 | Engine::X265 | Engine::Vaapi => "",
    }
}
