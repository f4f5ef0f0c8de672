//! The instructions of a filter, and the few patterns that its rules are made of.

use super::{AT_NUMBER, at_argument};

/// `body` for this call: it answers, or ends and leaves anything in the accumulator.
pub(super) fn on_call(
    code: &mut Vec<libc::sock_filter>,
    number: libc::c_long,
    mut body: Vec<libc::sock_filter>,
) {
    body.push(load(AT_NUMBER));
    let number = u32::try_from(number).expect("the number of a call is small");
    code.push(unless_equal(number, body.len()));
    code.extend(body);
}

pub(super) fn any_bit(argument: u32, bits: u32, then: u32) -> Vec<libc::sock_filter> {
    vec![load(at_argument(argument)), jump(libc::BPF_JSET, bits, 0, 1), answer(then)]
}

pub(super) fn any_of(argument: u32, values: &[u32], then: u32) -> Vec<libc::sock_filter> {
    let mut body = vec![load(at_argument(argument))];
    for value in values {
        body.extend([unless_equal(*value, 1), answer(then)]);
    }
    body
}

pub(super) fn none_of(argument: u32, values: &[u32], then: u32) -> Vec<libc::sock_filter> {
    let mut body = vec![load(at_argument(argument))];
    body.extend(unless_among(values, then));
    body
}

/// Answers `then` unless the accumulator is one of `values`.
pub(super) fn unless_among(values: &[u32], then: u32) -> Vec<libc::sock_filter> {
    let mut body: Vec<_> = (0..values.len())
        .map(|at| jump(libc::BPF_JEQ, values[at], distance(values.len() - at), 0))
        .collect();
    body.push(answer(then));
    body
}

pub(super) fn distance(instructions: usize) -> u8 {
    u8::try_from(instructions).expect("no rule is that long")
}

pub(super) fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

pub(super) fn and(mask: u32) -> libc::sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask)
}

/// Skips `instructions` unless the accumulator is `value`.
pub(super) fn unless_equal(value: u32, instructions: usize) -> libc::sock_filter {
    jump(libc::BPF_JEQ, value, 0, distance(instructions))
}

/// Skips the next instruction when one of `bits` is set.
pub(super) fn unless_bit(bits: u32) -> libc::sock_filter {
    jump(libc::BPF_JSET, bits, 1, 0)
}

pub(super) fn jump(test: u32, value: u32, then: u8, or_else: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, then, or_else, value)
}

pub(super) fn ahead(instructions: usize) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, u32::from(distance(instructions)))
}

pub(super) fn answer(value: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

pub(super) fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    let code = u16::try_from(code).expect("instruction codes have 16 bits");
    libc::sock_filter { code, jt, jf, k }
}
