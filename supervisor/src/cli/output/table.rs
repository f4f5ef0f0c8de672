//! Words and columns for people.

use serde_json::Value;

/// Rows in aligned columns, the head first. Numbers of the given columns align right.
pub(in crate::cli) fn aligned(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let mut text = String::new();
        for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            if at > 0 {
                text.push_str("  ");
            }
            if right.contains(&at) {
                text.push_str(&format!("{cell:>width$}"));
            } else {
                text.push_str(&format!("{cell:<width$}"));
            }
        }
        text.trim_end().to_owned()
    };
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    std::iter::once(line(&head))
        .chain(rows.iter().map(|row| line(row)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A moment as local time; `-` when there is none.
pub(in crate::cli) fn time(value: &Value) -> String {
    let Some(at) = value.as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) else {
        return "-".to_owned();
    };
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A length of time, two units at most: `1h 05m`, `12.3s`, `40ms`.
pub(in crate::cli) fn span(ms: i64) -> String {
    let seconds = ms / 1000;
    match ms {
        ..1000 => format!("{}ms", ms.max(0)),
        1000..60_000 => format!("{}.{}s", seconds, ms % 1000 / 100),
        60_000..3_600_000 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600_000..86_400_000 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A size in the largest unit of which there is at least one.
pub(in crate::cli) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A value as one short line: strings without quotes, `-` for nothing.
pub(in crate::cli) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// At most `most` characters of the first line.
pub(in crate::cli) fn short(text: &str, most: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= most && !text.contains('\n') {
        return line.to_owned();
    }
    let cut: String = line.chars().take(most.saturating_sub(3)).collect();
    format!("{cut}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["1".to_owned(), "ab".to_owned()], vec!["100".to_owned(), "c".to_owned()]];
        assert_eq!(aligned(&["ID", "WORD"], &rows, &[0]), " ID  WORD\n  1  ab\n100  c");
    }

    #[test]
    fn times_and_sizes_read_well() {
        let spans = [40, 12_345, 125_000, 3_900_000, 90_000_000].map(span);
        assert_eq!(spans, ["40ms", "12.3s", "2m 05s", "1h 05m", "1d 01h"]);
        assert_eq!([12, 2048, 5 << 30].map(size), ["12 B", "2.0 KiB", "5.0 GiB"]);
        assert_eq!(short("a longer line than that", 10), "a longe...");
        assert_eq!(time(&Value::Null), "-");
    }
}
