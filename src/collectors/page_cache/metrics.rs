//! The families of this collector: what each means, and how slots become samples. Pure.

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

/// Everything that one collection finds.
pub struct Families {
    added: Family,
    evicted: Family,
    dirtied: Family,
    charged_added: Family,
    charged_evicted: Family,
    misses: Family,
    lookups: Family,
}

impl Families {
    pub fn new() -> Families {
        Families {
            added: Family::new(&ADDED),
            evicted: Family::new(&EVICTED),
            dirtied: Family::new(&DIRTIED),
            charged_added: Family::new(&CHARGED_ADDED),
            charged_evicted: Family::new(&CHARGED_EVICTED),
            misses: Family::new(&MISSES),
            lookups: Family::new(&LOOKUPS),
        }
    }

    pub fn pages(&mut self, labels: &Labels, counts: &page_cache_pages_counts, known: Known) {
        self.added.integer(Labels::clone(labels), counts.added);
        self.evicted.integer(Labels::clone(labels), counts.evicted);
        if known.dirtied {
            self.dirtied.integer(Labels::clone(labels), counts.dirtied);
        }
    }

    pub fn cgroup(&mut self, labels: &Labels, counts: &page_cache_cgroup_counts) {
        self.charged_added.integer(Labels::clone(labels), counts.added);
        self.charged_evicted.integer(Labels::clone(labels), counts.evicted);
    }

    pub fn reader(&mut self, labels: &Labels, counts: &page_cache_reader_counts, known: Known) {
        if known.misses {
            self.misses.integer(Labels::clone(labels), counts.misses);
        }
        if known.lookups {
            self.lookups.integer(Labels::clone(labels), counts.lookups);
        }
    }

    /// In the order of [`ALL`].
    pub fn finish(self) -> Vec<Family> {
        vec![
            self.added,
            self.evicted,
            self.dirtied,
            self.charged_added,
            self.charged_evicted,
            self.misses,
            self.lookups,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::labels;

    #[test]
    fn what_is_not_known_has_no_samples() {
        let (cat, mut families) = (labels([("comm", "cat")]), Families::new());
        let known = Known { dirtied: false, misses: true, lookups: false };
        families.pages(&cat, &page_cache_pages_counts::default(), known);
        families.reader(&cat, &page_cache_reader_counts::default(), known);
        let found = families.finish();
        assert!(found.iter().map(|family| family.descriptor).eq(ALL.iter().copied()));
        let filled = found.iter().filter(|family| !family.samples.is_empty()).map(|family| family.descriptor);
        assert_eq!(filled.collect::<Vec<_>>(), [&ADDED, &EVICTED, &MISSES]);
    }
}
