//! Inputs as they come from phones, discs, cameras and broadcasts: each becomes a plain film, and
//! the result says what was done.

use super::super::ladder;
use super::stage::{Stage, Studio, ffmpeg, ffprobe, turn};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOUND: &str = "-f lavfi -i sine=frequency=440";
const FAST: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

fn output(result: &Value) -> PathBuf {
    PathBuf::from(result["outputs"][0]["path"].as_str().expect("a path is text"))
}

fn notes(result: &Value) -> Vec<&str> {
    let notes = result["notes"].as_array().expect("notes are listed");
    notes.iter().map(|note| note.as_str().expect("a note is text")).collect()
}

/// What a filter that measures prints about a film, one value per line.
fn measured(path: &Path, filter: &str, key: &str) -> Vec<f64> {
    let said = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-i"])
        .arg(path)
        .args(filter.split_whitespace())
        .args(["-f", "null", "-"])
        .output()
        .expect("ffmpeg is installed on every machine that runs these tests");
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    let values = text.lines().filter_map(|line| line.split_once(key));
    values.filter_map(|(_, value)| value.split_whitespace().next()?.parse().ok()).collect()
}

#[test]
fn every_rotation_is_turned_once_and_told() {
    let studio = Studio::new();
    let plain = studio.path("plain.mp4");
    // White at the left edge of the stored picture.
    let corner = "color=black:s=320x180:r=25,drawbox=w=40:h=ih:color=white:t=fill";
    ffmpeg(&format!("-f lavfi -i {corner} -t 1 {FAST}"), &plain);
    for degrees in [90, 180, 270] {
        let film = studio.path(format!("turned-{degrees}.mp4"));
        turn(&plain, degrees, "", &film);
        let turned = ffprobe("-show_entries stream_side_data=rotation", &film);
        // Counted against the clock. Where the left edge comes to lie: size and place of a crop.
        let (crop, size) = match turned[0].as_str() {
            "90" => ("160:10:4:305", "180,320"),
            "-90" => ("160:10:4:4", "180,320"),
            "180" | "-180" => ("10:160:305:4", "320,180"),
            other => panic!("turned by {other}"),
        };
        let result = studio.run(&film, &json!({})).expect("the film is good");
        assert!(notes(&result)[0].starts_with("turned by "), "{result}");
        let path = output(&result);
        assert_eq!(ffprobe("-show_entries stream=width,height", &path), [size]);
        assert_eq!(ffprobe("-show_entries stream_side_data=rotation", &path), Vec::<String>::new());
        let filter = format!("-vf crop={crop},signalstats,metadata=print");
        let light = measured(&path, &filter, "signalstats.YAVG=");
        assert!(light.iter().all(|light| *light > 200.0), "{degrees}: {light:?}");
    }
}

#[test]
fn anamorphic_films_are_shown_as_wide_as_they_were_meant() {
    let studio = Studio::new();
    let film = studio.path("dvd.mkv");
    ffmpeg(&format!("-f lavfi -i testsrc2=s=360x288:r=25,setsar=16/11 -t 1 {FAST}"), &film);
    let result = studio.encode(&film, &json!({}));
    assert_eq!(notes(&result), ["its pixels, 1.4545 times as wide as high, were made square"]);
    let facts = "-show_entries stream=width,height,sample_aspect_ratio";
    assert_eq!(ffprobe(facts, &output(&result)), ["524,288,1:1"]);
}

#[test]
fn interlaced_films_of_every_order_lose_their_combs() {
    let studio = Studio::new();
    let fields = "-flags +ildct+ilme";
    for (name, order, codec, note) in [
        ("top.ts", "tff", "-c:v mpeg2video -q:v 3", "deinterlaced (field order tt)"),
        ("bottom.ts", "bff", "-c:v mpeg2video -q:v 3", "deinterlaced (field order bb)"),
        ("top.mkv", "tff", "-c:v libx264 -preset ultrafast -x264-params tff=1", "field order t"),
        ("tape.avi", "bff", "-c:v dvvideo", "flagged as interlaced were deinterlaced"),
    ] {
        let film = studio.path(name);
        let lines = if order == "tff" { "interleave_top" } else { "interleave_bottom" };
        let filters = format!("-vf tinterlace={lines},fieldorder={order} {fields}");
        let input = "-f lavfi -i testsrc2=s=720x576:r=50 -t 1";
        ffmpeg(&format!("{input} {filters} {codec} -pix_fmt yuv420p"), &film);
        let result = studio.run(&film, &json!({})).expect(name);
        assert!(notes(&result)[0].contains(note), "{name}: {result}");
        let path = output(&result);
        assert_eq!(result["outputs"][0]["frames"], json!(25), "{name}");
        assert_eq!(ffprobe("-show_entries stream=field_order", &path), ["progressive"]);
        let combed = |path: &Path| {
            let all = measured(path, "-vf idet", "Multi frame detection: TFF:");
            // Version 9 sets the filter up twice and counts for both; the last line is of all.
            all.last().copied().unwrap_or(0.0)
                + measured(path, "-vf idet", "BFF:").last().copied().unwrap_or(0.0)
        };
        assert!(combed(&film) > 20.0, "{name}: the input is interlaced, {}", combed(&film));
        assert!(combed(&path) < 3.0, "{name}: {} frames are combed", combed(&path));
    }
}

/// A film of one second in 10 bit and the wide colours of HDR.
fn hdr(source: &str, transfer: &str, film: &Path) {
    let tags = format!("-color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc");
    let codec = format!("-c:v ffv1 -strict -2 -color_range tv {tags}");
    // Version 9 believes the pictures, 5.1 the options.
    let pictures = tags.replace("-color_primaries ", "color_primaries=");
    let pictures = pictures.replace(" -color_trc ", ":color_trc=");
    let pictures = pictures.replace(" -colorspace ", ":colorspace=");
    let pixels = format!("-vf format=yuv420p10le,setparams=range=tv:{pictures}");
    ffmpeg(&format!("-f lavfi -i {source} -t 1 {pixels} {codec}"), film);
}

#[test]
fn hdr_becomes_sdr_with_the_tags_of_sdr() {
    let studio = Studio::new();
    for (name, transfer, note) in [
        ("pq.mkv", "smpte2084", "tone-mapped from PQ (smpte2084) to SDR (bt709)"),
        ("hlg.mkv", "arib-std-b67", "tone-mapped from HLG (arib-std-b67) to SDR (bt709)"),
    ] {
        let film = studio.path(name);
        hdr("testsrc2=s=320x180:r=25", transfer, &film);
        let result = studio.run(&film, &json!({})).expect(name);
        assert_eq!(notes(&result)[0], note);
        let tags =
            "-show_entries stream=pix_fmt,color_range,color_space,color_transfer,color_primaries";
        assert_eq!(ffprobe(tags, &output(&result)), ["yuv420p,tv,bt709,bt709,bt709"], "{name}");
    }
}

#[test]
fn the_light_of_hdr_stays_light_and_its_grey_stays_grey() {
    let studio = Studio::new();
    let film = studio.path("grey.mkv");
    // In PQ, 10 bit: a candle's and a lamp's light, 1 and 1000 nits.
    for (code, expected) in [(195, 16.0..60.0), (723, 215.0..236.0)] {
        let grey = format!("format=yuv420p10le,geq=lum={code}:cb=512:cr=512");
        hdr(&format!("color=s=64x64:r=25,{grey}"), "smpte2084", &film);
        let result = studio.run(&film, &json!({})).expect("the film is good");
        let of = |key: &str| {
            let filter = "-vf signalstats,metadata=print";
            measured(&output(&result), filter, &format!("signalstats.{key}="))[0]
        };
        // Taken over without a change, the lamp would be at 181.
        assert!(expected.contains(&of("YAVG")), "{code}: {}", of("YAVG"));
        assert!((of("UAVG") - 128.0).abs() < 3.0 && (of("VAVG") - 128.0).abs() < 3.0);
    }
}

#[test]
fn an_ffmpeg_that_cannot_tone_map_is_told_from_a_bad_film() {
    use std::os::unix::fs::PermissionsExt;
    let studio = Studio::new();
    let film = studio.path("pq.mkv");
    hdr("testsrc2=s=320x180:r=25", "smpte2084", &film);
    // Stands for a build without libzimg: this name is no filter of any.
    let poor = studio.path("poor-ffmpeg");
    let script = "#!/bin/bash\nexec ffmpeg \"${@//zscale=/zscale_is_missing=}\"\n";
    std::fs::write(&poor, script).expect("the folder can be written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&poor, mode).expect("the file is ours");
    let mut stage = Stage::default();
    stage.settings.ffmpeg = poor.display().to_string();
    let failure = ladder::run(&studio.job(&film, &json!({})), &stage).expect_err("no zscale");
    assert!(failure.permanent && failure.cause == crate::Cause::FailedStart, "{failure:?}");
    let words = "lacks the filter zscale_is_missing";
    assert!(failure.message.contains(words), "{}", failure.message);
    assert_eq!(studio.outputs(), Vec::<String>::new());
}

/// Six channels at nearly full scale, all in step: the worst that a mix can meet.
fn loud(layout: &str, channels: usize) -> String {
    let tone = vec!["0.95*sin(2000*t)"; channels].join("|");
    format!("-f lavfi -i aevalsrc={tone}:c={layout}")
}

#[test]
fn surround_is_mixed_down_without_clipping_or_kept_when_asked() {
    let studio = Studio::new();
    for (layout, channels) in [("5.1", 6), ("7.1", 8), ("3.0", 3), ("quad", 4)] {
        let film = studio.path(format!("{layout}.mkv"));
        let sound = loud(layout, channels);
        ffmpeg(&format!("-f lavfi -i color=s=160x120:r=25 {sound} -t 1 {FAST} -c:a flac"), &film);
        let result = studio.run(&film, &json!({})).expect(layout);
        let note = format!("audio 1 (flac) of {layout} mixed down to stereo");
        assert!(notes(&result).contains(&note.as_str()), "{result}");
        let path = output(&result);
        let shape = "-select_streams a -show_entries stream=channels,sample_rate";
        assert_eq!(ffprobe(shape, &path), ["48000,2"]);
        let peak = measured(&path, "-af astats=measure_perchannel=none", "Peak level dB: ");
        assert!((-12.0..0.1).contains(&peak[0]), "{layout}: {peak:?} dB");
        let kept = studio.run(&film, &json!({"audio_layout": "keep"})).expect(layout);
        let all = format!("48000,{channels}");
        assert_eq!(ffprobe(shape, &output(&kept)), [all], "{layout}");
        assert!(notes(&kept)[0].ends_with(&format!("of {layout} kept")), "{kept}");
    }
}

#[test]
fn channels_without_names_are_sound_too() {
    let studio = Studio::new();
    let film = studio.path("unnamed.avi");
    let sound = studio.path("unnamed.wav");
    ffmpeg(&format!("{} -t 1 -c:a pcm_s16le -bitexact", loud("5.1", 6)), &sound);
    let silent = format!("-f lavfi -i color=s=160x120:r=25 -i {}", sound.display());
    ffmpeg(&format!("{silent} -t 1 {FAST} -c:a copy"), &film);
    let result = studio.encode(&film, &json!({}));
    assert_eq!(ffprobe("-select_streams a -show_entries stream=channels", &output(&result)), ["2"]);
}

/// Two empty pictures of a Blu-ray's subtitles: nothing else makes such a file from nothing.
fn picture_subtitles(path: &Path) {
    let segment = |kind: u8, time: u32, data: &[u8]| {
        let mut bytes = b"PG".to_vec();
        bytes.extend(time.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.push(kind);
        bytes.extend(u16::try_from(data.len()).expect("it is short").to_be_bytes());
        bytes.extend(data);
        bytes
    };
    let composition = [1, 64, 0, 180, 16, 0, 0, 0x80, 0, 0, 0];
    let parts = [9_000, 45_000]
        .map(|time| [segment(0x16, time, &composition), segment(0x80, time, &[])].concat());
    std::fs::write(path, parts.concat()).expect("the folder can be written");
}

/// Two languages, the second of which is the default, text and picture subtitles, and a cover.
fn disc(studio: &Studio, seconds: u32) -> PathBuf {
    let (text, pictures, cover) =
        (studio.path("text.srt"), studio.path("pictures.sup"), studio.path("cover.png"));
    std::fs::write(&text, "1\n00:00:00,200 --> 00:00:00,900\nGr\u{fc}\u{df} Gott\n\n")
        .expect("the folder can be written");
    picture_subtitles(&pictures);
    ffmpeg("-f lavfi -i testsrc2=s=64x64 -frames:v 1", &cover);
    let film = studio.path("disc.mkv");
    let inputs = format!(
        "-f lavfi -i testsrc2=s=160x120:r=25 {SOUND} -f lavfi -i sine=frequency=880 -i {} -i {}",
        text.display(),
        pictures.display()
    );
    let maps = "-map 1 -map 0 -map 2 -map 4 -map 3";
    let tags = "-metadata:s:a:0 language=ger -metadata:s:a:1 language=fre \
                -disposition:a:0 0 -disposition:a:1 default -metadata:s:s:1 language=eng";
    let codecs = format!("{FAST} -g 12 -c:a ac3 -c:s:0 copy -c:s:1 srt");
    let attached = format!("-attach {} -metadata:s:t mimetype=image/png", cover.display());
    ffmpeg(&format!("{inputs} {maps} -t {seconds} {codecs} {tags} {attached}"), &film);
    film
}

#[test]
fn languages_and_text_subtitles_are_kept_and_the_rest_is_told() {
    let studio = Studio::new();
    let film = disc(&studio, 9);
    for chunk_seconds in [0, 2] {
        let stage = Stage { kept: Some(studio.path("kept")), ..Stage::default() };
        let more = json!({"chunk_seconds": chunk_seconds});
        let result = ladder::run(&studio.job(&film, &more), &stage).expect("the film is good");
        assert_eq!(result["chunks"] == json!(0), chunk_seconds == 0, "{result}");
        assert_eq!(
            notes(&result),
            [
                "subtitle 3 (hdmv_pgs_subtitle) dropped: it is pictures, outputs hold text",
                "subtitle 4 (subrip, eng) kept as mov_text",
                "cover 5 (png) dropped: it is a still picture",
            ]
        );
        assert_eq!(result["warnings"], json!([]), "{result}");
        let streams =
            "-show_entries stream=codec_name:stream_disposition=default:stream_tags=language";
        let found = ffprobe(streams, &output(&result));
        assert_eq!(
            found,
            ["h264,1,und", "aac,0,ger", "aac,1,fre", "mov_text,1,eng"],
            "{chunk_seconds}"
        );
        let text = studio.path("said.srt");
        ffmpeg(&format!("-i {} -map 0:s:0", output(&result).display()), &text);
        let text = std::fs::read_to_string(text).expect("it was made");
        assert!(text.contains("00:00:00,2") && text.contains("Gr\u{fc}\u{df} Gott"), "{text}");
    }
}

#[test]
fn a_cover_is_never_taken_for_the_film() {
    let studio = Studio::new();
    let (plain, cover, film) =
        (studio.path("plain.mp4"), studio.path("cover.jpg"), studio.path("film.mp4"));
    ffmpeg(&format!("-f lavfi -i testsrc2=s=160x120:r=25 {SOUND} -t 1 {FAST}"), &plain);
    ffmpeg("-f lavfi -i testsrc2=s=640x480 -frames:v 1", &cover);
    // The cover is the first stream, and larger than the film.
    let maps = format!("-i {} -i {} -map 0 -map 1", cover.display(), plain.display());
    ffmpeg(&format!("{maps} -c copy -disposition:v:0 attached_pic"), &film);
    let result = studio.encode(&film, &json!({}));
    assert_eq!(result["outputs"][0]["rendition"], json!("120p"));
    assert_eq!(result["outputs"][0]["frames"], json!(25));
    assert!(notes(&result)[0].contains("(mjpeg) dropped: it is a still picture"), "{result}");
}

#[test]
fn films_whose_container_does_not_say_how_long_they_are_work() {
    let studio = Studio::new();
    let source = format!("-f lavfi -i testsrc2=s=160x120:r=25 {SOUND} -t 2");
    for (name, codec) in [
        // Written into a pipe, as live recordings are: no length, no index.
        ("live.mkv", format!("{FAST} -c:a aac -live 1")),
        ("live.flv", format!("{FAST} -c:a aac -flvflags no_duration_filesize")),
        // No container at all, and so no times either.
        ("raw.h264", format!("{FAST} -an")),
        ("raw.m2v", "-c:v mpeg2video -an".to_owned()),
    ] {
        let film = studio.path(name);
        ffmpeg(&format!("{source} {codec}"), &film);
        let result = studio.run(&film, &json!({})).expect(name);
        assert_eq!(result["outputs"][0]["frames"], json!(50), "{name}");
        let length = result["outputs"][0]["duration_ms"].as_u64().expect("it is a number");
        assert!((1950..2150).contains(&length), "{name}: {length}");
    }
}

#[test]
fn broken_clocks_give_films_that_play() {
    let studio = Studio::new();
    let plain = studio.path("plain.ts");
    let source = format!("-f lavfi -i testsrc2=s=160x120:r=25 {SOUND} -t 2");
    ffmpeg(&format!("{source} {FAST} -bf 2 -c:a aac"), &plain);
    let plain_text = plain.display();
    let bytes = std::fs::read(&plain).expect("it was made");
    let twice = studio.path("twice.ts");
    std::fs::write(&twice, [bytes.as_slice(), bytes.as_slice()].concat()).expect("ours");
    let jump = studio.path("jump.ts");
    let late = "setts=ts='TS+if(gt(TS,90000*2.4),90000*20000,0)'";
    ffmpeg(&format!("-i {plain_text} -c copy -bsf:v {late} -bsf:a {late}"), &jump);
    // Only times of decoding, none of showing.
    let tape = studio.path("tape.avi");
    ffmpeg(&format!("{source} {FAST} -bf 2 -c:a mp3"), &tape);
    // The clock begins before 0, which an edit list would hide.
    let early = studio.path("early.mp4");
    let clock = "-output_ts_offset -0.7 -avoid_negative_ts disabled -use_editlist 0";
    ffmpeg(&format!("-i {plain_text} -c copy {clock}"), &early);
    // No times at all.
    let timeless = studio.path("timeless.mkv");
    let negative = "setts=ts=TS-400";
    ffmpeg(
        &format!("-i {plain_text} -c copy -bsf:v {negative} -avoid_negative_ts disabled"),
        &timeless,
    );
    let result = studio.run(&timeless, &json!({})).expect("it can be decoded");
    let made = result["outputs"][0]["frames"].as_u64().expect("it is a number");
    let warnings = result["warnings"].to_string();
    assert!(made == 50 || warnings.contains("frames were dropped"), "{made}: {warnings}");
    for (film, frames) in [(twice, 100), (jump, 50), (tape, 50), (early, 50)] {
        let name = film.display();
        let result = studio.run(&film, &json!({})).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let made = result["outputs"][0]["frames"].as_u64().expect("it is a number");
        assert!((frames - 2..=frames).contains(&made), "{name}: {made} frames");
        let length = result["outputs"][0]["duration_ms"].as_u64().expect("it is a number");
        assert!(length.abs_diff(made * 40) < 300, "{name}: {length} ms for {made} frames");
    }
}

#[test]
fn pictures_and_sound_alone_are_refused_by_what_they_are() {
    let studio = Studio::new();
    let still = "-f lavfi -i testsrc2=s=64x64 -frames:v 1";
    let (cover, song) = (studio.path("cover.jpg"), studio.path("song.m4a"));
    ffmpeg(still, &cover);
    let art = format!("-i {} -map 0 -map 1 -c:v copy -disposition:v attached_pic", cover.display());
    ffmpeg(&format!("-f lavfi -t 1 -i sine {art}"), &song);
    for (name, arguments, words) in [
        ("cover.jpg", "", "is a still picture"),
        ("picture.png", still, "is a still picture"),
        ("picture.webp", still, "is a still picture"),
        ("picture.bmp", still, "is a still picture"),
        ("picture.gif", still, "is a still picture"),
        ("named.mp4", "-f lavfi -i testsrc2=s=64x64 -frames:v 1 -f image2", "is a still picture"),
        ("song.m4a", "", "but a cover: it is sound"),
        ("song.mp3", "-f lavfi -t 1 -i sine", "it is sound"),
        ("song.flac", "-f lavfi -t 1 -i sine", "it is sound"),
        ("song.ogg", "-f lavfi -t 1 -i sine", "it is sound"),
        ("song.mka", "-f lavfi -t 1 -i sine", "it is sound"),
    ] {
        let path = studio.path(name);
        if !arguments.is_empty() {
            ffmpeg(arguments, &path);
        }
        let sentence = studio.refuse(&path, &json!({}));
        assert!(sentence.contains(words), "{name}: {sentence}");
    }
}
