//! Films in chunks equal films in one go, whatever they are like and however often they begin.

mod ahead;

use super::super::ladder;
use super::stage::{Stage, Studio, ffmpeg, ffprobe, scores, turn};
use crate::StopReason;
use serde_json::{Value, json};
use shiftboss_protocol::job::Cause;
use std::path::{Path, PathBuf};

const SOUND: &str = "-f lavfi -i sine=frequency=440";
const FAST: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 12";

fn in_chunks(studio: &Studio) -> Stage {
    Stage { kept: Some(studio.path("kept")), ..Stage::default() }
}

/// A film of ten seconds: five chunks of two.
fn film(studio: &Studio) -> PathBuf {
    let film = studio.path("film.mp4");
    ffmpeg(&format!("-f lavfi -i testsrc2=s=160x120:r=25 {SOUND} -t 10 {FAST} -c:a aac"), &film);
    film
}

fn two_seconds() -> Value {
    json!({"chunk_seconds": 2, "renditions": ["1080p", "144p"]})
}

/// Runs until a progress note contains `text`, and stops for this reason.
fn stopped_at(studio: &Studio, film: &Path, text: &'static str, reason: StopReason) {
    let stage = Stage { stop_at: Some((text, reason)), ..in_chunks(studio) };
    ladder::run(&studio.job(film, &two_seconds()), &stage).expect_err("it was stopped");
}

/// Runs the next attempt, which must succeed and leave only its outputs.
fn finish(studio: &Studio, film: &Path) -> Value {
    let stage = in_chunks(studio);
    let job = studio.job(film, &two_seconds());
    let result = ladder::run(&job, &stage).expect("the film is good");
    assert_eq!(studio.outputs(), ["film-120p.mp4"]);
    assert!(!studio.path("kept").exists());
    assert_eq!(result["outputs"][0]["frames"], json!(250));
    assert_eq!(result["chunks"], json!(5));
    result
}

/// When every packet of a stream is shown, and which of them are keyframes.
fn packets(path: &Path, stream: &str) -> Vec<(String, bool)> {
    let entries = format!("-select_streams {stream} -show_entries packet=pts_time,flags");
    let mut packets: Vec<(String, bool)> = ffprobe(&entries, path)
        .iter()
        .filter_map(|line| line.split_once(','))
        .map(|(time, flags)| (time.to_owned(), flags.contains('K')))
        .collect();
    packets.sort_by(|(one, _), (other, _)| {
        let seconds = |text: &str| text.parse::<f64>().expect("every packet has a time");
        seconds(one).total_cmp(&seconds(other))
    });
    packets
}

/// Encodes in one go and in chunks, and compares all packets.
fn is_the_same(studio: &Studio, film: &Path) {
    let mut outputs = Vec::new();
    for seconds in [0, 2] {
        let folder = studio.path(format!("out{seconds}"));
        let more = json!({"chunk_seconds": seconds, "output_dir": folder, "preset": "veryfast"});
        let stage = in_chunks(studio);
        let result = ladder::run(&studio.job(film, &more), &stage).expect("the film is good");
        let chunks = result["chunks"].as_u64().expect("it is a number");
        assert_eq!((chunks > 1, chunks == 0), (seconds > 0, seconds == 0), "{result}");
        assert_eq!((&result["resumed"], &result["whole_because"]), (&json!(0), &json!(null)));
        assert_eq!(result["warnings"], json!([]), "{}", film.display());
        let output = &result["outputs"][0];
        outputs.push((
            PathBuf::from(output["path"].as_str().expect("a path is text")),
            output["duration_ms"].as_u64().expect("it is a number"),
            output["audio"].clone(),
        ));
    }
    let [(whole, whole_ms, sound), (joined, joined_ms, joined_sound)] = &outputs[..] else {
        panic!("there are two");
    };
    let film = film.display();
    assert_eq!(packets(whole, "v:0"), packets(joined, "v:0"), "{film}");
    assert_eq!(packets(whole, "a:0"), packets(joined, "a:0"), "{film}");
    assert_eq!(sound, joined_sound);
    // The length of the last picture or sound is a guess of the container's writer.
    assert!(whole_ms.abs_diff(*joined_ms) <= 50, "{film}: {whole_ms} and {joined_ms}");
    let problems = ffprobe("-count_frames -show_entries stream=nb_read_frames", joined);
    let decoded: Vec<&str> = problems.iter().flat_map(|line| line.split(',')).collect();
    assert_eq!(decoded[0].parse().ok(), Some(packets(whole, "v:0").len()), "{film}");
}

#[test]
fn chunks_of_regular_films_equal_the_whole() {
    let studio = Studio::new();
    let slow = "-c:v libx264 -preset medium -pix_fmt yuv420p";
    for (name, rate, codec) in [
        ("b-frames.mp4", "30", format!("{slow} -g 14")),
        ("open.mp4", "24000/1001", format!("{slow} -x264-params open-gop=1:keyint=12:bframes=5")),
        ("rounded.mkv", "30000/1001", format!("{slow} -g 14")),
        ("fragments.mp4", "25", format!("{FAST} -movflags frag_keyframe+empty_moov")),
    ] {
        let film = studio.path(name);
        let input = format!("-f lavfi -i testsrc2=s=160x120:r={rate} {SOUND}");
        ffmpeg(&format!("{input} -t 9 {codec} -c:a aac"), &film);
        is_the_same(&studio, &film);
    }
}

#[test]
fn chunks_of_irregular_films_equal_the_whole() {
    let studio = Studio::new();
    let gaps = "select='lt(mod(n,17),5)+eq(mod(n,17),9)'";
    let late = "settb=1/90000,setpts='PTS+0.4*eq(mod(N,3),1)/60/TB'";
    for (name, filters) in [("gaps.mkv", gaps.to_owned()), ("late.mp4", format!("{gaps},{late}"))] {
        let film = studio.path(name);
        let input = format!("-f lavfi -i testsrc2=s=160x120:r=60 {SOUND} -t 9 -vf {filters}");
        ffmpeg(&format!("{input} -fps_mode vfr -enc_time_base 1/90000 {FAST} -bf 2"), &film);
        is_the_same(&studio, &film);
    }
}

#[test]
fn chunks_of_films_with_odd_clocks_equal_the_whole() {
    let studio = Studio::new();
    let source = "-f lavfi -i testsrc2=s=160x120:r=25";
    let (plain, edited) = (studio.path("plain.mp4"), studio.path("edited.mp4"));
    ffmpeg(&format!("{source} {SOUND} -t 11 {FAST} -bf 2 -c:a aac"), &plain);
    // Begins between two keyframes: an edit list hides what comes before.
    ffmpeg(&format!("-ss 1.3 -i {} -c copy", plain.display()), &edited);
    is_the_same(&studio, &edited);
    let turned = studio.path("turned.mp4");
    turn(&plain, 90, "-an", &turned);
    is_the_same(&studio, &turned);
    // The clock starts at 1.4 s, the audio comes 0.7 s later.
    let late = studio.path("late.ts");
    ffmpeg(&format!("{source} -itsoffset 0.7 {SOUND} -t 9 {FAST} -bf 2 -c:a aac"), &late);
    is_the_same(&studio, &late);
}

/// How alike two films are, picture by picture: 1 is the same.
fn alike(one: &Path, other: &Path) -> Vec<f64> {
    scores(("ssim", "All:"), one, other)
}

#[test]
fn chunks_of_interlaced_films_have_no_combs_and_equal_the_whole() {
    let studio = Studio::new();
    let (film, truth) = (studio.path("fields.mkv"), studio.path("truth.mkv"));
    // Grain that stands still: only the neighbours of a picture can tell its missing lines.
    let source = format!("-f lavfi -i testsrc2=s=320x240:r=50,noise=alls=16 {SOUND} -t 9");
    let fields = "-flags +ildct+ilme -x264-params tff=1:keyint=14";
    ffmpeg(&format!("{source} -vf tinterlace=interleave_top,setfield=tff {FAST} {fields}"), &film);
    ffmpeg(&format!("{source} -an -vf select='not(mod(n,2))' {FAST} -qp 4"), &truth);
    is_the_same(&studio, &film);
    let output = |seconds: u32| studio.path(format!("out{seconds}/fields-240p.mp4"));
    let (whole, joined) = (alike(&output(0), &truth), alike(&output(2), &truth));
    assert_eq!((whole.len(), joined.len()), (225, 225));
    // A picture at a seam that has lost its neighbour comes 0.2 below the whole; what else differs
    // is what the encoder begins anew with, 0.03.
    for (at, (whole, joined)) in whole.iter().zip(&joined).enumerate() {
        assert!(joined > &(whole - 0.08), "picture {at}: {joined} instead of {whole}");
    }
}

#[test]
fn the_next_attempt_takes_over_what_is_finished() {
    let studio = Studio::new();
    let film = film(&studio);
    stopped_at(&studio, &film, ", chunk 4 of 5", StopReason::Released);
    assert_eq!(studio.outputs(), Vec::<String>::new());
    let stage = in_chunks(&studio);
    let result = ladder::run(&studio.job(&film, &two_seconds()), &stage).expect("it is good");
    assert_eq!((&result["chunks"], &result["resumed"]), (&json!(5), &json!(3)));
    assert_eq!(result["outputs"][0]["frames"], json!(250));
    let progress = stage.progress.lock().expect("no test panics with it");
    let shares: Vec<f64> = progress.iter().filter_map(|(share, _)| *share).collect();
    assert!(shares.is_sorted() && shares[0] > 0.55, "{shares:?}");
    let encoded = |number: usize| {
        progress.iter().any(|(_, note)| note.contains(&format!(", chunk {number} of 5")))
    };
    assert_eq!([1, 2, 3, 4, 5].map(encoded), [false, false, false, true, true]);
    assert!(!progress.iter().any(|(_, note)| note.contains("encoding the audio")));
}

#[test]
fn what_was_kept_and_is_not_what_it_was_is_made_again() {
    let studio = Studio::new();
    let film = film(&studio);
    stopped_at(&studio, &film, "joining", StopReason::Released);
    let chunk = |number: usize| studio.path(format!("kept/chunk-{number:05}"));
    let file = |number: usize| chunk(number).join("120p.mp4");
    // One is damaged, one cut, one another chunk under this name, and one a link.
    let mut bytes = std::fs::read(file(0)).expect("it was finished");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file(0), bytes).expect("it is ours");
    let bytes = std::fs::read(file(1)).expect("it was finished");
    std::fs::write(file(1), &bytes[..bytes.len() - 1]).expect("it is ours");
    std::fs::remove_dir_all(chunk(2)).expect("it is ours");
    std::fs::create_dir(chunk(2)).expect("it is ours");
    for name in ["120p.mp4", "record.json"] {
        std::fs::copy(chunk(4).join(name), chunk(2).join(name)).expect("it was finished");
    }
    std::fs::rename(file(3), studio.path("elsewhere.mp4")).expect("it was finished");
    std::os::unix::fs::symlink(studio.path("elsewhere.mp4"), file(3)).expect("it is ours");
    // What an attempt was making when it died, and what nobody made.
    std::fs::create_dir(studio.path("kept/chunk-00002.part")).expect("it is ours");
    std::fs::write(studio.path("kept/chunk-00002.part/120p.mp4"), "x").expect("it is ours");
    assert_eq!(finish(&studio, &film)["resumed"], json!(1));
}

#[test]
fn a_record_that_was_cut_costs_its_chunk_and_nothing_else() {
    let studio = Studio::new();
    let film = film(&studio);
    stopped_at(&studio, &film, "joining", StopReason::Released);
    // As after a death in the middle of a write, were it not synced before it is renamed.
    let record = studio.path("kept/chunk-00001/record.json");
    let bytes = std::fs::read(&record).expect("it was finished");
    std::fs::write(&record, &bytes[..bytes.len() / 2]).expect("it is ours");
    assert_eq!(finish(&studio, &film)["resumed"], json!(4));
}

#[test]
fn chunks_of_another_film_or_another_wish_are_not_used() {
    let studio = Studio::new();
    let film = film(&studio);
    stopped_at(&studio, &film, ", chunk 4 of 5", StopReason::Timeout);
    let more = json!({"chunk_seconds": 2, "crf": 30});
    let stage =
        Stage { stop_at: Some((", chunk 2 of", StopReason::Released)), ..in_chunks(&studio) };
    ladder::run(&studio.job(&film, &more), &stage).expect_err("it was stopped");
    let chunks = || {
        let entries = std::fs::read_dir(studio.path("kept")).expect("it is kept");
        let names = entries.map(|entry| entry.expect("it can be listed").file_name());
        names.filter(|name| name.to_string_lossy().starts_with("chunk-0000")).count()
    };
    // The second one was being made.
    assert!(chunks() <= 2, "{}", chunks());
    stopped_at(&studio, &film, ", chunk 4 of 5", StopReason::Released);
    let opened = std::fs::File::options().append(true).open(&film).expect("it is ours");
    opened.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("it is ours");
    assert_eq!(finish(&studio, &film)["resumed"], json!(0));
}

#[test]
fn a_film_that_changes_between_chunks_is_not_joined() {
    let studio = Studio::new();
    let film = film(&studio);
    let other = studio.path("other.mp4");
    std::fs::copy(&film, &other).expect("the folder can be written");
    let stage =
        Stage { rename_at: Some((", chunk 3 of 5", other, film.clone())), ..in_chunks(&studio) };
    let failure = ladder::run(&studio.job(&film, &two_seconds()), &stage).expect_err("it changed");
    assert!(failure.message.contains("was changed while it was encoded"), "{}", failure.message);
    assert!(!failure.permanent);
    assert_eq!(finish(&studio, &film)["resumed"], json!(0));
}

#[test]
fn a_job_that_ends_leaves_nothing_and_one_that_goes_on_keeps_its_chunks() {
    let studio = Studio::new();
    let film = film(&studio);
    stopped_at(&studio, &film, ", chunk 3 of 5", StopReason::Stalled);
    // The one after it may not have been checked.
    assert!(studio.path("kept/chunk-00000").is_dir());
    stopped_at(&studio, &film, ", chunk 3 of 5", StopReason::Cancelled);
    assert!(!studio.path("kept").exists());
    stopped_at(&studio, &film, ", chunk 3 of 5", StopReason::Released);
    std::fs::write(&film, "no film").expect("it is ours");
    let failure = ladder::run(&studio.job(&film, &two_seconds()), &in_chunks(&studio));
    assert!(failure.expect_err("it is no film").permanent);
    assert!(!studio.path("kept").exists());
    assert_eq!(studio.outputs(), Vec::<String>::new());
}

#[test]
fn films_that_cannot_be_cut_exactly_are_encoded_in_one_go_and_say_why() {
    let studio = Studio::new();
    let source = format!("-f lavfi -i testsrc2=s=160x120:r=25 {SOUND} -t 10");
    let (hidden, plain, begun) =
        (studio.path("hidden.webm"), studio.path("plain.ts"), studio.path("begun.ts"));
    ffmpeg(&format!("{source} -c:v libvpx -deadline realtime -cpu-used 8 -g 25"), &hidden);
    // Begins with pictures that refer to what was cut off: known only once it is decoded.
    ffmpeg(&format!("{source} -t 13 -c:v mpeg2video -bf 2 -g 15 -c:a mp2"), &plain);
    ffmpeg(&format!("-ss 1.05 -i {} -c copy", plain.display()), &begun);
    for (film, words) in [(hidden, "its codec vp8 hides"), (begun, "chunk 1 is not exact")] {
        let stage = in_chunks(&studio);
        let more = json!({"chunk_seconds": 2});
        let result = ladder::run(&studio.job(&film, &more), &stage).expect("the film is good");
        assert_eq!(result["chunks"], json!(0));
        let reason = result["whole_because"].as_str().expect("it says why");
        assert!(reason.contains(words), "{reason}");
        assert!(!studio.path("kept").exists());
        let progress = stage.progress.lock().expect("no test panics with it");
        let shares: Vec<f64> = progress.iter().filter_map(|(share, _)| *share).collect();
        assert!(shares.is_sorted(), "the work begins anew, but not its progress: {shares:?}");
        let logged = stage.logged.lock().expect("no test panics with it");
        assert!(logged.iter().any(|line| line.contains("in one go")), "{logged:?}");
    }
}

#[test]
fn that_a_film_cannot_be_cut_is_found_out_once() {
    let studio = Studio::new();
    let film = film(&studio);
    stopped_at(&studio, &film, ", chunk 2 of 5", StopReason::Released);
    std::fs::write(studio.path("kept/whole"), "it was tried").expect("it is ours");
    let stage = in_chunks(&studio);
    let result = ladder::run(&studio.job(&film, &two_seconds()), &stage).expect("it is good");
    assert_eq!((&result["chunks"], &result["whole_because"]), (&json!(0), &json!("it was tried")));
    let progress = stage.progress.lock().expect("no test panics with it");
    assert!(!progress.iter().any(|(_, note)| note.contains("chunk")), "{progress:?}");
}

#[test]
fn short_films_have_no_chunks() {
    let studio = Studio::new();
    let film = film(&studio);
    // Without a folder for chunks: the stage would panic.
    let result = studio.run(&film, &json!({"chunk_seconds": 3})).expect("the film is good");
    assert_eq!((&result["chunks"], &result["whole_because"]), (&json!(0), &json!(null)));
}

#[test]
fn a_chunk_folder_in_use_is_left_alone() {
    let studio = Studio::new();
    let film = film(&studio);
    std::fs::create_dir(studio.path("kept")).expect("it is ours");
    let folder = std::fs::File::open(studio.path("kept")).expect("it is ours");
    let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&folder, lock).expect("nobody else has it");
    let stage = in_chunks(&studio);
    let failure = ladder::run(&studio.job(&film, &two_seconds()), &stage).expect_err("in use");
    assert_eq!((failure.cause, failure.permanent), (Cause::Error, false));
    assert!(failure.message.contains("in use by another attempt"), "{}", failure.message);
}
