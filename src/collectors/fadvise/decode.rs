//! From the wire to labels. Pure: nothing here touches the kernel.

use nix::errno::Errno;

use super::skel::types::{self, fadvise_advice, fadvise_call_key, fadvise_failure_key};
use crate::collectors::labels::{self, Pairs, finish};
use crate::identity::Identity;
use crate::snapshot::Labels;

/// Labels of calls.
pub fn call(slot: u32, key: &fadvise_call_key, identity: &Identity) -> Labels {
    let mut pairs = who(&key.who, identity);
    pairs.push(("advice", advice(key.advice).to_owned()));
    finish(slot, pairs)
}

/// Labels of calls that failed.
pub fn failure(slot: u32, key: &fadvise_failure_key, identity: &Identity) -> Labels {
    let mut pairs = who(&key.who, identity);
    pairs.extend([("advice", advice(key.advice).to_owned()), ("errno", errno(key.error))]);
    finish(slot, pairs)
}

/// Labels of those who evict.
pub fn effect(slot: u32, key: &types::who, identity: &Identity) -> Labels {
    finish(slot, who(key, identity))
}

fn who(who: &types::who, identity: &Identity) -> Pairs {
    labels::who(identity, &who.comm, who.cgroup)
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
        let who = types::who { comm: *b"dd\0\0\0\0\0\0\0\0\0\0\0\0\0\0", ..types::who::default() };
        let key = |advice, error| fadvise_failure_key { who, advice, error };
        let shown =
            |key| failure(1, &key, &Identity::default()).iter().map(|(_, value)| value.to_string()).collect::<Vec<_>>();
        assert_eq!(shown(key(4, 9)), ["dd", "dontneed", "EBADF"]);
        assert_eq!(shown(key(6, 22)), ["dd", "invalid", "EINVAL"]);
        assert_eq!(shown(key(0, 29)), ["dd", "normal", "ESPIPE"]);
        assert_eq!(shown(key(0, 4000)), ["dd", "normal", "4000"]);
    }
}
