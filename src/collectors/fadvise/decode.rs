//! From the wire to labels. Pure: nothing here touches the kernel.

use nix::errno::Errno;

use super::skel::types::{fadvise_advice, fadvise_call_key, fadvise_failure_key, who};
use crate::collectors::labels::{comm, finish};
use crate::snapshot::Labels;

/// Labels of calls.
pub fn call(slot: u32, key: &fadvise_call_key) -> Labels {
    finish(slot, vec![("comm", comm(&key.who.comm)), ("advice", advice(key.advice).to_owned())])
}

/// Labels of calls that failed.
pub fn failure(slot: u32, key: &fadvise_failure_key) -> Labels {
    let pairs =
        vec![("comm", comm(&key.who.comm)), ("advice", advice(key.advice).to_owned()), ("errno", errno(key.error))];
    finish(slot, pairs)
}

/// Labels of those who evict.
pub fn effect(slot: u32, key: &who) -> Labels {
    finish(slot, vec![("comm", comm(&key.comm))])
}

fn advice(number: u32) -> &'static str {
    match fadvise_advice(number) {
        fadvise_advice::FADVISE_NORMAL => "normal",
        fadvise_advice::FADVISE_RANDOM => "random",
        fadvise_advice::FADVISE_SEQUENTIAL => "sequential",
        fadvise_advice::FADVISE_WILLNEED => "willneed",
        fadvise_advice::FADVISE_DONTNEED => "dontneed",
        fadvise_advice::FADVISE_NOREUSE => "noreuse",
        _ => "invalid",
    }
}

/// As in errno(3), such as `EBADF`; a number that has no name as itself.
fn errno(number: u32) -> String {
    match Errno::from_raw(number as i32) {
        Errno::UnknownErrno => number.to_string(),
        known => format!("{known:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_and_errno_have_the_names_of_the_manual() {
        let who = who { comm: *b"dd\0\0\0\0\0\0\0\0\0\0\0\0\0\0", ..who::default() };
        let key = |advice, error| fadvise_failure_key { who, advice, error };
        let shown = |key| failure(1, &key).iter().map(|(_, value)| value.to_string()).collect::<Vec<_>>();
        assert_eq!(shown(key(4, 9)), ["dd", "dontneed", "EBADF"]);
        assert_eq!(shown(key(6, 22)), ["dd", "invalid", "EINVAL"]);
        assert_eq!(shown(key(0, 29)), ["dd", "normal", "ESPIPE"]);
        assert_eq!(shown(key(0, 4000)), ["dd", "normal", "4000"]);
    }
}
