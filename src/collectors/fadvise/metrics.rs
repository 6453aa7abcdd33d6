//! The families of this collector: what each means, and how slots become samples. Pure.

use super::skel::types::{fadvise_advice, fadvise_call, fadvise_effect, fadvise_failure};
use crate::snapshot::{Descriptor, Family, Labels};

static CALLS: Descriptor = Descriptor::counter(
    "fadvise",
    "sidecar_fadvise_calls_total",
    "",
    "Calls of posix_fadvise, by advice, those that failed among them; without those through io_uring.",
);
static ERRORS: Descriptor = Descriptor::counter(
    "fadvise",
    "sidecar_fadvise_errors_total",
    "",
    "Calls of posix_fadvise that failed, by advice and error.",
);
static BYTES: Descriptor = Descriptor::counter(
    "fadvise",
    "sidecar_fadvise_bytes_total",
    "bytes",
    "Bytes named by calls of posix_fadvise that succeeded; a length of 0 means to the end of the file.",
);
static EVICTED: Descriptor = Descriptor::counter(
    "fadvise",
    "sidecar_fadvise_evicted_pages_total",
    "",
    "Pages that left the page cache because of a DONTNEED call (mm_filemap_delete_from_page_cache within one).",
);
static READ_BACK: Descriptor = Descriptor::counter(
    "fadvise",
    "sidecar_fadvise_read_back_pages_total",
    "",
    "Those evicted pages that were in the page cache again within collector.fadvise.read_back_window, by who had evicted them.",
);

/// All of them, in the order in which they are shown.
pub const ALL: &[&Descriptor] = &[&CALLS, &ERRORS, &BYTES, &EVICTED, &READ_BACK];

/// The families that the slots of each table feed.
pub const OF_CALL: &[&Descriptor] = &[&CALLS, &BYTES];
pub const OF_FAILURE: &[&Descriptor] = &[&ERRORS];
pub const OF_EFFECT: &[&Descriptor] = &[&EVICTED, &READ_BACK];

/// Everything that one collection finds.
pub struct Families {
    calls: Family,
    errors: Family,
    bytes: Family,
    evicted: Family,
    read_back: Family,
    /// Somebody listens to pages that come back; else their number is not known.
    sees_reads: bool,
}

impl Families {
    pub fn new(sees_reads: bool) -> Families {
        Families {
            calls: Family::new(&CALLS),
            errors: Family::new(&ERRORS),
            bytes: Family::new(&BYTES),
            evicted: Family::new(&EVICTED),
            read_back: Family::new(&READ_BACK),
            sees_reads,
        }
    }

    pub fn call(&mut self, labels: &Labels, c: &fadvise_call) {
        self.calls.integer(Labels::clone(labels), c.calls);
        // No such call succeeds.
        if fadvise_advice(c.key.advice) != fadvise_advice::FADVISE_INVALID {
            self.bytes.integer(Labels::clone(labels), c.bytes);
        }
    }

    pub fn failure(&mut self, labels: &Labels, f: &fadvise_failure) {
        self.errors.integer(Labels::clone(labels), f.calls);
    }

    pub fn effect(&mut self, labels: &Labels, e: &fadvise_effect) {
        self.evicted.integer(Labels::clone(labels), e.evicted);
        if self.sees_reads {
            self.read_back.integer(Labels::clone(labels), e.read_back);
        }
    }

    /// In the order of [`ALL`].
    pub fn finish(self) -> Vec<Family> {
        vec![self.calls, self.errors, self.bytes, self.evicted, self.read_back]
    }
}
