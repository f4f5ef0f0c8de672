//! Outputs are as good as those of bare FFmpeg with the same settings, in one go and in chunks.

use super::super::ladder;
use super::stage::{Stage, Studio, ffmpeg, scores};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What an encoder makes of pictures: means over all of them, and bytes.
#[derive(Debug)]
struct Quality {
    ssim: f64,
    /// Decibels.
    psnr: f64,
    bytes: f64,
}

impl Quality {
    fn of(made: &Path, film: &Path) -> Self {
        let mean = |filter: &str, key: &str| {
            let scores = scores((filter, key), made, film);
            // A picture more or less would shift all others.
            assert_eq!(scores.len(), 225, "{}", made.display());
            scores.iter().sum::<f64>() / 225.0
        };
        let bytes = made.metadata().expect("it was made").len();
        let bytes = f64::from(u32::try_from(bytes).expect("tests are small"));
        Self { ssim: mean("ssim", "All:"), psnr: mean("psnr", "psnr_avg:"), bytes }
    }
}

#[test]
fn outputs_are_as_good_as_those_of_bare_ffmpeg() {
    let studio = Studio::new();
    let (film, bare) = (studio.path("film.mp4"), studio.path("bare.mp4"));
    // Grain moves, and one half of the film is easier than the other.
    let source = "-f lavfi -i testsrc2=s=320x240:r=25,noise=alls=12:allf=t:enable='gt(t,4.5)'";
    let source = format!("{source} -t 9 -pix_fmt yuv420p -c:v libx264");
    ffmpeg(&format!("{source} -preset ultrafast -qp 8 -g 12"), &film);
    let input = format!("-i {} -an", film.display());
    // By hand, and not what the product says of itself.
    let settings = "-c:v libx264 -preset veryfast -crf 23 -maxrate 4000k -bufsize 8000k -pix_fmt \
                    yuv420p -sc_threshold 0 -force_key_frames expr:gte(t,n_forced*2) -x264-params \
                    open-gop=0";
    ffmpeg(&format!("{input} {settings}"), &bare);
    let bare = Quality::of(&bare, &film);
    let made = |seconds: u32| -> Quality {
        let folder = studio.path(format!("out{seconds}"));
        let rendition = json!({"name": "240p", "maxrate": "4M", "bufsize": "8M"});
        let more = json!({"chunk_seconds": seconds, "output_dir": folder, "preset": "veryfast",
                          "crf": 23, "renditions": [rendition]});
        let stage = Stage { kept: Some(studio.path("kept")), ..Stage::default() };
        let result = ladder::run(&studio.job(&film, &more), &stage).expect("the film is good");
        assert_eq!(result["chunks"].as_u64().map(|count| count > 1), Some(seconds > 0));
        let path = result["outputs"][0]["path"].as_str().expect("a path is text");
        Quality::of(&PathBuf::from(path), &film)
    };
    let (whole, chunked) = (made(0), made(2));
    let differs_by_less = |made: &Quality, [ssim, psnr, bytes]: [f64; 3]| {
        let shown = format!("{made:?} instead of {bare:?}");
        assert!((made.ssim - bare.ssim).abs() < ssim, "SSIM: {shown}");
        assert!((made.psnr - bare.psnr).abs() < psnr, "PSNR: {shown}");
        assert!((made.bytes / bare.bytes - 1.0).abs() < bytes, "bytes: {shown}");
    };
    // The same encoder with the same settings, whose threads see peaks in another order.
    differs_by_less(&whole, [0.000_1, 0.005, 0.001]);
    // It begins anew every two seconds, and knows less of the film. One step of CRF would be 0.8
    // decibels.
    differs_by_less(&chunked, [0.002, 0.2, 0.03]);
}
