//! Remembers what was sent, for the next worker: limits hold across the death of one. A file per
//! provider and class in the type's scratch folder, never synced: it must outlive a process, and
//! a machine that starts again was silent for longer than most windows.
//!
//! Layout: the boot's id in 64 bytes, then 8 bytes little endian per slot: nanoseconds of the
//! monotonic clock at which its request counts no more.

use rustix::time::{ClockId, clock_gettime};
use shiftboss_provider::Moment;
use shiftboss_provider::queue::{Class, Line, Queue, Turn};
use shiftboss_provider::window::Place;
use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

/// Bytes before the first slot.
const HEAD_BYTES: usize = 64;

/// The largest file that is read, bytes: the most slots that a rate may have, and the head.
const BYTES_MAX: u64 = 100_000 * 8 + HEAD_BYTES as u64;

/// The files of this process.
#[derive(Debug)]
pub(super) struct Rates {
    /// `None`: there is no folder, and nothing is remembered.
    folder: Option<PathBuf>,
    boot: [u8; HEAD_BYTES],
    /// The moment at which the monotonic clock was 0, before [`Moment::ZERO`] or after it.
    clock: Clock,
    files: HashMap<(Line, Class), File>,
}

/// Turns moments of an engine into times of the clock that all processes of a boot share.
#[derive(Clone, Copy, Debug)]
struct Clock {
    moment: Moment,
    monotonic: Duration,
}

impl Clock {
    fn nanos(self, at: Moment) -> u64 {
        let monotonic = (self.monotonic + at).saturating_sub(self.moment);
        u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX)
    }

    fn moment(self, nanos: u64) -> Moment {
        (self.moment + Duration::from_nanos(nanos)).saturating_sub(self.monotonic)
    }
}

/// The id of this boot, read before the seal hides it; zeros where there is none.
pub(super) fn boot_id() -> [u8; HEAD_BYTES] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut id = [0; HEAD_BYTES];
    for (to, byte) in id.iter_mut().zip(text.trim().bytes()) {
        *to = byte;
    }
    id
}

impl Rates {
    /// Remembers in `folder`; `moment` is now.
    pub(super) fn new(folder: Option<PathBuf>, boot: [u8; HEAD_BYTES], moment: Moment) -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        let clock = Clock { moment, monotonic: Duration::new(seconds, nanos) };
        Self { folder, boot, clock, files: HashMap::new() }
    }

    /// Lets `queue` count what earlier processes have sent to this provider.
    ///
    /// # Errors
    /// A sentence: then the limits might be broken, and nothing should be sent.
    pub(super) fn resume(
        &mut self,
        provider: &str,
        (queue, line): (&mut Queue, Line),
        now: Moment,
    ) -> Result<(), String> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let told = |error: &std::io::Error| {
            let path = folder.display();
            format!("cannot remember in {path} what is sent, for the limits' sake: {error}")
        };
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
            return Err(told(&error));
        }
        for class in Class::ALL {
            let path = folder.join(format!("{provider}.{}", word(class)));
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(path).map_err(|error| told(&error))?;
            let mut bytes = Vec::new();
            let read = (&file).take(BYTES_MAX).read_to_end(&mut bytes);
            read.map_err(|error| told(&error))?;
            let untils = untils(&bytes, &self.boot).map(|nanos| self.clock.moment(nanos));
            let places = queue.resume((line, class), &untils.collect::<Vec<_>>(), now);
            let bytes = whole(&self.boot, &places, self.clock);
            file.write_all_at(&bytes, 0)
                .and_then(|()| file.set_len(bytes.len() as u64))
                .map_err(|error| told(&error))?;
            self.files.insert((line, class), file);
        }
        Ok(())
    }

    /// Remembers what a turn's request is in the way of.
    pub(super) fn note(&self, turn: &Turn, place: Option<Place>) {
        let (Some(place), Some(file)) = (place, self.files.get(&(turn.line, turn.class))) else {
            return;
        };
        let at = HEAD_BYTES as u64 + u64::from(place.slot) * 8;
        // A full disk costs the memory of this request, never the request.
        let _ = file.write_all_at(&self.clock.nanos(place.until).to_le_bytes(), at);
    }
}

const fn word(class: Class) -> &'static str {
    match class {
        Class::Download => "download",
        Class::Cancel => "cancel",
        Class::Submit => "submit",
        Class::Poll => "poll",
    }
}

/// What a file remembers; nothing, when it is from another boot.
fn untils<'a>(bytes: &'a [u8], boot: &[u8; HEAD_BYTES]) -> impl Iterator<Item = u64> + use<'a> {
    let (head, slots) = bytes.split_at(bytes.len().min(HEAD_BYTES));
    let slots = if head == boot { slots } else { &[] };
    slots.chunks_exact(8).filter_map(|chunk| Some(u64::from_le_bytes(chunk.try_into().ok()?)))
}

fn whole(boot: &[u8; HEAD_BYTES], places: &[Place], clock: Clock) -> Vec<u8> {
    let mut bytes = boot.to_vec();
    bytes.resize(HEAD_BYTES + places.len() * 8, 0);
    for place in places {
        let at = HEAD_BYTES + place.slot as usize * 8;
        bytes[at..at + 8].copy_from_slice(&clock.nanos(place.until).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftboss_provider::description::Limits;

    const DAYS: Duration = Duration::from_secs(10 * 86_400);

    /// Polls that a process may send at once that has `folder` and is of this boot.
    fn polls(folder: &std::path::Path, boot: u8, moment: Moment) -> usize {
        let rate = "10/1h".to_owned().try_into().expect("a rate");
        let limits = Limits { poll: Some(rate), ..Limits::default() };
        let mut queue = Queue::new(256);
        let line = queue.add(&limits);
        let mut rates = Rates::new(Some(folder.join("rates")), [boot; HEAD_BYTES], moment);
        rates.resume("acme", (&mut queue, line), moment).expect("it can be written");
        for operation in 0..7 {
            queue.push(line, Class::Poll, operation, moment);
        }
        let mut sent = 0;
        while let Some(turn) = queue.pop(moment) {
            queue.sent(&turn, moment);
            rates.note(&turn, queue.place(&turn));
            sent += 1;
        }
        sent
    }

    #[test]
    fn what_a_process_sent_counts_for_the_next_one_of_the_same_boot() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(polls(folder.path(), 1, DAYS), 7);
        // Its moments are others: only the monotonic clock goes on.
        assert_eq!(polls(folder.path(), 1, 3 * DAYS), 3);
        assert_eq!(polls(folder.path(), 1, DAYS), 0);
        assert_eq!(polls(folder.path(), 2, DAYS), 7, "another boot");
    }

    #[test]
    fn a_spoiled_file_is_begun_anew_and_a_lost_folder_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("rates")).expect("made");
        std::fs::write(folder.path().join("rates/acme.poll"), b"short").expect("written");
        assert_eq!(polls(folder.path(), 1, DAYS), 7);
        std::fs::write(folder.path().join("file"), b"").expect("written");
        let mut rates = Rates::new(Some(folder.path().join("file/rates")), [0; 64], DAYS);
        let mut queue = Queue::new(1);
        let line = queue.add(&Limits::default());
        let told = rates.resume("acme", (&mut queue, line), DAYS).expect_err("no folder");
        assert!(told.contains("for the limits' sake"), "{told}");
    }
}
