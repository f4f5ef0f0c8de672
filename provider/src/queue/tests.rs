//! Order, limits and pauses, one by one and in any order.

use super::*;
use crate::measure::Rate;
use proptest::prelude::*;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn queue(limits: &Limits) -> (Queue, Line) {
    let mut queue = Queue::new(256);
    let line = queue.add(limits);
    (queue, line)
}

#[test]
fn the_oldest_due_goes_first_and_nobody_before_it_is_due() {
    let (mut queue, line) = queue(&Limits::default());
    for (operation, due) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
        queue.push(line, Class::Poll, operation, secs(due));
    }
    assert_eq!(queue.pop(secs(9)), None);
    assert_eq!(queue.next(secs(9)), Some(secs(10)));
    let order: Vec<_> =
        std::iter::from_fn(|| queue.pop(secs(25))).map(|turn| turn.operation).collect();
    assert_eq!(order, [2, 4, 3]);
    assert_eq!(queue.next(secs(25)), Some(secs(30)));
}

#[test]
fn the_lag_is_how_long_the_oldest_due_waits_whatever_holds_it_up() {
    let (mut queue, line) = queue(&Limits { in_flight: 1, ..Limits::default() });
    assert_eq!(queue.lag(Class::Poll, secs(9)), Duration::ZERO);
    queue.push(line, Class::Poll, 1, secs(10));
    queue.push(line, Class::Poll, 2, secs(12));
    queue.push(line, Class::Submit, 3, secs(1));
    assert_eq!(queue.lag(Class::Poll, secs(9)), Duration::ZERO, "none is due");
    assert_eq!(queue.lag(Class::Poll, secs(15)), secs(5));
    let _ = queue.pop(secs(15)).expect("the submission");
    let first = queue.pop(secs(15)).expect("the first poll");
    assert_eq!((first.operation, first.lag), (1, secs(5)));
    assert_eq!(queue.pop(secs(16)), None, "one is under way");
    assert_eq!(queue.lag(Class::Poll, secs(16)), secs(4));
    queue.pause(line, Class::Poll, secs(99));
    assert_eq!(queue.lag(Class::Poll, secs(20)), secs(8));
    queue.remove(2);
    assert_eq!(queue.lag(Class::Poll, secs(20)), Duration::ZERO);
}

#[test]
fn urgent_classes_go_before_those_that_can_wait() {
    let (mut queue, line) = queue(&Limits::default());
    queue.push(line, Class::Poll, 1, secs(0));
    queue.push(line, Class::Submit, 2, secs(1));
    queue.push(line, Class::Cancel, 3, secs(2));
    queue.push(line, Class::Download, 4, secs(3));
    let order: Vec<_> =
        std::iter::from_fn(|| queue.pop(secs(9))).map(|turn| turn.operation).collect();
    assert_eq!(order, [4, 3, 2, 1]);
}

#[test]
fn an_operation_waits_in_one_place_only() {
    let (mut queue, line) = queue(&Limits::default());
    queue.push(line, Class::Poll, 1, secs(1));
    queue.push(line, Class::Cancel, 1, secs(2));
    queue.push(line, Class::Poll, 2, secs(1));
    queue.remove(2);
    assert_eq!(queue.len(), 1);
    let turn = queue.pop(secs(5)).expect("it is due");
    assert_eq!((turn.operation, turn.class), (1, Class::Cancel));
    assert_eq!(queue.pop(secs(5)), None);
}

#[test]
fn a_pause_holds_a_class_of_one_provider_and_costs_nobody_his_place() {
    let (mut queue, line) = queue(&Limits::default());
    let other = queue.add(&Limits::default());
    queue.push(line, Class::Poll, 1, secs(1));
    queue.push(line, Class::Poll, 2, secs(2));
    queue.push(other, Class::Poll, 3, secs(3));
    queue.pause(line, Class::Poll, secs(60));
    assert_eq!(queue.pop(secs(5)).map(|turn| turn.operation), Some(3));
    assert_eq!(queue.pop(secs(59)), None);
    assert_eq!(queue.pop(secs(60)).map(|turn| turn.operation), Some(1));
}

#[test]
fn downloads_leave_room_for_the_rest() {
    let mut queue = Queue::new(4);
    let line = queue.add(&Limits { in_flight: 4, ..Limits::default() });
    for operation in 0..9 {
        queue.push(line, Class::Download, operation, secs(0));
    }
    queue.push(line, Class::Poll, 9, secs(0));
    let turns: Vec<_> = std::iter::from_fn(|| queue.pop(secs(1))).collect();
    let classes: Vec<_> = turns.iter().map(|turn| turn.class).collect();
    assert_eq!(classes, [Class::Download, Class::Download, Class::Poll]);
    queue.ended(&turns[0], secs(1), true, Verdict::Worked);
    assert_eq!(queue.pop(secs(1)).map(|turn| turn.class), Some(Class::Download));
}

#[test]
fn a_host_that_fails_gets_one_probe_while_the_others_go_on() {
    let (mut queue, line) = queue(&Limits::default());
    let other = queue.add(&Limits::default());
    for operation in 0..20 {
        queue.push(line, Class::Poll, operation, secs(0));
    }
    for _ in 0..crate::breaker::FAILURES_MAX {
        let turn = queue.pop(secs(1)).expect("not open yet");
        queue.ended(&turn, secs(1), false, Verdict::Failed);
    }
    assert_eq!(queue.pop(secs(1)), None);
    assert_eq!(queue.next(secs(1)), Some(secs(2)));
    queue.push(other, Class::Poll, 99, secs(0));
    assert_eq!(queue.pop(secs(1)).map(|turn| turn.operation), Some(99));
    let probe = queue.pop(secs(2)).expect("a probe");
    assert_eq!(queue.pop(secs(2)), None, "one at a time");
    queue.ended(&probe, secs(2), true, Verdict::Worked);
    assert!(queue.pop(secs(2)).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes and goes: no window holds more than it may, nobody is sent before he is due
    /// or twice for one wait, and of those that were due the oldest was sent.
    #[test]
    fn limits_and_order_hold_whatever_comes(
        count in 1_u32..8,
        steps in proptest::collection::vec(
            (0_u64..40, 0_u64..60, 0_u64..300, any::<bool>()),
            1..200,
        ),
    ) {
        let rate = Rate { count, window: Duration::from_millis(500) };
        let limits = Limits { poll: Some(rate), in_flight: 3, ..Limits::default() };
        let (mut queue, line) = queue(&limits);
        let mut now = Duration::ZERO;
        let mut waiting: HashMap<u64, Moment> = HashMap::new();
        let (mut under_way, mut sent) = (Vec::new(), Vec::new());
        for (idle, operation, due_in, ends) in steps {
            now += Duration::from_millis(idle);
            queue.push(line, Class::Poll, operation, now + Duration::from_millis(due_in));
            waiting.insert(operation, now + Duration::from_millis(due_in));
            if ends && !under_way.is_empty() {
                let turn = under_way.remove(0);
                queue.ended(&turn, now, true, Verdict::Worked);
            }
            while let Some(turn) = queue.pop(now) {
                let due = waiting.remove(&turn.operation).expect("it waited");
                prop_assert!(due <= now);
                prop_assert!(waiting.values().all(|other| *other >= due), "the oldest goes first");
                sent.push(now);
                under_way.push(turn);
            }
            prop_assert!(under_way.len() <= 3);
        }
        for group in sent.windows(count as usize + 1) {
            prop_assert!(group[count as usize] - group[0] >= rate.window);
        }
    }
}
