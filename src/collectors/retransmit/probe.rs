//! Running: loads, attaches, reads the slots. The one file of this collector that deals with libbpf.

use std::mem::MaybeUninit;

use libbpf_rs::Object;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};

use super::decode::{Decoder, RESET_REASONS};
use super::metrics::{self, Families};
use super::skel::types::{
    retransmit_key, retransmit_reset_key, retransmit_resets, retransmit_segments, retransmit_timeouts,
};
use super::skel::{OpenRetransmitSkel, RetransmitSkel, RetransmitSkelBuilder};
use crate::bpf::load::{self, LoadError};
use crate::bpf::object::{self, Attachment};
use crate::bpf::plan::Plan;
use crate::bpf::slots::{self, Slot, SlotTable, Sum};
use crate::collectors::{CollectError, Collector, Limits, Objects, Setup};
use crate::identity::Identity;
use crate::snapshot::{Descriptor, Family, Labels};
use crate::status::MapReport;
use crate::target::Target;

/// Most label sets of each table, whatever `metrics.max_series` allows: few connections are in trouble at a time. With
/// `other` they fill whole pages and buckets; all maps together take about 0.7 MiB.
const MAX_SEGMENTS: u32 = 4095;
const MAX_TIMEOUTS: u32 = 2047;
const MAX_RESETS: u32 = 2047;

// SAFETY: generated from C structs that begin with `struct slot_head` and the key, as SLOT_TABLE asserts; all integers.
unsafe impl Slot for retransmit_segments {
    type Key = retransmit_key;
}
// SAFETY: as above.
unsafe impl Slot for retransmit_timeouts {
    type Key = retransmit_key;
}
// SAFETY: as above.
unsafe impl Slot for retransmit_resets {
    type Key = retransmit_reset_key;
}

impl Sum for retransmit_segments {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
    }
}

impl Sum for retransmit_timeouts {
    fn add(&mut self, other: &Self) {
        self.waited += other.waited;
    }
}

impl Sum for retransmit_resets {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
    }
}

struct Retransmit<'a> {
    skel: RetransmitSkel<'a>,
    attachment: Attachment,
    decoder: Decoder,
    limits: Limits,
    identity: Identity,
    target: Target,
    tick_ns: u64,
    segments: SlotTable<retransmit_segments, Labels>,
    timeouts: SlotTable<retransmit_timeouts, Labels>,
    resets: SlotTable<retransmit_resets, Labels>,
}

/// Loads and attaches.
pub fn start<'a>(setup: &Setup<'_>, objects: &'a Objects) -> Result<Box<dyn Collector + 'a>, LoadError> {
    let mut plan = setup.plan(&super::SPEC);
    let retransmit = load::load(&mut plan, setup.kernel, |plan| {
        let mut open = RetransmitSkelBuilder::default().open(objects.alloc(MaybeUninit::uninit()))?;
        prepare(&mut open, plan, setup)?;
        let mut retransmit = Retransmit::new(setup, open.load()?, plan)?;
        retransmit.attachment.hold(object::attach(retransmit.skel.object(), plan)?);
        Ok(retransmit)
    })?;
    Ok(Box::new(retransmit))
}

/// Everything that has to be settled before the kernel sees the programs.
fn prepare(open: &mut OpenRetransmitSkel<'_>, plan: &Plan, setup: &Setup<'_>) -> libbpf_rs::Result<()> {
    let object = open.open_object_mut();
    object::autoload(object, plan);
    setup.target.lend(object)?;
    setup.shared.lend_sockets(object)?;
    for (table, most) in [("segments", MAX_SEGMENTS), ("timeouts", MAX_TIMEOUTS), ("resets", MAX_RESETS)] {
        slots::size(object, table, setup.limits.max_series.min(most))?;
    }
    Ok(())
}

impl<'a> Retransmit<'a> {
    fn new(setup: &Setup<'_>, skel: RetransmitSkel<'a>, plan: &Plan) -> libbpf_rs::Result<Retransmit<'a>> {
        let object = skel.object();
        Ok(Retransmit {
            decoder: Decoder::new(setup.identity.clone(), setup.kernel.enumeration(RESET_REASONS)),
            limits: setup.limits,
            identity: setup.identity.clone(),
            target: setup.target.clone(),
            tick_ns: setup.kernel.tick_ns,
            segments: SlotTable::new(object, "segments")?,
            timeouts: SlotTable::new(object, "timeouts")?,
            resets: SlotTable::new(object, "resets")?,
            skel,
            attachment: Attachment::new(plan),
        })
    }
}

impl Collector for Retransmit<'_> {
    fn collect(&mut self, _now_ns: u64) -> Result<Vec<Family>, CollectError> {
        let mapping = CollectError::during("mapping the series");
        let (decoder, target) = (&self.decoder, &self.target);
        let mut families = Families::new();
        let generation = self.identity.generation();
        let segments = |slot, key: &retransmit_key| target.name(slot, key.who.cgroup, || decoder.segments(slot, key));
        for (labels, s) in self.segments.sums(generation, segments).map_err(&mapping)? {
            families.segments(labels, &s);
        }
        let timeouts = |slot, key: &retransmit_key| target.name(slot, key.who.cgroup, || decoder.timeouts(slot, key));
        for (labels, t) in self.timeouts.sums(generation, timeouts).map_err(&mapping)? {
            families.timeout(labels, &t, self.tick_ns);
        }
        let resets = |slot, key: &retransmit_reset_key| target.name(slot, key.who.cgroup, || decoder.resets(slot, key));
        for (labels, r) in self.resets.sums(generation, resets).map_err(&mapping)? {
            families.resets(labels, &r);
        }
        Ok(families.finish())
    }

    fn tick(&mut self, now_ns: u64) -> Result<(), CollectError> {
        let ttl_ns = self.limits.idle_ttl.as_nanos() as u64;
        let idle = |last_ns: u64| now_ns.saturating_sub(last_ns) > ttl_ns;
        let expiring = CollectError::during("expiring idle series");
        self.segments.expire(|s| idle(s.head.last_ns), |_, _| ()).map_err(&expiring)?;
        self.timeouts.expire(|t| idle(t.head.last_ns), |_, _| ()).map_err(&expiring)?;
        self.resets.expire(|r| idle(r.head.last_ns), |_, _| ()).map_err(&expiring)
    }

    fn object(&self) -> &Object {
        self.skel.object()
    }

    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn attachment_mut(&mut self) -> &mut Attachment {
        &mut self.attachment
    }

    fn maps(&self) -> Vec<MapReport> {
        vec![self.segments.report(), self.timeouts.report(), self.resets.report()]
    }

    fn folded(&self) -> Vec<(&'static Descriptor, u64)> {
        vec![
            (&metrics::SEGMENTS, self.segments.folded()),
            (&metrics::TIMEOUT, self.timeouts.folded()),
            (&metrics::RESETS, self.resets.folded()),
        ]
    }
}
