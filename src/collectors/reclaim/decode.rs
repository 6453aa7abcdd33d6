//! From the wire to labels. Pure: nothing here touches the kernel.

use super::skel::types::{reclaim_key, reclaim_scope};
use crate::collectors::labels::{self, finish};
use crate::identity::Identity;
use crate::snapshot::Labels;

/// Labels of the stalls.
pub fn stall(slot: u32, key: &reclaim_key, identity: &Identity) -> Labels {
    let mut pairs = labels::who(identity, &key.who.comm, key.who.cgroup);
    pairs.push(("scope", scope(key.scope).to_owned()));
    finish(slot, pairs)
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
    use crate::snapshot::labels as of;

    #[test]
    fn a_stall_is_named_after_process_and_scope() {
        let key = |scope| reclaim_key {
            who: who { comm: *b"kafka\0\0\0\0\0\0\0\0\0\0\0", ..who::default() },
            scope,
            ..reclaim_key::default()
        };
        let identity = Identity::default();
        assert_eq!(stall(1, &key(0), &identity), of([("comm", "kafka"), ("scope", "node")]));
        assert_eq!(stall(1, &key(1), &identity), of([("comm", "kafka"), ("scope", "memcg")]));
        assert!(stall(0, &key(1), &identity).iter().all(|(_, value)| value.as_ref() == labels::OTHER));
    }
}
