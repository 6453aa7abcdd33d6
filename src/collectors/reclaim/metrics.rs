//! The families of this collector: what each means, and how slots and counters become samples. Pure.

use super::skel::types::reclaim_stall;
use super::vmstat::{Key, What};
use crate::histogram::Histogram;
use crate::snapshot::{Descriptor, Family, Labels, labels};

static STALLS: Descriptor = Descriptor::histogram(
    "reclaim",
    "sidecar_reclaim_direct_seconds",
    "Time that tasks had to reclaim memory themselves: for want of free pages (node), or for their cgroup (memcg).",
);
static SCANNED: Descriptor = Descriptor::counter(
    "reclaim",
    "sidecar_reclaim_scanned_pages_total",
    "",
    "Pages that reclaim looked at, by what caused it (pgscan_* of /proc/vmstat; memcg: all that they leave out).",
);
static RECLAIMED: Descriptor = Descriptor::counter(
    "reclaim",
    "sidecar_reclaim_reclaimed_pages_total",
    "",
    "Pages that reclaim took back, by what caused it (pgsteal_* of /proc/vmstat; memcg: all that they leave out).",
);
static REFAULTS: Descriptor = Descriptor::counter(
    "reclaim",
    "sidecar_reclaim_refaults_total",
    "",
    "Pages that had to be read again after they were reclaimed (workingset_refault_* of /proc/vmstat).",
);

/// All of them, in the order in which they are shown.
pub const ALL: &[&Descriptor] = &[&STALLS, &SCANNED, &RECLAIMED, &REFAULTS];

/// The families that the slots of the table feed.
pub const OF_STALLS: &[&Descriptor] = &[&STALLS];

/// Everything that one collection finds.
pub struct Families {
    stalls: Family,
    scanned: Family,
    reclaimed: Family,
    refaults: Family,
}

impl Families {
    pub fn new() -> Families {
        Families {
            stalls: Family::new(&STALLS),
            scanned: Family::new(&SCANNED),
            reclaimed: Family::new(&RECLAIMED),
            refaults: Family::new(&REFAULTS),
        }
    }

    pub fn stall(&mut self, labels: &Labels, stall: &reclaim_stall) {
        self.stalls.histogram(Labels::clone(labels), Histogram::new(&stall.time.counts, stall.time.sum));
    }

    pub fn pages(&mut self, (what, label): &Key, pages: u64) {
        let (family, name) = match what {
            What::Scanned => (&mut self.scanned, "by"),
            What::Reclaimed => (&mut self.reclaimed, "by"),
            What::Refaults => (&mut self.refaults, "type"),
        };
        family.integer(labels([(name, label)]), pages);
    }

    /// In the order of [`ALL`].
    pub fn finish(self) -> Vec<Family> {
        vec![self.stalls, self.scanned, self.reclaimed, self.refaults]
    }
}
