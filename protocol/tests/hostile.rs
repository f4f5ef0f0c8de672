//! Whatever bytes arrive: an error or a message, soon, without a panic and without much memory.

use proptest::prelude::*;
use shiftboss_protocol::control::{Request, Response};
use shiftboss_protocol::frame::{self, Error, FRAME_BYTES_MAX, PREFIX_BYTES};
use shiftboss_protocol::job::{Attempt, JobId, Outcome, Usage};
use shiftboss_protocol::message::{SupervisorMessage, WorkerMessage};
use shiftboss_protocol::stored::{StoredOutcome, StoredOutcomeError, StoredOutcomeName};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what this thread has allocated at most at one time.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.get() + layout.size();
        NOW.set(now);
        PEAK.set(PEAK.get().max(now));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.set(NOW.get().saturating_sub(layout.size()));
        // SAFETY: the pointer came from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Most memory that decoding one frame may take: the decoder's limit and its first guesses.
const MEMORY_MAX: usize = 12 * FRAME_BYTES_MAX;

fn decode_all(bytes: &[u8]) {
    let before = NOW.get();
    PEAK.set(before);
    let _ = frame::decode::<WorkerMessage>(bytes);
    let _ = frame::decode::<SupervisorMessage>(bytes);
    let _ = frame::decode::<Request>(bytes);
    let _ = frame::decode::<Response>(bytes);
    let _ = frame::decode::<StoredOutcome>(bytes);
    let _ = StoredOutcome::decode(bytes);
    let used = PEAK.get().saturating_sub(before);
    assert!(used <= MEMORY_MAX, "{used} bytes allocated for a body of {}", bytes.len());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_or_take_much_memory(
        bytes in proptest::collection::vec(any::<u8>(), 0..4096),
    ) {
        decode_all(&bytes);
    }

    /// A valid tag followed by lengths that promise more than there is.
    #[test]
    fn lying_lengths_never_panic_or_take_much_memory(
        tag in 0u32..16,
        length in any::<u64>(),
        rest in proptest::collection::vec(any::<u8>(), 0..256),
    ) {
        let mut bytes = tag.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(&rest);
        decode_all(&bytes);
        let mut nested = tag.to_le_bytes().to_vec();
        nested.extend(1u64.to_le_bytes());
        nested.extend(length.to_le_bytes());
        nested.extend(rest);
        decode_all(&nested);
    }

    /// What a worker could have written, with some of it overwritten or cut.
    #[test]
    fn a_damaged_outcome_file_is_refused_or_read_without_a_panic(
        place in 0usize..120,
        damage in proptest::collection::vec(any::<u8>(), 0..9),
        cut in 0usize..120,
    ) {
        let whole = stored("main", "{}").encode().expect("it fits");
        let mut bytes = whole.clone();
        for (byte, new) in bytes.iter_mut().skip(place).zip(damage) {
            *byte = new;
        }
        let is_cut = cut < bytes.len();
        bytes.truncate(cut);
        decode_all(&bytes);
        prop_assert!(!is_cut || StoredOutcome::decode(&whole[..cut]).is_err());
    }

    #[test]
    fn every_owner_makes_a_file_name_that_says_it_again(
        owner in any::<String>(),
        job in any::<i64>(),
        attempt in any::<u32>(),
    ) {
        let name = StoredOutcomeName { owner, job: JobId(job), attempt: Attempt(attempt) };
        let file_name = name.file_name();
        prop_assert!(!file_name.contains(['/', '\0']));
        prop_assert_eq!(StoredOutcomeName::parse(&file_name), Some(name));
    }

    #[test]
    fn any_file_name_is_understood_or_refused_without_a_panic(
        name in "[a-z%./0-9+-]{0,20}",
        rest in any::<String>(),
    ) {
        for name in [format!("{name}{rest}"), format!("{name}.outcome")] {
            if let Some(parsed) = StoredOutcomeName::parse(&name) {
                prop_assert_eq!(parsed.file_name(), name);
            }
        }
    }

    #[test]
    fn a_stream_cut_anywhere_is_waited_for_or_told(cut in 0usize..40) {
        let whole = frame::encode(&SupervisorMessage::Drain).expect("it fits");
        let cut = cut.min(whole.len());
        let mut buffer = whole[..cut].to_vec();
        let taken = frame::take::<SupervisorMessage>(&mut buffer).expect("not wrong so far");
        prop_assert_eq!(taken.is_some(), cut == whole.len());
        let read = frame::read::<SupervisorMessage>(&mut &whole[..cut]);
        match read {
            Ok(None) => prop_assert_eq!(cut, 0),
            Ok(Some(_)) => prop_assert_eq!(cut, whole.len()),
            Err(Error::Cut) => prop_assert!(cut > 0 && cut < whole.len()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

#[test]
fn a_frame_that_announces_too_much_is_refused_before_anything_is_allocated() {
    let prefix = u32::MAX.to_le_bytes();
    let before = NOW.get();
    PEAK.set(before);
    let error = frame::read::<WorkerMessage>(&mut &prefix[..]).expect_err("it is too large");
    assert!(matches!(error, Error::TooLarge(_)));
    assert!(PEAK.get() - before < 1024);
    let just_too_large = u32::try_from(FRAME_BYTES_MAX + 1).expect("it fits").to_le_bytes();
    assert!(frame::body_length(just_too_large).is_err());
}

fn stored(owner: &str, result: &str) -> StoredOutcome {
    StoredOutcome {
        version: 1,
        owner: owner.to_owned(),
        job: JobId(7),
        attempt: Attempt(2),
        outcome: Outcome::Succeeded { result: result.to_owned() },
        usage: Usage::default(),
        job_type: "command".to_owned(),
    }
}

#[test]
fn a_file_that_is_no_outcome_is_told_from_one_of_another_version() {
    let whole = stored("main", "{}").encode().expect("it fits");
    let mut longer = whole.clone();
    longer.push(0);
    let error = |bytes: &[u8]| StoredOutcome::decode(bytes).expect_err("refused");
    assert!(matches!(error(&longer), StoredOutcomeError::LeftOver(1)));
    assert!(matches!(error(&whole[..whole.len() - 1]), StoredOutcomeError::Cut(_)));
    assert!(matches!(error(b""), StoredOutcomeError::Cut(0)));
    let mut later = whole;
    later[PREFIX_BYTES] = 2;
    assert!(matches!(error(&later), StoredOutcomeError::Version(2)));
}

#[test]
fn a_name_that_no_worker_writes_is_refused() {
    for name in [
        "",
        ".outcome",
        "a.1.outcome",
        "a.1.2",
        "a.01.2.outcome",
        "a.+1.2.outcome",
        "a/b.1.2.outcome",
        "%61.1.2.outcome",
        "%2E.1.2.outcome",
        "%2.1.2.outcome",
        "%ff.1.2.outcome",
        "a.1.-2.outcome",
        "a.1.2.outcome.tmp",
    ] {
        assert_eq!(StoredOutcomeName::parse(name), None, "{name}");
    }
}

#[test]
fn bytes_left_over_are_an_error() {
    let mut frame = frame::encode(&WorkerMessage::Heartbeat).expect("it fits");
    frame.push(0);
    let body = &frame[PREFIX_BYTES..];
    assert!(matches!(frame::decode::<WorkerMessage>(body), Err(Error::Undecodable { .. })));
}

#[test]
fn a_message_too_large_for_a_frame_is_an_error_of_the_sender() {
    let data = vec![0; FRAME_BYTES_MAX];
    let (job, attempt) = (shiftboss_protocol::job::JobId(1), shiftboss_protocol::job::Attempt(1));
    let message = WorkerMessage::Checkpoint { job, attempt, data };
    assert!(matches!(frame::encode(&message), Err(Error::MessageTooLarge(_))));
}
