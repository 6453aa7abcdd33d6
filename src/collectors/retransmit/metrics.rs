//! The families of this collector: what each means, and how slots become samples. Pure.

use super::skel::types::{retransmit_resets, retransmit_segments, retransmit_timeouts};
use crate::snapshot::{Descriptor, Family, Labels};

pub static SEGMENTS: Descriptor = Descriptor::counter(
    "retransmit",
    "sidecar_retransmit_segments_total",
    "",
    "TCP segments sent again, by what made the kernel do so and by the state of the connection; sums to RetransSegs of /proc/net/snmp.",
);
pub static TIMEOUT: Descriptor = Descriptor::counter(
    "retransmit",
    "sidecar_retransmit_timeout_seconds_total",
    "seconds",
    "Time that connections waited before a SYN or data was sent again because the retransmission timer ran out: the sum of these timeouts (icsk_rto).",
);
pub static RESETS: Descriptor = Descriptor::counter(
    "retransmit",
    "sidecar_resets_total",
    "",
    "TCP resets: sent, with the kernel's reason, which sums to OutRsts of /proc/net/snmp, and received by a connection.",
);

/// All of them, in the order in which they are shown.
pub const ALL: &[&Descriptor] = &[&SEGMENTS, &TIMEOUT, &RESETS];

/// Everything that one collection finds.
pub struct Families {
    segments: Family,
    timeout: Family,
    resets: Family,
}

impl Families {
    pub fn new() -> Families {
        Families { segments: Family::new(&SEGMENTS), timeout: Family::new(&TIMEOUT), resets: Family::new(&RESETS) }
    }

    pub fn segments(&mut self, labels: &Labels, s: &retransmit_segments) {
        self.segments.integer(Labels::clone(labels), s.count);
    }

    /// `tick_ns` is the length of a jiffy.
    pub fn timeout(&mut self, labels: &Labels, t: &retransmit_timeouts, tick_ns: u64) {
        self.timeout.number(Labels::clone(labels), t.waited as f64 * tick_ns as f64 / 1e9);
    }

    pub fn resets(&mut self, labels: &Labels, r: &retransmit_resets) {
        self.resets.integer(Labels::clone(labels), r.count);
    }

    /// In the order of [`ALL`].
    pub fn finish(self) -> Vec<Family> {
        vec![self.segments, self.timeout, self.resets]
    }
}
