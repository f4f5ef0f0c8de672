//! One decode for three renditions, beside three separate encodes by bare ffmpeg with what the
//! product tells it for each rendition alone.

use crate::encode::{Argv, Cost, run, run_shown};
use crate::figures::{Spread, head, row, say};
use crate::film::{self, Film};
use shiftboss_tests::Stage;
use std::path::Path;

const ROUNDS: usize = 3;

/// Dear to decode: four times the pixels of the largest rendition.
const FILM: Film = Film {
    name: "film.mp4",
    size: "3840x2160",
    seconds: "4",
    codec: &["-c:v", "libx264", "-preset", "superfast", "-crf", "30"],
};

pub(crate) fn ladder() {
    if !film::is_possible() {
        return;
    }
    let stage = decode_heavy(ROUNDS);
    if let Some(film) = film::brought() {
        let name = film.file_name().unwrap_or_default().to_string_lossy().into_owned();
        say(&format!("\nFilm: {name}; renditions 720p, 480p, 360p.\n"));
        compare(&stage, &film, ["720p", "480p", "360p"], ROUNDS);
    }
}

/// The comparison on a film that is dear to decode.
pub(crate) fn decode_heavy(rounds: usize) -> Stage {
    let stage = Stage::new("");
    let film = FILM.make(&stage);
    say(&format!("Film: {}; renditions 1080p, 720p, 480p.\n", FILM.describe()));
    compare(&stage, &film, ["1080p", "720p", "480p"], rounds);
    stage
}

fn compare(stage: &Stage, film: &Path, renditions: [&str; 3], rounds: usize) {
    // One job for each shows the command line that the product has for it alone.
    let alone: Vec<Argv> = renditions
        .iter()
        .map(|rendition| {
            let (_, argv) = run_shown(stage, film, ("alone", &[*rendition], "veryfast"));
            argv.elsewhere(&stage.path("bare"))
        })
        .collect();
    let (mut product, mut whole) = (Vec::new(), Vec::new());
    let (mut in_turn, mut at_once) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let told = run(stage, film, ("ladder", &renditions, "veryfast"));
        product.push(told.program);
        whole.push(Cost { wall: told.whole, cpu: told.program.cpu });
        let costs = alone.iter().map(Argv::run);
        in_turn.push(costs.fold(Cost { wall: 0.0, cpu: 0.0 }, |sum, one| Cost {
            wall: sum.wall + one.wall,
            cpu: sum.cpu + one.cpu,
        }));
        at_once.push(Argv::run_at_once(&alone));
    }
    head(&["seconds, min / median / max", "wall", "times the ladder", "CPU", "times"]);
    let ladder = (wall(&product).median(), cpu(&product).median());
    let rows = [
        ("the ladder, ffmpeg alone", &product),
        ("the ladder, INSERT to committed outcome (probed, checked, synced)", &whole),
        ("three bare encodes one after another", &in_turn),
        ("three bare encodes at the same time", &at_once),
    ];
    for (what, costs) in rows {
        let (wall, cpu) = (wall(costs), cpu(costs));
        let times = [wall.median() / ladder.0, cpu.median() / ladder.1];
        let [wall_times, cpu_times] = times.map(|times| format!("{times:.2}"));
        row(&[what.to_owned(), wall.range(2), wall_times, cpu.range(2), cpu_times]);
    }
}

fn wall(costs: &[Cost]) -> Spread {
    Spread::of(costs.iter().map(|cost| cost.wall))
}

fn cpu(costs: &[Cost]) -> Spread {
    Spread::of(costs.iter().map(|cost| cost.cpu))
}
