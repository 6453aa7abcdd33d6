//! From the wire to labels.

use super::devices::Devices;
use super::skel::types::{page_cache_pages_key, who};
use crate::collectors::labels::{comm, finish};
use crate::identity::cgroups::Cgroups;
use crate::snapshot::Labels;

/// Labels of the families of pages.
pub fn pages(slot: u32, key: &page_cache_pages_key, devices: &mut Devices) -> Labels {
    finish(slot, vec![("comm", comm(&key.who.comm)), ("device", devices.name(key.device))])
}

/// Labels of the families of pages that are charged. A cgroup whose path is not known has its number.
pub fn cgroup(slot: u32, key: u64, cgroups: &Cgroups) -> Labels {
    finish(slot, vec![("cgroup", cgroups.path(key).map_or_else(|| key.to_string(), str::to_owned))])
}

/// Labels of the families of reads.
pub fn reader(slot: u32, key: &who) -> Labels {
    finish(slot, vec![("comm", comm(&key.comm))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::labels;

    #[test]
    fn pages_have_a_process_and_a_device() {
        let mut key = page_cache_pages_key { device: 45, ..Default::default() };
        key.who.comm[..3].copy_from_slice(b"cat");
        let mut devices = Devices::default();
        assert_eq!(pages(1, &key, &mut devices), labels([("comm", "cat"), ("device", "0:45")]));
        assert_eq!(pages(0, &key, &mut devices), labels([("comm", "other"), ("device", "other")]));
        assert_eq!(cgroup(1, 7, &Cgroups::default()), labels([("cgroup", "7")]));
        assert_eq!(reader(1, &key.who), labels([("comm", "cat")]));
    }
}
