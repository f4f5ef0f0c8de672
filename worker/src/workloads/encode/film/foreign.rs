//! What a file is that is no film, told by the reader that FFmpeg would have used. Pure.

/// Readers of playlists and lists, which lead to other files.
const LISTS: &[&str] = &["hls", "dash", "concat", "imf", "sdp", "rtsp", "ffmetadata"];
/// Readers of sound alone.
const SOUNDS: &[&str] = &[
    "mp3", "wav", "w64", "flac", "aac", "aiff", "caf", "ac3", "eac3", "amr", "amrnb", "amrwb",
    "ape", "tta", "wv", "au", "dts", "truehd", "mlp", "voc", "tak", "loas", "opus", "s16le",
];
/// Readers of text and subtitles.
const TEXTS: &[&str] =
    &["tty", "srt", "ass", "webvtt", "microdvd", "sami", "subviewer", "bin", "xbin", "sup", "lrc"];

/// Says what a file is by FFmpeg's name of its reader, such as `png_pipe` or `wav`: words that
/// follow "it is". `None` for what could be a film elsewhere.
pub(crate) fn what_is(reader: &str) -> Option<&'static str> {
    let is_in = |names: &[&str]| reader.split(',').any(|name| names.contains(&name));
    if is_in(LISTS) {
        Some("a playlist or list that leads to other files, which is refused")
    } else if reader.ends_with("_pipe") || reader == "image2" || reader == "ico" {
        Some("a still picture, not a film")
    } else if is_in(SOUNDS) {
        Some("sound without pictures (audio only), not a film")
    } else if is_in(TEXTS) {
        Some("text or subtitles, not a film")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_readers() {
        let is = |reader: &str, words: &str| {
            assert!(what_is(reader).expect(reader).contains(words), "{reader}");
        };
        is("png_pipe", "still picture");
        is("image2", "still picture");
        is("mp3", "audio only");
        is("hls", "playlist");
        is("concat", "playlist");
        is("srt", "subtitles");
        assert_eq!(what_is("avi"), None);
        assert_eq!(what_is(""), None);
    }
}
