//! Running: loads, attaches, reads. The one file of this collector that deals with libbpf.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, Object};

use super::decode;
use super::metrics::{self, Families};
use super::skel::types::{
    bss, fadvise_block, fadvise_call, fadvise_call_key, fadvise_effect, fadvise_failure, fadvise_failure_key, who,
};
use super::skel::{FadviseSkel, FadviseSkelBuilder, OpenFadviseSkel};
use crate::bpf::load::{self, LoadError};
use crate::bpf::object::{self, Attachment};
use crate::bpf::own;
use crate::bpf::plain::{Plain, from_bytes};
use crate::bpf::plan::Plan;
use crate::bpf::slots::{self, Slot, SlotTable, Sum};
use crate::collectors::{CollectError, Collector, Limits, Objects, Setup};
use crate::identity::Identity;
use crate::snapshot::{Descriptor, Family, Labels};
use crate::status::MapReport;
use crate::target::Target;

/// Label sets, with `other` a power of two, as hash tables like it. Names of processes times seven advices.
const MAX_CALLS: u32 = 2047;

/// Names of processes, and what goes wrong with a few of them.
const MAX_OTHERS: u32 = 1023;

/// How many blocks are asked for at once.
const BATCH: u32 = 1024;

// SAFETY: generated from a C struct of integers without padding.
unsafe impl Plain for fadvise_block {}

// SAFETY: generated from C structs that begin with `struct slot_head` and the key, as SLOT_TABLE asserts; all integers.
unsafe impl Slot for fadvise_call {
    type Key = fadvise_call_key;
}
// SAFETY: as above.
unsafe impl Slot for fadvise_failure {
    type Key = fadvise_failure_key;
}
// SAFETY: as above.
unsafe impl Slot for fadvise_effect {
    type Key = who;
}

impl Sum for fadvise_call {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.bytes += other.bytes;
    }
}

impl Sum for fadvise_failure {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
    }
}

impl Sum for fadvise_effect {
    fn add(&mut self, other: &Self) {
        self.evicted += other.evicted;
        self.read_back += other.read_back;
    }
}

struct Fadvise<'a> {
    skel: FadviseSkel<'a>,
    attachment: Attachment,
    limits: Limits,
    identity: Identity,
    target: Target,
    window_ns: u64,
    calls: SlotTable<fadvise_call, Labels>,
    failures: SlotTable<fadvise_failure, Labels>,
    effects: SlotTable<fadvise_effect, Labels>,
}

/// Loads and attaches.
pub fn start<'a>(setup: &Setup<'_>, objects: &'a Objects) -> Result<Box<dyn Collector + 'a>, LoadError> {
    let mut plan = setup.plan(&super::SPEC);
    let fadvise = load::load(&mut plan, setup.kernel, |plan| {
        let mut open = FadviseSkelBuilder::default().open(objects.alloc(MaybeUninit::uninit()))?;
        prepare(&mut open, plan, setup)?;
        let mut fadvise = Fadvise::new(setup, open.load()?, plan)?;
        fadvise.attachment.hold(object::attach(fadvise.skel.object(), plan)?);
        Ok(fadvise)
    })?;
    Ok(Box::new(fadvise))
}

/// Everything that has to be settled before the kernel sees the programs.
fn prepare(open: &mut OpenFadviseSkel<'_>, plan: &Plan, setup: &Setup<'_>) -> libbpf_rs::Result<()> {
    let rodata = open.maps.rodata_data.as_deref_mut().expect("the object has read-only data");
    rodata.window_ns = if sees_reads(plan) { window_ns(setup) } else { 0 };
    let object = open.open_object_mut();
    object::autoload(object, plan);
    setup.target.lend(object)?;
    slots::size(object, "calls", setup.limits.max_series.min(MAX_CALLS))?;
    slots::size(object, "failures", setup.limits.max_series.min(MAX_OTHERS))?;
    slots::size(object, "effects", setup.limits.max_series.min(MAX_OTHERS))
}

fn sees_reads(plan: &Plan) -> bool {
    plan.takes("fadvise_read_back")
}

fn window_ns(setup: &Setup<'_>) -> u64 {
    u64::try_from(setup.config.fadvise.own.read_back_window.as_nanos()).unwrap_or(u64::MAX)
}

impl<'a> Fadvise<'a> {
    fn new(setup: &Setup<'_>, skel: FadviseSkel<'a>, plan: &Plan) -> libbpf_rs::Result<Fadvise<'a>> {
        let object = skel.object();
        Ok(Fadvise {
            limits: setup.limits,
            identity: setup.identity.clone(),
            target: setup.target.clone(),
            window_ns: window_ns(setup),
            calls: SlotTable::new(object, "calls")?,
            failures: SlotTable::new(object, "failures")?,
            effects: SlotTable::new(object, "effects")?,
            skel,
            attachment: Attachment::new(plan),
        })
    }

    /// A word that programs write to as well.
    fn word(&self, of: impl Fn(&bss) -> &u64) -> &AtomicU64 {
        let word: *const u64 = of(self.skel.maps.bss_data.as_deref().expect("the object has data"));
        // SAFETY: an aligned word of the mapping, which lives as long as the skeleton; programs store whole words to it.
        unsafe { AtomicU64::from_ptr(word.cast_mut()) }
    }

    /// Takes out the blocks whose time has come. One in which pages are evicted again right now may go with its news, which
    /// then do not count as read back.
    fn forget(&self, is_old: impl Fn(&fadvise_block) -> bool) -> libbpf_rs::Result<()> {
        let blocks = &self.skel.maps.blocks;
        let mut old = Vec::new();
        for (key, value) in blocks.lookup_batch(BATCH, MapFlags::ANY, MapFlags::ANY)? {
            if is_old(&from_bytes(&value)) {
                old.push(key);
            }
        }
        for key in old {
            blocks.delete(&key)?;
            self.word(|data| &data.blocks_held).fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has the programs look for nothing any more, when there is nothing that could be read back in time.
    fn rest(&self, now_ns: u64) {
        let remembered = self.word(|data| &data.remembered_ns);
        let last = remembered.load(Ordering::SeqCst);
        if now_ns.saturating_sub(last) > self.window_ns {
            // Unless something was evicted at this moment.
            let _ = remembered.compare_exchange(last, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
}

impl Collector for Fadvise<'_> {
    fn collect(&mut self, _now_ns: u64) -> Result<Vec<Family>, CollectError> {
        let mapping = CollectError::during("mapping the series");
        let mut families = Families::new(sees_reads(&self.attachment.plan));
        let (identity, target, generation) = (&self.identity, &self.target, self.identity.generation());
        let call =
            |slot, key: &fadvise_call_key| target.name(slot, key.who.cgroup, || decode::call(slot, key, identity));
        for (labels, c) in self.calls.sums(generation, call).map_err(&mapping)? {
            families.call(labels, &c);
        }
        let failure = |slot, key: &fadvise_failure_key| {
            target.name(slot, key.who.cgroup, || decode::failure(slot, key, identity))
        };
        for (labels, f) in self.failures.sums(generation, failure).map_err(&mapping)? {
            families.failure(labels, &f);
        }
        let effect = |slot, key: &who| target.name(slot, key.cgroup, || decode::effect(slot, key, identity));
        for (labels, e) in self.effects.sums(generation, effect).map_err(&mapping)? {
            families.effect(labels, &e);
        }
        Ok(families.finish())
    }

    fn tick(&mut self, now_ns: u64) -> Result<(), CollectError> {
        let window_ns = self.window_ns;
        let forgetting = CollectError::during("forgetting evicted pages");
        self.forget(|block| now_ns.saturating_sub(block.evicted_ns) > window_ns).map_err(forgetting)?;
        self.rest(now_ns);
        let ttl_ns = self.limits.idle_ttl.as_nanos() as u64;
        let idle = |last_ns: u64, ttl_ns: u64| now_ns.saturating_sub(last_ns) > ttl_ns;
        let expiring = CollectError::during("expiring idle series");
        self.calls.expire(|c| idle(c.head.last_ns, ttl_ns), |_, _| ()).map_err(&expiring)?;
        self.failures.expire(|f| idle(f.head.last_ns, ttl_ns), |_, _| ()).map_err(&expiring)?;
        // Blocks point to these, and count for as long as they are recent.
        self.effects.expire(|e| idle(e.head.last_ns, ttl_ns.max(window_ns)), |_, _| ()).map_err(&expiring)
    }

    fn resume(&mut self, _now_ns: u64) -> Result<(), CollectError> {
        // Pages may have come and gone.
        self.forget(|_| true).map_err(CollectError::during("forgetting evicted pages"))?;
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
        let blocks = &self.skel.maps.blocks;
        vec![
            self.calls.report(),
            self.failures.report(),
            self.effects.report(),
            MapReport {
                name: "blocks".to_owned(),
                entries: Some(self.word(|data| &data.blocks_held).load(Ordering::Relaxed)),
                bytes: own::map_bytes(blocks).unwrap_or(0),
                full: Some(self.word(|data| &data.forgotten).load(Ordering::Relaxed)),
            },
        ]
    }

    fn folded(&self) -> Vec<(&'static Descriptor, u64)> {
        let tables = [
            (metrics::OF_CALL, self.calls.folded()),
            (metrics::OF_FAILURE, self.failures.folded()),
            (metrics::OF_EFFECT, self.effects.folded()),
        ];
        tables.iter().flat_map(|(families, folded)| families.iter().map(|family| (*family, *folded))).collect()
    }
}
