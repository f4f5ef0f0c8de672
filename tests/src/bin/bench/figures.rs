//! Measured values as rows of Markdown tables: never one number, always their spread.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Values of one thing that was measured many times; at least one.
#[derive(Clone, Debug)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        assert!(!sorted.is_empty(), "nothing was measured");
        sorted.sort_unstable_by(f64::total_cmp);
        Self(sorted)
    }

    /// The value that this many per cent of the values do not exceed.
    pub(crate) fn at(&self, percent: usize) -> f64 {
        self.0[(self.0.len() - 1) * percent / 100]
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        if self.0.len() % 2 == 1 {
            self.0[middle]
        } else {
            f64::midpoint(self.0[middle - 1], self.0[middle])
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Minimum, median, maximum.
    pub(crate) fn range(&self, digits: usize) -> String {
        let (min, median, max) = (self.at(0), self.median(), self.at(100));
        format!("{min:.digits$} / **{median:.digits$}** / {max:.digits$}")
    }
}

/// Begins a table.
pub(crate) fn head(columns: &[&str]) {
    row(columns);
    row(&vec!["---"; columns.len()]);
}

pub(crate) fn row(cells: &[impl AsRef<str>]) {
    let cells: Vec<_> = cells.iter().map(AsRef::as_ref).collect();
    say(&format!("| {} |", cells.join(" | ")));
}

/// Begins a table of times in microseconds, to be filled by [`latencies`].
pub(crate) fn latencies_head() {
    head(&["microseconds", "n", "min", "p50", "p90", "p99", "max"]);
}

pub(crate) fn latencies(what: &str, micros: &Spread) {
    let mut cells = vec![what.to_owned(), micros.count().to_string()];
    cells.extend([0, 50, 90, 99, 100].map(|percent| format!("{:.0}", micros.at(percent))));
    row(&cells);
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The wall clock, in microseconds: for moments that two processes compare.
pub(crate) fn now_micros() -> f64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
