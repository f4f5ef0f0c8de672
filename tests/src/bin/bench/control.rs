//! `status` on a fresh connection of the control socket while two encodes keep all cores busy,
//! beside a bare server in a process of its own that only echoes what it hears.

use crate::figures::{Spread, latencies, latencies_head, micros, say};
use crate::film::{self, Film};
use crate::{encode, process};
use interprocess::local_socket::traits::Stream as _;
use interprocess::local_socket::{GenericFilePath, Stream, ToFsName};
use shiftboss_protocol::control::{Greeting, Request, Response};
use shiftboss_protocol::frame;
use shiftboss_tests::{Stage, spawn_quiet, wait_until};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

/// First argument of the process that echoes.
pub(crate) const ECHO: &str = "--echo";
const ROUNDS: usize = 2500;

/// Takes minutes to encode at the preset below, so it lasts.
const FILM: Film = Film {
    name: "film.mp4",
    size: "1280x720",
    seconds: "20",
    codec: &["-c:v", "libx264", "-preset", "ultrafast"],
};

pub(crate) fn control() {
    if !film::is_possible() {
        return;
    }
    let stage = Stage::new("[types.encode]\nworkers = { max = 2 }");
    let film = FILM.make(&stage);
    let socket = stage.path("echo.sock");
    let own = std::env::current_exe().expect("this program has a file");
    let _echo = Echo(spawn_quiet(Command::new(own).arg(ECHO).arg(&socket)));
    wait_until("the bare server listens", || UnixStream::connect(&socket).is_ok());
    latencies_head();
    measure(&stage, &socket, ("idle", 500));
    let jobs = ["one", "two"].map(|folder| {
        let renditions = ["720p", "480p"];
        encode::submit(&stage, &film, (folder, &renditions, "veryslow"))
    });
    for job in jobs {
        wait_until("ffmpeg encodes", || encode::ffmpeg_of(&stage, job).is_some());
    }
    std::thread::sleep(Duration::from_secs(2));
    let before = process::ticks();
    measure(&stage, &socket, ("two encodes on", ROUNDS));
    let after = process::ticks();
    let idle = (after.0 - before.0) as f64 / (after.1 - before.1) as f64 * 100.0;
    for job in jobs {
        let row = stage.job(job).expect("it is there");
        assert_eq!(row.state, "running", "an encode ended while it was measured: {row:?}");
    }
    say(&format!("\nall cores together were idle for {idle:.1} % of that time"));
}

/// The bare server's process; ends with this.
struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of each in turn, so that both meet the same load.
fn measure(stage: &Stage, socket: &Path, (load, rounds): (&str, usize)) {
    let path = stage.path("run/main/control.sock");
    let (mut product, mut floor) = (Vec::new(), Vec::new());
    let bytes = u32::try_from(status(&path).1).expect("an answer is small");
    for _ in 0..rounds {
        product.push(micros(status(&path).0));
        std::thread::sleep(Duration::from_millis(2));
        floor.push(micros(exchange(socket, bytes)));
        std::thread::sleep(Duration::from_millis(2));
    }
    let target = if load == "idle" { "" } else { " (target: p99 5000)" };
    latencies(&format!("{load}: connect, greet, `status`, answer{target}"), &Spread::of(product));
    let what = format!("{load}: floor, a bare server, connect, two exchanges of as many bytes");
    latencies(&what, &Spread::of(floor));
}

/// Asks once; the time and the size of the answer.
fn status(path: &Path) -> (Duration, usize) {
    let start = Instant::now();
    let name = path.to_fs_name::<GenericFilePath>().expect("a path");
    let stream = Stream::connect(name).expect("the supervisor listens");
    let greeting = Greeting { protocol: 1, program: "bench".to_owned() };
    frame::write(&mut &stream, &greeting).expect("written");
    let _: Option<Greeting> = frame::read(&mut &stream).expect("answered");
    frame::write(&mut &stream, &Request::Status).expect("written");
    let answer: Option<Response> = frame::read(&mut &stream).expect("answered");
    let took = start.elapsed();
    let Some(Response::Json(text)) = answer else { panic!("no status: {answer:?}") };
    (took, text.len())
}

/// Two exchanges with the bare server: a greeting for a greeting, a word for `bytes`.
fn exchange(socket: &Path, bytes: u32) -> Duration {
    let start = Instant::now();
    let mut stream = UnixStream::connect(socket).expect("the bare server listens");
    let mut answer = vec![0; bytes as usize];
    for count in [32, bytes] {
        stream.write_all(&count.to_le_bytes()).expect("written");
        stream.read_exact(&mut answer[..count as usize]).expect("answered");
    }
    start.elapsed()
}

/// `main` of the bare server: answers four bytes with as many bytes as they say.
pub(crate) fn echo(path: &str) -> ExitCode {
    let listener = UnixListener::bind(path).expect("the folder is ours");
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection can be taken");
        let mut count = [0; 4];
        while stream.read_exact(&mut count).is_ok() {
            let answer = vec![0; u32::from_le_bytes(count) as usize];
            if stream.write_all(&answer).is_err() {
                break;
            }
        }
    }
    ExitCode::SUCCESS
}
