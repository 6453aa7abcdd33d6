//! Running: loads, attaches, reads. The one file of this collector that deals with libbpf.

use std::collections::HashMap;
use std::mem::MaybeUninit;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, Object};

use super::skel::types::{bss, drops_counts, drops_function, drops_key, drops_name, drops_slot};
use super::skel::{DropsSkel, DropsSkelBuilder, OpenDropsSkel};
use super::{
    decode, metrics,
    reasons::{self, Reasons},
};
use crate::bpf::enums::module_enumeration;
use crate::bpf::load::{self, LoadError};
use crate::bpf::object::{self, Attachment};
use crate::bpf::own;
use crate::bpf::plain::Plain;
use crate::bpf::plan::Plan;
use crate::bpf::slots::{self, Counts, CpuTable, Slot, SlotTable};
use crate::collectors::labels::OTHER;
use crate::collectors::{CollectError, Collector, Limits, Objects, Setup};
use crate::identity::Identity;
use crate::snapshot::{Descriptor, Family, Labels};
use crate::status::MapReport;
use crate::target::Target;

/// A host has some dozens of reasons, functions and services in use; a slot takes 24 bytes for each CPU.
const MAX_SERIES: u32 = 2048;

/// The whole kernel has about so many functions that drop packets.
const MAX_FUNCTIONS: u32 = 512;

/// As in `drops.h`.
const FUNCTION_UNKNOWN: u32 = u32::MAX;

// SAFETY: generated from C structs that begin with `struct slot_head` and the key, as SLOT_TABLE asserts; all integers.
unsafe impl Slot for drops_slot {
    type Key = drops_key;
}
// SAFETY: as above.
unsafe impl Slot for drops_function {
    type Key = drops_name;
}
// SAFETY: generated from a C struct of integers without padding.
unsafe impl Plain for drops_counts {}
// SAFETY: begins with `struct slot_use`, as SLOT_TABLE_PERCPU asserts; a word of 64 bits follows.
unsafe impl Counts for drops_counts {}

struct Drops<'a> {
    skel: DropsSkel<'a>,
    attachment: Attachment,
    limits: Limits,
    identity: Identity,
    target: Target,
    reasons: Reasons,
    drops: CpuTable<drops_slot, drops_counts, Labels>,
    functions: SlotTable<drops_function, ()>,
}

/// Loads and attaches.
pub fn start<'a>(setup: &Setup<'_>, objects: &'a Objects) -> Result<Box<dyn Collector + 'a>, LoadError> {
    let mut plan = setup.plan(&super::SPEC);
    let drops = load::load(&mut plan, setup.kernel, |plan| {
        let mut open = DropsSkelBuilder::default().open(objects.alloc(MaybeUninit::uninit()))?;
        prepare(&mut open, plan, setup)?;
        let mut drops = Drops::new(setup, open.load()?, plan)?;
        drops.attachment.hold(object::attach(drops.skel.object(), plan)?);
        Ok(drops)
    })?;
    Ok(Box::new(drops))
}

/// Everything that has to be settled before the kernel sees the programs.
fn prepare(open: &mut OpenDropsSkel<'_>, plan: &Plan, setup: &Setup<'_>) -> libbpf_rs::Result<()> {
    let object = open.open_object_mut();
    object::autoload(object, plan);
    setup.target.lend(object)?;
    setup.shared.lend_sockets(object)?;
    slots::size_percpu(object, "drops", setup.limits.max_series.min(MAX_SERIES))?;
    slots::size(object, "function", setup.limits.max_series.min(MAX_FUNCTIONS))
}

impl<'a> Drops<'a> {
    fn new(setup: &Setup<'_>, skel: DropsSkel<'a>, plan: &Plan) -> libbpf_rs::Result<Drops<'a>> {
        // Where the tracepoint tells none, every drop would have the first one.
        let told = |name| if plan.takes("drops_bare") { &[] } else { setup.kernel.enumeration(name) };
        Ok(Drops {
            limits: setup.limits,
            identity: setup.identity.clone(),
            target: setup.target.clone(),
            reasons: Reasons::new(told(reasons::CORE), told(reasons::SUBSYSTEMS)),
            drops: CpuTable::new(skel.object(), "drops")?,
            functions: SlotTable::new(skel.object(), "function")?,
            skel,
            attachment: Attachment::new(plan),
        })
    }

    /// How often `places` had no room. Programs add to it at any time.
    fn places_full(&self) -> u64 {
        let data: *const bss = &raw const **self.skel.maps.bss_data.as_ref().expect("the object has data");
        // SAFETY: mapped for as long as the skeleton lives.
        unsafe { (&raw const (*data).places_full).read_volatile() }
    }
}

impl Collector for Drops<'_> {
    fn collect(&mut self, _now_ns: u64) -> Result<Vec<Family>, CollectError> {
        let functions = self.functions.each().map_err(CollectError::during("mapping the functions"))?;
        let functions: HashMap<_, _> = functions.map(|(slot, function)| (slot, function.key)).collect();
        let location = |slot| match functions.get(&slot) {
            _ if slot == FUNCTION_UNKNOWN => String::new(),
            Some(name) if slot != 0 => decode::function(name),
            _ => OTHER.to_owned(),
        };
        let (identity, generation, reasons) = (&self.identity, self.identity.generation(), &mut self.reasons);
        let target = &self.target;
        let name = |slot, key: &drops_key| {
            target.name(slot, key.who.cgroup, || {
                let reason = reasons.name(key.reason, |of| module_enumeration(of.module, of.enumeration));
                decode::series(slot, key, identity, reason, location(key.function))
            })
        };
        let mut drops = Family::new(&metrics::DROPS);
        for (labels, counts) in self.drops.sums(generation, name).map_err(CollectError::during("reading the drops"))? {
            drops.integer(Labels::clone(labels), counts.packets);
        }
        Ok(vec![drops])
    }

    fn tick(&mut self, now_ns: u64) -> Result<(), CollectError> {
        let ttl_ns = self.limits.idle_ttl.as_nanos() as u64;
        let idle = |last_ns: u64| now_ns.saturating_sub(last_ns) > ttl_ns;
        self.drops.expire(idle).map_err(CollectError::during("expiring idle series"))
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
        let places = &self.skel.maps.places;
        vec![
            self.drops.report(),
            self.functions.report(),
            MapReport {
                name: "places".to_owned(),
                entries: Some(places.keys().count() as u64),
                bytes: own::map_bytes(places).unwrap_or(0),
                full: Some(self.places_full()),
            },
        ]
    }

    fn folded(&self) -> Vec<(&'static Descriptor, u64)> {
        vec![(&metrics::DROPS, self.drops.folded())]
    }
}
