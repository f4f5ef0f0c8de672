//! When each picture of one stream is shown: what chunks are cut by and checked against. Pure.

/// More pictures than this are not listed: a film of a whole day at 46 a second, 32 MiB.
const PICTURES_MAX: usize = 4_000_000;

/// The pictures of one stream, in the order in which they are shown once [`Pictures::sort`]
/// was called. Times are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pictures {
    stream: Option<u32>,
    pub(crate) times_us: Vec<i64>,
    /// The times of those that can be decoded without their predecessors.
    pub(crate) keys_us: Vec<i64>,
    /// Pictures without a time of their own.
    pub(crate) untimed: u64,
    /// Some are not listed.
    pub(crate) too_many: bool,
}

impl Pictures {
    /// Those of `stream`.
    pub(crate) fn of(stream: u32) -> Self {
        Self { stream: Some(stream), ..Self::default() }
    }

    /// Takes a packet that is shown.
    pub(crate) fn on_packet(&mut self, stream: u32, shown_us: Option<i64>, is_key: bool) {
        if self.stream != Some(stream) {
            return;
        }
        let Some(shown_us) = shown_us else {
            self.untimed += 1;
            return;
        };
        if self.times_us.len() == PICTURES_MAX {
            self.too_many = true;
            return;
        }
        self.times_us.push(shown_us);
        if is_key {
            self.keys_us.push(shown_us);
        }
    }

    pub(crate) fn sort(&mut self) {
        self.times_us.sort_unstable();
        self.keys_us.sort_unstable();
    }
}
