//! From the wire to labels.

use super::devices::Devices;
use super::skel::types::{page_cache_pages_key, who};
use crate::collectors::labels::{self, finish};
use crate::identity::Identity;
use crate::snapshot::Labels;

/// Labels of the families of pages.
pub fn pages(slot: u32, key: &page_cache_pages_key, identity: &Identity, devices: &mut Devices) -> Labels {
    let mut pairs = labels::who(identity, &key.who.comm, key.who.cgroup);
    pairs.push(("device", devices.name(key.device)));
    finish(slot, pairs)
}

/// Labels of the families of pages that are charged. A cgroup whose path is not known has its number.
pub fn cgroup(slot: u32, key: u64, identity: &Identity) -> Labels {
    let path = identity.path(identity.of_memory(key));
    finish(slot, vec![("cgroup", path.map_or_else(|| key.to_string(), |path| path.to_string()))])
}

/// Labels of the families of reads.
pub fn reader(slot: u32, key: &who, identity: &Identity) -> Labels {
    finish(slot, labels::who(identity, &key.comm, key.cgroup))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::labels as of;

    #[test]
    fn pages_have_a_process_and_a_device() {
        let mut key = page_cache_pages_key { device: 45, ..Default::default() };
        key.who.comm[..3].copy_from_slice(b"cat");
        let (identity, mut devices) = (Identity::default(), Devices::default());
        assert_eq!(pages(1, &key, &identity, &mut devices), of([("comm", "cat"), ("device", "0:45")]));
        assert!(pages(0, &key, &identity, &mut devices).iter().all(|(_, value)| value.as_ref() == labels::OTHER));
        assert_eq!(cgroup(1, u64::MAX >> 1, &identity), of([("cgroup", "9223372036854775807")]));
        assert_eq!(reader(1, &key.who, &identity), of([("comm", "cat")]));
    }
}
