//! A film that attacks: playlists, lists and references that name other files or the network,
//! headers that lie. They end as failed jobs, with the worker alive, nothing read and nothing sent.

use serde_json::{Value, json};
use shiftboss_tests::{Stage, has_failpoints, has_program, skip, wait_for};
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Content of a file that no film may name. Also the first line of a text that a demuxer of
/// texts would make pictures of.
const SECRET: &str = "f3a1c7-a-secret-that-no-output-holds";

const CONFIG: &str = "[types.encode]\nworkers = { min = 1, max = 1 }\nmax_attempts = 1";

/// A stage with an `encode` worker, a bait and a listener.
struct Scene {
    stage: Stage,
    listener: TcpListener,
    worker: i64,
}

impl Scene {
    fn new(test: &str) -> Option<Self> {
        Self::lacking(test, "")
    }

    /// A scene whose cages lack these walls.
    fn lacking(test: &str, walls: &str) -> Option<Self> {
        if !has_program("ffmpeg") {
            skip(test, "there is no ffmpeg");
            return None;
        }
        let mut stage = Stage::dark(CONFIG);
        match walls {
            "" => stage.start(),
            walls => stage.start_with(&[("SHIFTBOSS_TEST_LACK", walls)]),
        }
        for folder in ["in", "bait"] {
            fs::create_dir(stage.path(folder)).expect("the folder is ours");
        }
        fs::write(stage.path("bait/secret.txt"), format!("{SECRET}\n").repeat(40)).expect("ours");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("it can be set");
        let worker = worker_of(&stage);
        let scene = Self { stage, listener, worker };
        scene.make("bait/film.mp4", "-c:v libx264");
        Some(scene)
    }

    /// A short film of another size than any rendition.
    fn make(&self, name: &str, codec: &str) -> PathBuf {
        let path = self.stage.path(name);
        let status = Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=192x160:r=10", "-t", "1"])
            .args(codec.split(' '))
            .args(["-pix_fmt", if name.ends_with("gif") { "rgb8" } else { "yuv420p" }])
            .arg(&path)
            .stdin(Stdio::null())
            .status();
        assert!(status.expect("ffmpeg can be started").success(), "{name}");
        path
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.listener.local_addr().expect("it listens"))
    }

    fn bait(&self, name: &str) -> String {
        self.stage.path("bait").join(name).display().to_string()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.stage.path("in").join(name);
        fs::write(&path, bytes).expect("the folder is ours");
        path
    }

    fn submit(&self, input: &str) -> i64 {
        let out = self.stage.path("out");
        fs::create_dir_all(&out).expect("the folder is ours");
        let payload = json!({
            "op": "ladder", "input": input, "output_dir": out, "renditions": ["144p"],
        });
        self.stage.insert("encode", &payload.to_string())
    }

    /// The worker is the one that it was, nobody knocked, and nothing holds the secret.
    fn assert_unharmed(&self, what: &str) {
        assert_eq!(worker_of(&self.stage), self.worker, "{what}: another worker");
        let arrived = self.listener.accept();
        let nobody = arrived.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(nobody, "{what}: somebody connected: {arrived:?}");
        for folder in ["out", "jobs.db.work"] {
            let leak = holds(&self.stage.path(folder), SECRET.as_bytes());
            assert_eq!(leak, None, "{what}: the secret was read");
        }
    }
}

fn worker_of(stage: &Stage) -> i64 {
    wait_for("the worker is ready", || {
        let workers = stage.json(&["workers", "--json"]);
        let workers = workers.as_array()?;
        let is_ready = |worker: &&Value| worker["type"] == "encode" && worker["state"] == "idle";
        workers.iter().find(is_ready).and_then(|worker| worker["pid"].as_i64())
    })
}

/// The first file below a folder that holds these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = holds(&path, bytes) {
                return Some(found);
            }
        } else if fs::read(&path).is_ok_and(|text| text.windows(bytes.len()).any(|it| it == bytes))
        {
            return Some(path);
        }
    }
    None
}

/// Inputs that lead elsewhere, by name.
fn references(scene: &Scene) -> Vec<(&'static str, String)> {
    let (film, secret) = (scene.bait("film.mp4"), scene.bait("secret.txt"));
    let url = scene.url("film.ts");
    let playlist = |target: &str| format!("#EXTM3U\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n");
    let key = scene.url("key");
    let mpd = |base: &str| {
        format!(
            "<?xml version=\"1.0\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\" \
             mediaPresentationDuration=\"PT1S\"><Period><AdaptationSet><Representation id=\"1\" \
             mimeType=\"video/mp4\" bandwidth=\"1\"><BaseURL>{base}</BaseURL></Representation>\
             </AdaptationSet></Period></MPD>\n"
        )
    };
    vec![
        ("file.m3u8", playlist(&film)),
        ("named-as-film.mp4", playlist(&film)),
        ("secret.m3u8", playlist(&secret)),
        ("uri.m3u8", playlist(&format!("file://{film}"))),
        ("network.m3u8", playlist(&url)),
        ("named-as-stream.ts", playlist(&url)),
        ("crypto.m3u8", playlist(&format!("crypto:{film}"))),
        ("data.m3u8", playlist("data:video/mp4;base64,AAAAIGZ0eXA=")),
        ("joined.m3u8", playlist(&format!("concat:{secret}|{film}"))),
        (
            "key.m3u8",
            format!("#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"{key}\"\n#EXTINF:1,\n{film}\n"),
        ),
        ("map.m3u8", format!("#EXTM3U\n#EXT-X-MAP:URI=\"{url}\"\n#EXTINF:1,\n{film}\n")),
        ("master.m3u8", format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}\n")),
        ("list.txt", format!("ffconcat version 1.0\nfile '{film}'\n")),
        ("list.ffconcat", format!("ffconcat version 1.0\nfile '{secret}'\n")),
        ("network.ffconcat", format!("ffconcat version 1.0\nfile '{url}'\n")),
        ("list.mp4", format!("ffconcat version 1.0\nfile '{film}'\n")),
        ("film.mpd", mpd(&url)),
        ("local.mpd", mpd(&format!("file://{film}"))),
        (
            "film.sdp",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n\
             m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
                .to_owned(),
        ),
        ("film.avs", format!("FFmpegSource2(\"{film}\")\n")),
        (
            "film.svg",
            format!("<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"{film}\"/></svg>"),
        ),
        ("film.idx", format!("# VobSub index file, v7\nid: en, index: 0\nlangidx: 0\n{secret}\n")),
        ("film.srt", "1\n00:00:00,000 --> 00:00:01,000\ntext\n".to_owned()),
        ("film.asx", format!("<asx version=\"3.0\"><entry><ref href=\"{url}\"/></entry></asx>")),
        ("film.ram", format!("{url}\n")),
        ("filter.txt", format!("movie={film}\n")),
    ]
}

/// Each of them ends as a failed job that names it.
fn assert_no_films(scene: &Scene) {
    // What the bait itself would give: the references below name a film that could be encoded.
    let good = scene.submit(&scene.bait("film.mp4"));
    scene.stage.wait_for_state(good, "succeeded");
    fs::remove_dir_all(scene.stage.path("out")).expect("the outputs are there");
    let jobs: Vec<_> = references(scene)
        .into_iter()
        .map(|(name, text)| {
            let input = scene.write(name, text);
            (name, scene.submit(&input.display().to_string()))
        })
        .collect();
    for (name, job) in jobs {
        let row = scene.stage.wait_for_state(job, "failed");
        assert!(row.last_error.contains(name), "{name}: {}", row.last_error);
        assert!(!row.last_error.contains(SECRET), "{name}: {}", row.last_error);
        assert_eq!(row.crash_count, 0, "{name}");
    }
    let made: Vec<_> = fs::read_dir(scene.stage.path("out")).expect("it is there").collect();
    assert!(made.is_empty(), "{made:?}");
    scene.assert_unharmed("references");
}

#[test]
fn what_leads_to_other_files_or_the_network_is_no_film() {
    let test = "what_leads_to_other_files_or_the_network_is_no_film";
    let Some(scene) = Scene::new(test) else { return };
    assert_no_films(&scene);
}

#[test]
fn what_leads_elsewhere_is_no_film_where_no_cage_can_be_had() {
    let test = "what_leads_elsewhere_is_no_film_where_no_cage_can_be_had";
    if !has_failpoints(test) {
        return;
    }
    let walls = "user-ns,mount-ns,pid-ns,ipc-ns,uts-ns,cgroup-ns,net-ns,landlock,seccomp";
    let Some(scene) = Scene::lacking(test, walls) else { return };
    assert_no_films(&scene);
}

#[test]
fn an_input_is_a_file_and_never_an_address() {
    let Some(scene) = Scene::new("an_input_is_a_file_and_never_an_address") else { return };
    let (film, url) = (scene.bait("film.mp4"), scene.url("film.mp4"));
    for input in [
        url.clone(),
        format!("concat:{film}|{film}"),
        format!("crypto:{film}"),
        format!("subfile,,start,0,end,0,,:{film}"),
        format!("cache:{film}"),
        format!("async:{url}"),
        "pipe:0".to_owned(),
        "data:video/mp4;base64,AAAA".to_owned(),
        "tcp://127.0.0.1:1".to_owned(),
        "-i".to_owned(),
        "lavfi".to_owned(),
    ] {
        let row = scene.stage.wait_for_state(scene.submit(&input), "failed");
        assert!(row.last_error.contains("payload field input"), "{input}: {}", row.last_error);
    }
    // Names that FFmpeg would take for patterns or addresses are names.
    for name in ["picture%03d.png", "concat:film.png", "http:film.png", "-y.png"] {
        let made = scene.make("bait/picture.png", "-frames:v 1");
        let path = scene.stage.path("in").join(name);
        fs::copy(made, &path).expect("the folder is ours");
        let job = scene.submit(&path.display().to_string());
        let row = scene.stage.wait_for_state(job, "failed");
        assert!(row.last_error.contains("is a still picture"), "{name}: {}", row.last_error);
    }
    scene.assert_unharmed("addresses");
}

#[test]
fn a_track_that_lies_in_another_file_is_not_opened() {
    let Some(scene) = Scene::new("a_track_that_lies_in_another_file_is_not_opened") else { return };
    let plain = fs::read(scene.make("in/plain.mov", "-c:v libx264")).expect("it was made");
    let film = scene.write("elsewhere.mov", with_alias(&plain, &scene.bait("film.mp4")));
    let job = scene.submit(&film.display().to_string());
    let row = scene.stage.wait_for_state(job, "failed");
    assert!(row.last_error.contains("elsewhere.mov"), "{}", row.last_error);
    scene.assert_unharmed("an alias");
}

#[test]
fn damaged_headers_end_their_job_and_not_their_worker() {
    let Some(scene) = Scene::new("damaged_headers_end_their_job_and_not_their_worker") else {
        return;
    };
    let mut jobs = Vec::new();
    for (container, codec) in [
        ("mp4", "-c:v libx264"),
        ("mkv", "-c:v libx264"),
        ("avi", "-c:v mpeg4"),
        ("ts", "-c:v libx264"),
        ("gif", "-c:v gif"),
    ] {
        let whole = scene.make(&format!("in/whole.{container}"), codec);
        let whole = fs::read(whole).expect("it was made");
        for seed in 1..=2_u64 {
            let film = scene.write(&format!("fuzz-{seed}.{container}"), fuzzed(&whole, seed));
            jobs.push((film.clone(), scene.submit(&film.display().to_string())));
        }
        for percent in [5, 40] {
            let part = &whole[..whole.len() * percent / 100];
            let film = scene.write(&format!("cut-{percent}.{container}"), part);
            jobs.push((film.clone(), scene.submit(&film.display().to_string())));
        }
    }
    let mut failed = 0;
    for (film, job) in &jobs {
        let row = wait_for(&format!("{} ends", film.display()), || {
            let row = scene.stage.job(*job)?;
            matches!(row.state.as_str(), "failed" | "succeeded").then_some(row)
        });
        assert_eq!(row.crash_count, 0, "{}: {}", film.display(), row.last_error);
        if row.state == "failed" {
            failed += 1;
            assert!(!row.last_error.is_empty(), "{}", film.display());
        }
    }
    // Some damage is borne; most is not.
    assert!(failed >= jobs.len() / 3, "{failed} of {} failed", jobs.len());
    scene.assert_unharmed("damaged headers");
}

/// Changes one byte in sixteen of the first kilobyte, and some behind it: always the same ones.
fn fuzzed(film: &[u8], seed: u64) -> Vec<u8> {
    let mut film = film.to_vec();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let head = film.len().min(1024);
    for _ in 0..head / 16 {
        let at = usize::try_from(next() % head as u64).expect("below a kilobyte");
        film[at] = next().to_le_bytes()[0];
    }
    for _ in 0..16 {
        let at = usize::try_from(next() % film.len() as u64).expect("inside the film");
        film[at] = next().to_le_bytes()[0];
    }
    film
}

/// The film with its data reference replaced by an alias of another file, as old QuickTime has
/// it. The index must lie behind the data, whose places do not change then.
fn with_alias(film: &[u8], target: &str) -> Vec<u8> {
    let mut alias = vec![0; 10];
    alias.extend([0; 28]);
    alias.extend([0; 12]);
    let name = b"film.mp4";
    alias.push(u8::try_from(name.len()).expect("a short name"));
    alias.extend(name);
    alias.resize(10 + 28 + 12 + 64, 0);
    alias.extend([0; 16]);
    // One folder up, one folder down.
    alias.extend([0, 1, 0, 1]);
    alias.extend([0; 16]);
    for kind in [2_u16, 18] {
        alias.extend(kind.to_be_bytes());
        alias.extend(u16::try_from(target.len()).expect("a short path").to_be_bytes());
        alias.extend(target.as_bytes());
        alias.resize(alias.len() + target.len() % 2, 0);
    }
    alias.extend([0xff, 0xff, 0, 0]);
    let entry = boxed(b"alis", &[&[0; 4][..], &alias].concat());
    let dref = boxed(b"dref", &[&[0, 0, 0, 0, 0, 0, 0, 1][..], &entry].concat());
    replaced(film, &[b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"], &dref)
}

fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(8 + content.len()).expect("a small box");
    [&size.to_be_bytes()[..], name, content].concat()
}

/// The boxes with the one at a path replaced, and the sizes of those around it.
fn replaced(boxes: &[u8], path: &[&[u8; 4]], new: &[u8]) -> Vec<u8> {
    let mut result = Vec::new();
    let mut rest = boxes;
    while rest.len() >= 8 {
        let size = u32::from_be_bytes(rest[..4].try_into().expect("four bytes"));
        let size = usize::try_from(size).expect("a size fits").clamp(8, rest.len());
        let (one, after) = rest.split_at(size);
        let is_wanted = path.first().is_some_and(|name| one[4..8] == name[..]);
        match (is_wanted, path.len()) {
            (true, 1) => result.extend(new),
            (true, _) => result.extend(boxed(path[0], &replaced(&one[8..], &path[1..], new))),
            (false, _) => result.extend(one),
        }
        rest = after;
    }
    result
}
