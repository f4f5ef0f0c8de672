//! The same program under the names of ffmpeg and ffprobe: what a worker asks of them at its
//! start is answered, every film is one of a second; and for the rest it is the hostile program,
//! whose plan is the film.

use super::hostile;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

/// Names of the copies in the staged world.
pub(super) const FFMPEG: &str = "selftest-ffmpeg";
pub(super) const FFPROBE: &str = "selftest-ffprobe";

/// ffprobe's answer about the streams.
const STREAMS: &str = r#"{"streams":[{"index":0,"codec_type":"video","codec_name":"h264",
"width":320,"height":240,"pix_fmt":"yuv420p","r_frame_rate":"25/1","avg_frame_rate":"25/1"}],
"format":{"format_name":"mpegts","duration":"1.0","start_time":"0.0"}}"#;

/// `main` of a program of one of these names; `None` for any other.
pub(super) fn main(arguments: &[OsString]) -> Option<io::Result<()>> {
    let (own, arguments) = arguments.split_first()?;
    let name = Path::new(own).file_name()?;
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    if name == FFPROBE {
        return Some(if has("-version") {
            say("ffprobe version 7.1-selftest")
        } else if has("json") {
            say(STREAMS)
        } else {
            list_packets()
        });
    }
    if name != FFMPEG {
        return None;
    }
    if has("-version") {
        return Some(say("ffmpeg version 7.1-selftest"));
    }
    if has("lavfi") {
        return Some(Ok(()));
    }
    let film = arguments.iter().skip_while(|word| *word != "-i").nth(1)?;
    Some(hostile::run(Path::new(film)).inspect_err(|error| {
        let _ = writeln!(io::stderr(), "[error] {error}");
    }))
}

fn list_packets() -> io::Result<()> {
    (0..25).try_for_each(|frame| {
        let time = format!("0.{:02}", frame * 4);
        say(&format!("stream_index=0|pts_time={time}|dts_time={time}|duration_time=0.04|flags=K__"))
    })
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
