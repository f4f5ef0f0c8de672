//! What is done to every picture of a film before it is scaled: fields woven apart, HDR brought
//! down to SDR. Pure: facts in, filters out.

use super::facts::{Facts, Video};
use serde::Serialize;
use shiftboss_protocol::job::{Cause, Failure};

/// What the pictures need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Treatment {
    /// Pictures that are flagged as interlaced are made whole.
    pub(crate) deinterlace: bool,
    /// The film is HDR and is shown on screens that are not.
    pub(crate) tone_map: Option<Hdr>,
}

/// The colours of an HDR film, by FFmpeg's names, as zscale is told: what a film leaves out is
/// what nearly all HDR films have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Hdr {
    transfer: Transfer,
    matrix: String,
    primaries: String,
    range: String,
}

/// How HDR light is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Transfer {
    /// SMPTE ST 2084, of HDR10 and Dolby Vision.
    Pq,
    /// ARIB STD-B67, of television.
    Hlg,
}

/// What both kinds of HDR become: the colours of BT.709, in 8 bit. The middle step needs linear
/// light, without which the result would still be tagged as HDR, or be linear.
const TO_SDR: &str = "t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,\
    zscale=t=bt709:m=bt709:r=tv,format=yuv420p,";

/// Codecs whose films are often interlaced and in whose containers nothing says so.
const MAYBE_INTERLACED: &[&str] = &["dvvideo", "mpeg2video", "prores", "dnxhd", "vc1"];

/// Decides what the pictures need.
///
/// # Errors
/// A permanent [`Failure`] for colours that FFmpeg cannot turn into a picture.
pub(crate) fn treatment(facts: &Facts) -> Result<Treatment, Failure> {
    let video = &facts.video;
    if video.dolby_only {
        let message = "the film has Dolby Vision's own colours (profile 5) and no base layer that \
                       FFmpeg can show: submit a version with an HDR10, HLG or SDR base layer";
        return Err(Failure::permanent(Cause::Error, message.to_owned()));
    }
    let is_unknown = video.field_order.is_none();
    let maybe = is_unknown && MAYBE_INTERLACED.contains(&video.codec.as_str());
    Ok(Treatment { deinterlace: video.interlaced || maybe, tone_map: hdr(video) })
}

fn hdr(video: &Video) -> Option<Hdr> {
    let transfer = match video.transfer.as_deref()? {
        "smpte2084" => Transfer::Pq,
        "arib-std-b67" => Transfer::Hlg,
        _ => return None,
    };
    let known = |name: &Option<String>, names: &[&str], other: &str| {
        let name = name.as_deref().filter(|name| names.contains(name)).unwrap_or(other);
        name.to_owned()
    };
    Some(Hdr {
        transfer,
        matrix: known(&video.matrix, &["bt2020nc", "bt2020c", "bt709"], "bt2020nc"),
        primaries: known(&video.primaries, &["bt2020", "bt709"], "bt2020"),
        range: known(&video.range, &["tv", "pc"], "tv"),
    })
}

impl Treatment {
    /// The filter that looks at neighbouring pictures; none may be missing before it. Ends with a
    /// comma.
    pub(crate) fn among_neighbours(&self) -> &'static str {
        // Every picture stays one: the rate is that of the film, not of its fields.
        if self.deinterlace { "bwdif=mode=send_frame:deint=interlaced," } else { "" }
    }

    /// The filters that look at one picture at a time. Ends with a comma.
    pub(crate) fn alone(&self) -> String {
        let Some(hdr) = &self.tone_map else { return String::new() };
        let Hdr { matrix, primaries, range, .. } = hdr;
        let transfer = hdr.transfer.ffmpeg();
        format!("zscale=tin={transfer}:min={matrix}:pin={primaries}:rin={range}:{TO_SDR}")
    }

    /// What people are told.
    pub(crate) fn notes(&self, video: &Video) -> Vec<String> {
        let mut notes = Vec::new();
        if video.rotation != 0 {
            notes.push(format!("turned by {} degrees, as its container says", video.rotation));
        }
        match video.field_order.as_deref() {
            Some(order) if self.deinterlace => {
                notes.push(format!("deinterlaced (field order {order})"));
            }
            None if self.deinterlace => {
                notes.push("frames that are flagged as interlaced were deinterlaced".to_owned());
            }
            Some(_) | None => {}
        }
        if (video.pixel_aspect - 1.0).abs() > 1e-6 {
            let aspect = video.pixel_aspect;
            notes.push(format!("its pixels, {aspect:.4} times as wide as high, were made square"));
        }
        if let Some(hdr) = &self.tone_map {
            let (name, transfer) = (hdr.transfer.name(), hdr.transfer.ffmpeg());
            notes.push(format!("tone-mapped from {name} ({transfer}) to SDR (bt709)"));
        }
        if video.irregular {
            notes.push("its frames come at irregular times, which were kept".to_owned());
        }
        if let Some(format) = video.pixel_format.as_deref().filter(|format| *format != "yuv420p") {
            notes.push(format!("its pixels ({format}) were converted to yuv420p"));
        }
        notes
    }
}

impl Transfer {
    const fn ffmpeg(self) -> &'static str {
        match self {
            Self::Pq => "smpte2084",
            Self::Hlg => "arib-std-b67",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Pq => "PQ",
            Self::Hlg => "HLG",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn treated(change: impl Fn(&mut Video)) -> (Treatment, Vec<String>) {
        let mut facts = Facts::for_test();
        change(&mut facts.video);
        let treatment = treatment(&facts).expect("it can be shown");
        let notes = treatment.notes(&facts.video);
        (treatment, notes)
    }

    #[test]
    fn a_plain_film_is_left_alone() {
        let (treatment, notes) = treated(|_| {});
        assert_eq!((treatment.among_neighbours(), treatment.alone().as_str()), ("", ""));
        assert_eq!(notes, Vec::<String>::new());
        // Ten bits alone are no HDR.
        let (treatment, _) = treated(|video| video.transfer = Some("bt2020-10".to_owned()));
        assert_eq!(treatment.tone_map, None);
    }

    #[test]
    fn hdr_is_read_by_its_own_colours_or_those_of_most() {
        let (treatment, notes) = treated(|video| {
            video.transfer = Some("arib-std-b67".to_owned());
            (video.primaries, video.matrix) = (Some("bt709".to_owned()), None);
            video.range = Some("a:b,c".to_owned());
        });
        let filters = treatment.alone();
        let begin = "zscale=tin=arib-std-b67:min=bt2020nc:pin=bt709:rin=tv:t=linear:";
        assert!(filters.starts_with(begin), "{filters}");
        assert!(filters.ends_with("zscale=t=bt709:m=bt709:r=tv,format=yuv420p,"), "{filters}");
        assert_eq!(notes, ["tone-mapped from HLG (arib-std-b67) to SDR (bt709)"]);
    }

    #[test]
    fn all_that_is_done_is_told() {
        let (treatment, notes) = treated(|video| {
            (video.interlaced, video.field_order) = (true, Some("tt".to_owned()));
            (video.rotation, video.pixel_aspect) = (-90, 64.0 / 45.0);
            (video.irregular, video.pixel_format) = (true, Some("yuv422p10le".to_owned()));
        });
        assert!(treatment.among_neighbours().starts_with("bwdif=mode=send_frame"));
        assert_eq!(
            notes,
            [
                "turned by -90 degrees, as its container says",
                "deinterlaced (field order tt)",
                "its pixels, 1.4222 times as wide as high, were made square",
                "its frames come at irregular times, which were kept",
                "its pixels (yuv422p10le) were converted to yuv420p",
            ]
        );
    }

    #[test]
    fn dolby_vision_without_a_base_layer_is_refused() {
        let mut facts = Facts::for_test();
        facts.video.dolby_only = true;
        let failure = treatment(&facts).expect_err("no colours");
        assert!(failure.permanent && failure.message.contains("Dolby Vision"));
    }
}
