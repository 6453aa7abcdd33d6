//! The userspace side of a slot table (`bpf/include/slots.bpf.h`): reading the slots in place, and giving idle ones back.

mod mapping;
mod percpu;

use std::io;

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, OpenObject};

use super::object;
use super::own;
use super::plain::{Plain, from_bytes};
use crate::status::MapReport;
use mapping::Mapping;
pub use percpu::{Counted, Counts, CpuTable, SlotUse, size_percpu};

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

/// One slot table. Slot 0 is `other`.
#[derive(Debug)]
pub struct SlotTable<V, C> {
    name: &'static str,
    array: MapHandle,
    index: MapHandle,
    freed: MapHandle,
    pool: MapHandle,
    capacity: u32,
    /// Of the maps that are as large empty as full: all but the index.
    fixed_bytes: u64,
    mapping: Mapping<V>,
    /// What the owner of the table remembers of each slot in use, until it is recycled.
    memory: Vec<Option<C>>,
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

impl<V: Slot, C> SlotTable<V, C> {
    /// Over the maps of the table of that name, which was given its size by [`size`].
    ///
    /// # Errors
    /// If the array cannot be mapped.
    pub fn new(object: &Object, name: &'static str) -> libbpf_rs::Result<Self> {
        let map = |suffix: &str| object::map(object, &format!("{name}{suffix}"));
        let (array, index, freed, pool) = (map("")?, map("_index")?, map("_freed")?, map("_pool")?);
        let capacity = array.max_entries();
        let fresh = SlotPool { next: 1, max: capacity, folded: 0 };
        pool.update(&FIRST, fresh.as_bytes(), MapFlags::ANY)?;
        let mapping = Mapping::new(&array, 1)?;
        let fixed_bytes = [&array, &freed, &pool].into_iter().filter_map(own::map_bytes).sum();
        let (memory, retired) = (Vec::new(), Vec::new());
        Ok(SlotTable { name, array, index, freed, pool, capacity, fixed_bytes, mapping, memory, retired })
    }

    /// Slots that are in use, `other` first if anything was counted there.
    ///
    /// # Errors
    /// If the array has grown and cannot be mapped further.
    pub fn live(&mut self) -> io::Result<impl Iterator<Item = (u32, V, &mut Option<C>)>> {
        let used = self.pool().next.clamp(1, self.capacity);
        if used as usize > self.mapping.slots {
            self.mapping = Mapping::new(&self.array, (used as usize * 2).min(self.capacity as usize))?;
        }
        self.memory.resize_with(used as usize, || None);
        let mapping = &self.mapping;
        let slots = self.memory.iter_mut().enumerate().filter_map(move |(slot, memory)| {
            let head = mapping.head(slot);
            (head.joins > 0 && head.dead == 0).then(|| (slot as u32, mapping.read(slot), memory))
        });
        Ok(slots)
    }

    /// Slots that are retired and not recycled yet: what they counted is in no other place until `last` has seen it.
    pub fn retired(&self) -> impl Iterator<Item = (u32, V)> {
        self.retired.iter().map(|&slot| (slot, self.mapping.read(slot as usize)))
    }

    /// Retires slots that `idle` says nobody needs, and recycles those retired in the round before; `last` sees the
    /// final value of each. Call it at most once per interval: the time between two rounds is what lets a program that
    /// had just looked a slot up finish with it.
    ///
    /// # Errors
    /// If a map operation fails; the table stays consistent, and the slot is tried again.
    pub fn expire(&mut self, idle: impl Fn(&V) -> bool, mut last: impl FnMut(u32, V)) -> libbpf_rs::Result<()> {
        self.recycle(|table, slot| {
            last(slot, table.mapping.read(slot as usize));
            Ok(())
        })?;
        self.retire(|mapping, slot| Ok((mapping.head(slot).joins, idle(&mapping.read(slot)))))
    }

    /// Gives back what was retired in the round before; `clear` comes before each.
    fn recycle(&mut self, mut clear: impl FnMut(&Self, u32) -> libbpf_rs::Result<()>) -> libbpf_rs::Result<()> {
        while let Some(&slot) = self.retired.last() {
            clear(self, slot)?;
            self.mapping.clear(slot as usize);
            self.memory[slot as usize] = None;
            self.freed.update(&[], &slot.to_ne_bytes(), MapFlags::ANY)?;
            self.retired.pop();
        }
        Ok(())
    }

    /// `look` tells how often a slot was joined, and whether it is idle.
    fn retire(&mut self, look: impl Fn(&Mapping<V>, usize) -> libbpf_rs::Result<(u32, bool)>) -> libbpf_rs::Result<()> {
        for slot in 1..self.memory.len() {
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
                self.index.delete(self.mapping.key(slot))?;
                self.retired.push(slot as u32);
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

    /// How often something was counted in `other`.
    pub fn folded(&self) -> u64 {
        self.pool().folded
    }

    /// Its maps as one.
    pub fn report(&self) -> MapReport {
        let pool = self.pool();
        MapReport {
            name: self.name.to_owned(),
            entries: Some(u64::from(pool.next.min(pool.max)).saturating_sub(1)),
            bytes: self.fixed_bytes + own::map_bytes(&self.index).unwrap_or(0),
            full: Some(pool.folded),
        }
    }
}

/// The key of the only element of an array.
const FIRST: [u8; 4] = [0; 4];
