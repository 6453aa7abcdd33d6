//! The families of this collector: what each means, and how slots become samples. Pure.

use std::collections::BTreeMap;

use super::skel::types::{page_cache_cgroup_counts, page_cache_pages_counts, page_cache_reader_counts};
use crate::snapshot::{Descriptor, Family, Labels};

const MODULE: &str = "page-cache";

static ADDED: Descriptor = Descriptor::counter(
    MODULE,
    "sidecar_page_cache_added_pages_total",
    "",
    "Pages that came into the page cache, by the process that read, wrote or touched them (mm_filemap_add_to_page_cache).",
);
static EVICTED: Descriptor = Descriptor::counter(
    MODULE,
    "sidecar_page_cache_evicted_pages_total",
    "",
    "Pages that left the page cache, whether reclaimed, truncated or dropped, by the process that did it (mm_filemap_delete_from_page_cache).",
);
static DIRTIED: Descriptor = Descriptor::counter(
    MODULE,
    "sidecar_page_cache_dirtied_pages_total",
    "",
    "Clean pages of the page cache that got dirty, each once until it is written back (writeback_dirty_folio).",
);
static CHARGED_ADDED: Descriptor = Descriptor::counter(
    MODULE,
    "sidecar_page_cache_charged_added_pages_total",
    "",
    "Pages that came into the page cache, by the cgroup whose memory they count as (folio.memcg_data).",
);
static CHARGED_EVICTED: Descriptor = Descriptor::counter(
    MODULE,
    "sidecar_page_cache_charged_evicted_pages_total",
    "",
    "Pages that left the page cache, by the cgroup whose memory they counted as (folio.memcg_data), whoever made them leave.",
);
static MISSES: Descriptor = Descriptor::counter(
    MODULE,
    "sidecar_page_cache_readahead_misses_total",
    "",
    "Reads that found no page and had to wait for readahead (page_cache_sync_ra).",
);
static LOOKUPS: Descriptor = Descriptor::counter(
    MODULE,
    "sidecar_page_cache_lookups_total",
    "",
    "Pages that read calls asked for, in the page cache or not (mm_filemap_get_pages); only with collector.page-cache.lookups.",
);

/// All of them, in the order in which they are shown.
pub const ALL: &[&Descriptor] = &[&ADDED, &EVICTED, &DIRTIED, &CHARGED_ADDED, &CHARGED_EVICTED, &MISSES, &LOOKUPS];

/// The families that the slots of each table feed.
pub const OF_PAGES: &[&Descriptor] = &[&ADDED, &EVICTED, &DIRTIED];
pub const OF_CGROUPS: &[&Descriptor] = &[&CHARGED_ADDED, &CHARGED_EVICTED];
pub const OF_READERS: &[&Descriptor] = &[&MISSES, &LOOKUPS];

/// What is counted here; the rest is not known, and not shown.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub dirtied: bool,
    pub misses: bool,
    pub lookups: bool,
}

/// Everything that one collection finds. Two devices of which one came in the other's place may have one name: what has the
/// same labels is one sample.
#[derive(Debug, Default)]
pub struct Families {
    pages: BTreeMap<Labels, [u64; 3]>,
    cgroups: BTreeMap<Labels, [u64; 2]>,
    readers: BTreeMap<Labels, [u64; 2]>,
}

impl Families {
    pub fn pages(&mut self, labels: &Labels, counts: &page_cache_pages_counts) {
        let sums = self.pages.entry(Labels::clone(labels)).or_default();
        plus(sums, [counts.added, counts.evicted, counts.dirtied]);
    }

    pub fn cgroup(&mut self, labels: &Labels, counts: &page_cache_cgroup_counts) {
        let sums = self.cgroups.entry(Labels::clone(labels)).or_default();
        plus(sums, [counts.added, counts.evicted]);
    }

    pub fn reader(&mut self, labels: &Labels, counts: &page_cache_reader_counts) {
        let sums = self.readers.entry(Labels::clone(labels)).or_default();
        plus(sums, [counts.misses, counts.lookups]);
    }

    /// In the order of [`ALL`].
    pub fn finish(&self, known: Known) -> Vec<Family> {
        let mut families = Vec::new();
        families.push(family(&ADDED, &self.pages, 0));
        families.push(family(&EVICTED, &self.pages, 1));
        if known.dirtied {
            families.push(family(&DIRTIED, &self.pages, 2));
        }
        families.push(family(&CHARGED_ADDED, &self.cgroups, 0));
        families.push(family(&CHARGED_EVICTED, &self.cgroups, 1));
        if known.misses {
            families.push(family(&MISSES, &self.readers, 0));
        }
        if known.lookups {
            families.push(family(&LOOKUPS, &self.readers, 1));
        }
        families
    }
}

fn plus<const N: usize>(sums: &mut [u64; N], more: [u64; N]) {
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

fn family<const N: usize>(descriptor: &'static Descriptor, sums: &BTreeMap<Labels, [u64; N]>, index: usize) -> Family {
    let mut family = Family::new(descriptor);
    sums.iter().for_each(|(labels, sums)| family.integer(Labels::clone(labels), sums[index]));
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Value, labels};

    #[test]
    fn what_is_called_the_same_is_one_sample() {
        let mut families = Families::default();
        let cat = labels([("comm", "cat"), ("device", "nvme1n1")]);
        for added in [3, 4] {
            families.pages(&cat, &page_cache_pages_counts { added, ..Default::default() });
        }
        let found = families.finish(Known { dirtied: false, misses: true, lookups: false });
        let names: Vec<_> = found.iter().map(|family| family.descriptor).collect();
        assert_eq!(names, [&ADDED, &EVICTED, &CHARGED_ADDED, &CHARGED_EVICTED, &MISSES]);
        let [sample] = &found[0].samples[..] else { panic!("{:?}", found[0]) };
        assert!(matches!(sample.value, Value::Integer(7)), "{sample:?}");
    }
}
