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
    /// Those of `keys_us` after which a picture is decoded that is shown before them: an open
    /// group, whose first pictures need the one before.
    pub(crate) open_keys_us: Vec<i64>,
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
        // Packets come as they are decoded.
        if is_key {
            self.keys_us.push(shown_us);
        } else if let Some(key_us) = self.keys_us.last()
            && shown_us < *key_us
            && self.open_keys_us.last() != Some(key_us)
        {
            self.open_keys_us.push(*key_us);
        }
    }

    pub(crate) fn sort(&mut self) {
        self.times_us.sort_unstable();
        self.keys_us.sort_unstable();
        self.open_keys_us.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_open_when_one_of_its_pictures_is_shown_before_its_keyframe() {
        let mut pictures = Pictures::of(0);
        // I P B, then a closed group, then an open one: I B B P.
        let packets = [(0, true), (66, false), (33, false), (100, true), (133, false)];
        let open = [(266, true), (200, false), (233, false), (300, false)];
        for (shown_us, is_key) in packets.into_iter().chain(open) {
            pictures.on_packet(0, Some(shown_us), is_key);
        }
        pictures.sort();
        assert_eq!(pictures.keys_us, [0, 100, 266]);
        assert_eq!(pictures.open_keys_us, [266]);
    }
}
