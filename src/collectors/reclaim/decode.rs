//! From the wire to labels. Pure: nothing here touches the kernel.

use super::skel::types::{reclaim_key, reclaim_scope};
use crate::collectors::labels::{comm, finish};
use crate::snapshot::Labels;

/// Labels of the stalls.
pub fn stall(slot: u32, key: &reclaim_key) -> Labels {
    finish(slot, vec![("comm", comm(&key.who.comm)), ("scope", scope(key.scope).to_owned())])
}

fn scope(number: u8) -> &'static str {
    match reclaim_scope(number.into()) {
        reclaim_scope::SCOPE_NODE => "node",
        reclaim_scope::SCOPE_MEMCG => "memcg",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::super::skel::types::who;
    use super::*;
    use crate::snapshot::labels;

    #[test]
    fn a_stall_is_named_after_process_and_scope() {
        let key = |scope| reclaim_key {
            who: who { comm: *b"kafka\0\0\0\0\0\0\0\0\0\0\0", ..who::default() },
            scope,
            ..reclaim_key::default()
        };
        assert_eq!(stall(1, &key(0)), labels([("comm", "kafka"), ("scope", "node")]));
        assert_eq!(stall(1, &key(1)), labels([("comm", "kafka"), ("scope", "memcg")]));
        assert_eq!(stall(0, &key(1)), labels([("comm", "other"), ("scope", "other")]));
    }
}
