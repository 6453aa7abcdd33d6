//! The userspace side of a slot table (`bpf/include/slots.bpf.h`): reading the slots in place, and giving idle ones back.

mod groups;
mod mapping;
mod percpu;

use std::hash::Hash;
use std::io;

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, OpenObject};

use super::object;
use super::own;
use super::plain::{Plain, from_bytes};
use super::plan::Plan;
use crate::status::MapReport;
use groups::Groups;
pub use groups::Sum;
use mapping::Mapping;
pub use percpu::{Counts, CpuTable, SlotUse, size_percpu};

/// `struct slot_head`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotHead {
    /// CLOCK_MONOTONIC of the last use.
    pub last_ns: u64,
    /// Grows each time a program takes the slot for its key.
    pub joins: u32,
    dead: u32,
}

/// `struct slot_pool`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct SlotPool {
    next: u32,
    max: u32,
    folded: u64,
}

// SAFETY: as it stands here.
unsafe impl Plain for SlotPool {}

/// A value of a slot table.
///
/// # Safety
/// The type is `repr(C)`, begins with `struct slot_head`, the key follows, and all-zero and any other bytes are a value.
pub unsafe trait Slot: Copy {
    /// The key as it stands in the value.
    type Key: Copy;
}

/// One slot table. Slot 0 is `other`. Slots are named by what is made of their keys, such as labels.
#[derive(Debug)]
pub struct SlotTable<V: Slot, L> {
    slots: Slots<V>,
    groups: Groups<V::Key, L, V>,
}

/// The maps of a table.
#[derive(Debug)]
struct Slots<V> {
    name: &'static str,
    array: MapHandle,
    index: MapHandle,
    freed: MapHandle,
    pool: MapHandle,
    capacity: u32,
    /// Of the maps that are as large empty as full: all but the index.
    fixed_bytes: u64,
    mapping: Mapping<V>,
    /// How many were ever in use, or may be.
    used: usize,
    /// Programs take all slots from the queue.
    queued: bool,
    /// Out of the index for at least one round, so that no program holds them any more.
    retired: Vec<u32>,
}

/// Makes room for `max` label sets and `other` in the table of that name, before the object is loaded. Its pool is
/// filled by [`SlotTable::new`]; until then everything is counted in `other`.
///
/// # Errors
/// If the object has no such table, or is loaded already.
pub fn size(object: &mut OpenObject, name: &str, max: u32) -> libbpf_rs::Result<()> {
    for suffix in ["", "_index", "_freed"] {
        object::open_map(object, &format!("{name}{suffix}"))?.set_max_entries(max + 1)?;
    }
    Ok(())
}

impl<V: Slot, L> SlotTable<V, L> {
    /// Over the maps of the table of that name, which was given its size by [`size`]; the plan knows the kernel.
    ///
    /// # Errors
    /// If the array cannot be mapped.
    pub fn new(object: &Object, name: &'static str, plan: &Plan) -> libbpf_rs::Result<Self> {
        Ok(SlotTable { slots: Slots::new(object, name, plan)?, groups: Groups::default() })
    }

    /// Slots in use and their values as they are; none has a name.
    ///
    /// # Errors
    /// As for [`SlotTable::sums`].
    pub fn each(&mut self) -> io::Result<impl Iterator<Item = (u32, V)>> {
        let live = self.slots.live()?;
        let mapping = &self.slots.mapping;
        Ok(live.into_iter().map(|slot| (slot, mapping.read(slot as usize))))
    }

    /// How often something was counted in `other`.
    pub fn folded(&self) -> u64 {
        self.slots.pool().folded
    }

    /// Its maps as one.
    pub fn report(&self) -> MapReport {
        self.slots.report()
    }
}

impl<V: Slot + Sum, L: Clone + Eq + Hash> SlotTable<V, L> {
    /// What was counted under each name, `other` first if anything was counted there. `name` is asked once for each slot
    /// (one without a name is not shown, and asked for again), and for all of them when `generation` is another than last time.
    ///
    /// # Errors
    /// If the array has grown and cannot be mapped further.
    pub fn sums(
        &mut self,
        generation: u64,
        name: impl FnMut(u32, &V::Key) -> Option<L>,
    ) -> io::Result<impl Iterator<Item = (&L, V)>> {
        let live = self.slots.live()?;
        self.groups.name(&self.slots.keys(&live), &self.slots.keys(&self.slots.retired), generation, name);
        let (slots, groups) = (&self.slots, &self.groups);
        let merged = groups.sums(&live, &slots.retired, |slot| io::Result::Ok(slots.mapping.read(slot as usize)))?;
        let shown = move |slot| Some((groups.of(slot)?, merged.show(slot, slots.mapping.read(slot as usize))?));
        Ok(live.into_iter().filter_map(shown))
    }

    /// Retires slots that `idle` says nobody needs, and recycles those retired in the round before; `last` sees what was
    /// counted under each name that ends. Call it at most once per interval: the time between two rounds is what lets a
    /// program that had just looked a slot up finish with it.
    ///
    /// # Errors
    /// If a map operation fails; the table stays consistent, and the slot is tried again.
    pub fn expire(&mut self, idle: impl Fn(&V) -> bool, mut last: impl FnMut(&L, &V)) -> libbpf_rs::Result<()> {
        let groups = &mut self.groups;
        self.slots.recycle(|slots, slot| {
            groups.leave(slot, slots.mapping.key(slot as usize), &slots.mapping.read(slot as usize));
            Ok(())
        })?;
        let retire = |slots: &Slots<V>, slot| {
            let read = |slot| Ok::<_, libbpf_rs::Error>(slots.mapping.read(slot as usize));
            if let Some((name, total)) = groups.retire(slot, &slots.retired, read)? {
                last(&name, &total);
            }
            Ok(())
        };
        let look = |mapping: &Mapping<V>, slot| Ok((mapping.head(slot).joins, idle(&mapping.read(slot))));
        self.slots.retire(look, retire)
    }
}

impl<V: Slot> Slots<V> {
    fn new(object: &Object, name: &'static str, plan: &Plan) -> libbpf_rs::Result<Self> {
        let map = |suffix: &str| object::map(object, &format!("{name}{suffix}"));
        let (array, index, freed, pool) = (map("")?, map("_index")?, map("_freed")?, map("_pool")?);
        let capacity = array.max_entries();
        // Before 5.12 programs cannot take numbers one by one: the queue has them all, and all of them may be in use.
        let queued = !plan.has_fetch();
        for slot in (1..capacity).filter(|_| queued) {
            freed.update(&[], &slot.to_ne_bytes(), MapFlags::ANY)?;
        }
        let used = if queued { capacity } else { 1 };
        let fresh = SlotPool { next: used, max: capacity, folded: 0 };
        pool.update(&FIRST, fresh.as_bytes(), MapFlags::ANY)?;
        let mapping = Mapping::new(&array, used as usize)?;
        let fixed_bytes = [&array, &freed, &pool].into_iter().filter_map(own::map_bytes).sum();
        let (used, retired) = (0, Vec::new());
        Ok(Slots { name, array, index, freed, pool, capacity, fixed_bytes, mapping, used, queued, retired })
    }

    /// Slots that are in use.
    fn live(&mut self) -> io::Result<Vec<u32>> {
        self.used = self.pool().next.clamp(1, self.capacity) as usize;
        if self.used > self.mapping.slots {
            self.mapping = Mapping::new(&self.array, (self.used * 2).min(self.capacity as usize))?;
        }
        let is_live = |slot: &u32| {
            let head = self.mapping.head(*slot as usize);
            head.joins > 0 && head.dead == 0
        };
        Ok((0..self.used as u32).filter(is_live).collect())
    }

    fn keys(&self, slots: &[u32]) -> Vec<(u32, V::Key)> {
        slots.iter().map(|&slot| (slot, self.mapping.key(slot as usize))).collect()
    }

    /// Gives back what was retired in the round before; `clear` comes before each.
    fn recycle(&mut self, mut clear: impl FnMut(&Self, u32) -> libbpf_rs::Result<()>) -> libbpf_rs::Result<()> {
        while let Some(&slot) = self.retired.last() {
            clear(self, slot)?;
            self.mapping.clear(slot as usize);
            self.freed.update(&[], &slot.to_ne_bytes(), MapFlags::ANY)?;
            self.retired.pop();
        }
        Ok(())
    }

    /// `look` tells how often a slot was joined, and whether it is idle; `ends` is told of each that is retired, before it
    /// is among the others.
    fn retire(
        &mut self,
        look: impl Fn(&Mapping<V>, usize) -> libbpf_rs::Result<(u32, bool)>,
        mut ends: impl FnMut(&Self, u32) -> libbpf_rs::Result<()>,
    ) -> libbpf_rs::Result<()> {
        for slot in 1..self.used {
            let head = self.mapping.head(slot);
            if head.joins == 0 || head.dead != 0 {
                continue;
            }
            let (joins, idle) = look(&self.mapping, slot)?;
            if !idle {
                continue;
            }
            self.mapping.set_dead(slot, true);
            // A program that took it since then may not have seen that it is dead.
            if look(&self.mapping, slot)?.0 == joins {
                self.index.delete(self.mapping.key_bytes(slot))?;
                let ended = ends(self, slot as u32);
                self.retired.push(slot as u32);
                ended?;
            } else {
                self.mapping.set_dead(slot, false);
            }
        }
        Ok(())
    }

    fn pool(&self) -> SlotPool {
        let bytes = self.pool.lookup(&FIRST, MapFlags::ANY).ok().flatten();
        bytes.map_or_else(SlotPool::default, |bytes| from_bytes(&bytes))
    }

    /// Without `other`.
    fn ever_used(&self) -> u64 {
        (1..self.capacity).filter(|&slot| self.mapping.head(slot as usize).joins > 0).count() as u64
    }

    fn report(&self) -> MapReport {
        let pool = self.pool();
        MapReport {
            name: self.name.to_owned(),
            entries: Some(if self.queued {
                self.ever_used()
            } else {
                u64::from(pool.next.min(pool.max)).saturating_sub(1)
            }),
            bytes: self.fixed_bytes + own::map_bytes(&self.index).unwrap_or(0),
            full: Some(pool.folded),
        }
    }
}

/// The key of the only element of an array.
const FIRST: [u8; 4] = [0; 4];
