//! What came out, as a table: looked at with ffprobe, not taken from what the job says.

use crate::step;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    file: String,
    size: String,
    picture: String,
    codecs: String,
    duration: String,
}

/// A table of the films in a folder, by name.
pub(super) fn table(folder: &Path) -> Result<String> {
    let mut rows = vec![Row {
        file: "file".into(),
        size: "size".into(),
        picture: "picture".into(),
        codecs: "codecs".into(),
        duration: "duration".into(),
    }];
    for file in files(folder)? {
        rows.push(row(&file)?);
    }
    Ok(lay_out(&rows))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot list {}", folder.display());
    let mut files = Vec::new();
    for entry in folder.read_dir().with_context(context)? {
        let entry = entry.with_context(context)?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !is_hidden && entry.file_type().with_context(context)?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn row(file: &Path) -> Result<Row> {
    let mut command = Command::new("ffprobe");
    command
        .args(["-v", "error", "-of", "json", "-show_entries"])
        .arg("format=duration,size:stream=codec_type,codec_name,width,height")
        .arg(file);
    let text = step::output(&mut command)?;
    let found = serde_json::from_slice(&text)
        .with_context(|| format!("cannot read what ffprobe says of {}", file.display()))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Ok(describe(&name, &found))
}

/// A row from ffprobe's answer; what it does not say is a dash.
fn describe(name: &str, found: &Value) -> Row {
    let dash = || "-".to_owned();
    let streams = found["streams"].as_array().map_or(&[][..], Vec::as_slice);
    let codecs: Vec<&str> = streams.iter().filter_map(|one| one["codec_name"].as_str()).collect();
    let picture = streams.iter().find(|one| one["codec_type"] == "video").and_then(|video| {
        Some(format!("{}x{}", video["width"].as_u64()?, video["height"].as_u64()?))
    });
    let number = |key: &str| found["format"][key].as_str()?.parse::<f64>().ok();
    Row {
        file: name.to_owned(),
        size: number("size").map_or_else(dash, |bytes| format!("{:.1} MiB", bytes / 1_048_576.0)),
        picture: picture.unwrap_or_else(dash),
        codecs: if codecs.is_empty() { dash() } else { codecs.join("+") },
        duration: number("duration").map_or_else(dash, |seconds| format!("{seconds:.2} s")),
    }
}

fn lay_out(rows: &[Row]) -> String {
    let width = |of: fn(&Row) -> &String| {
        rows.iter().map(|row| of(row).chars().count()).max().unwrap_or_default()
    };
    let file = width(|row| &row.file);
    let size = width(|row| &row.size);
    let picture = width(|row| &row.picture);
    let codecs = width(|row| &row.codecs);
    let duration = width(|row| &row.duration);
    let mut text = String::new();
    for row in rows {
        writeln!(
            text,
            "  {:file$}  {:>size$}  {:>picture$}  {:codecs$}  {:>duration$}",
            row.file, row.size, row.picture, row.codecs, row.duration
        )
        .expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_says_what_ffprobe_found() {
        let found = json!({
            "streams": [
                {"codec_type": "audio", "codec_name": "aac"},
                {"codec_type": "video", "codec_name": "h264", "width": 1280, "height": 720}
            ],
            "format": {"duration": "30.033000", "size": "3145728"}
        });
        let expected = Row {
            file: "720p.mp4".into(),
            size: "3.0 MiB".into(),
            picture: "1280x720".into(),
            codecs: "aac+h264".into(),
            duration: "30.03 s".into(),
        };
        assert_eq!(describe("720p.mp4", &found), expected);
        assert_eq!(describe("x", &json!({})).picture, "-");
    }
}
