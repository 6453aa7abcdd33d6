//! Running: loads, attaches, reads. The one file of this collector that deals with libbpf.

use std::mem::MaybeUninit;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, Object};

use super::decode;
use super::metrics::{self, Families};
use super::skel::types::{reclaim_key, reclaim_stall};
use super::skel::{OpenReclaimSkel, ReclaimSkel, ReclaimSkelBuilder};
use super::vmstat::{self, Vmstat};
use crate::bpf::load::{self, LoadError};
use crate::bpf::object::{self, Attachment};
use crate::bpf::own;
use crate::bpf::plan::Plan;
use crate::bpf::slots::{self, Slot, SlotTable, Sum};
use crate::collectors::{CollectError, Collector, Limits, Objects, Setup};
use crate::identity::Identity;
use crate::snapshot::{Descriptor, Family, Labels};
use crate::status::MapReport;
use crate::target::Target;

/// A histogram takes 1.7 kB a slot, and there is one for each process name and scope: this many are plenty.
const MAX_STALLS: u32 = 512;

// SAFETY: generated from a C struct that begins with `struct slot_head` and the key, as SLOT_TABLE asserts; all integers.
unsafe impl Slot for reclaim_stall {
    type Key = reclaim_key;
}

impl Sum for reclaim_stall {
    fn add(&mut self, other: &Self) {
        self.time.sum += other.time.sum;
        self.time.counts.iter_mut().zip(other.time.counts).for_each(|(count, more)| *count += more);
    }
}

struct Reclaim<'a> {
    skel: ReclaimSkel<'a>,
    attachment: Attachment,
    limits: Limits,
    identity: Identity,
    target: Target,
    stalls: SlotTable<reclaim_stall, Labels>,
    vmstat: Vmstat,
}

/// Loads and attaches; the kernel's own counters count from here on.
pub fn start<'a>(setup: &Setup<'_>, objects: &'a Objects) -> Result<Box<dyn Collector + 'a>, LoadError> {
    let tells_cgroups = vmstat::tells_cgroups(setup.kernel.enumeration(vmstat::NODE_STATS));
    let mut plan = setup.plan(&super::SPEC);
    let reclaim = load::load(&mut plan, setup.kernel, |plan| {
        let mut open = ReclaimSkelBuilder::default().open(objects.alloc(MaybeUninit::uninit()))?;
        prepare(&mut open, plan, setup)?;
        let skel = open.load()?;
        let stalls = SlotTable::new(skel.object(), "stalls", plan)?;
        let mut attachment = Attachment::new(plan);
        attachment.hold(object::attach(skel.object(), plan)?);
        let vmstat = Vmstat::new(tells_cgroups)?;
        let (limits, identity, target) = (setup.limits, setup.identity.clone(), setup.target.clone());
        Ok(Reclaim { skel, attachment, limits, identity, target, stalls, vmstat })
    })?;
    Ok(Box::new(reclaim))
}

/// Everything that has to be settled before the kernel sees the programs.
fn prepare(open: &mut OpenReclaimSkel<'_>, plan: &Plan, setup: &Setup<'_>) -> libbpf_rs::Result<()> {
    let object = open.open_object_mut();
    object::autoload(object, plan)?;
    setup.target.lend(object)?;
    slots::size(object, "stalls", setup.limits.max_series.min(MAX_STALLS))
}

impl Reclaim<'_> {
    /// Programs write to it at any time: some value that it had during the call.
    fn marks_full(&self) -> u64 {
        let full = &raw const self.skel.maps.bss_data.as_ref().expect("the object has data").marks_full;
        // SAFETY: mapped for as long as the skeleton lives.
        unsafe { full.read_volatile() }
    }

    /// Threads that reclaim right now, or did when the programs were detached.
    fn marked(&self) -> Vec<Vec<u8>> {
        self.skel.maps.marks.keys().collect()
    }
}

impl Collector for Reclaim<'_> {
    fn collect(&mut self, _now_ns: u64) -> Result<Vec<Family>, CollectError> {
        let mut families = Families::new();
        let (identity, target) = (&self.identity, &self.target);
        let name = |slot, key: &reclaim_key| target.name(slot, key.who.cgroup, || decode::stall(slot, key, identity));
        let stalls = self.stalls.sums(self.identity.generation(), name);
        for (labels, stall) in stalls.map_err(CollectError::during("mapping the series"))? {
            families.stall(labels, &stall);
        }
        // They are of the whole node, and tell nothing of the processes that are watched.
        if !self.target.is_by_process() {
            for (key, &pages) in self.vmstat.gained().map_err(CollectError::during("reading /proc/vmstat"))? {
                families.pages(key, pages);
            }
        }
        Ok(families.finish())
    }

    fn tick(&mut self, now_ns: u64) -> Result<(), CollectError> {
        let ttl_ns = self.limits.idle_ttl.as_nanos() as u64;
        let idle = |stall: &reclaim_stall| now_ns.saturating_sub(stall.head.last_ns) > ttl_ns;
        self.stalls.expire(idle, |_, _| ()).map_err(CollectError::during("expiring idle series"))
    }

    fn resume(&mut self, _now_ns: u64) -> Result<(), CollectError> {
        // The ends of these were missed.
        for thread in self.marked() {
            self.skel.maps.marks.delete(&thread).map_err(CollectError::during("forgetting stalls"))?;
        }
        self.reattach()
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
        let marks = MapReport {
            name: "marks".to_owned(),
            entries: Some(self.marked().len() as u64),
            bytes: own::map_bytes(&self.skel.maps.marks).unwrap_or(0),
            full: Some(self.marks_full()),
        };
        vec![self.stalls.report(), marks]
    }

    fn folded(&self) -> Vec<(&'static Descriptor, u64)> {
        metrics::OF_STALLS.iter().map(|family| (*family, self.stalls.folded())).collect()
    }
}
