//! Slot tables whose counters each CPU has of its own (SLOT_TABLE_PERCPU).

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::mem::size_of;

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, OpenObject};

use super::{Slot, SlotTable};
use crate::bpf::object;
use crate::bpf::own;
use crate::bpf::plain::{Plain, from_bytes};
use crate::status::MapReport;

/// `struct slot_use`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotUse {
    /// CLOCK_MONOTONIC of the last use.
    pub last_ns: u64,
    joins: u32,
    pad: u32,
}

// SAFETY: as it stands here.
unsafe impl Plain for SlotUse {}

/// The counters of one CPU.
///
/// # Safety
/// The type is [`Plain`] and `repr(C)`, begins with `struct slot_use`, and nothing but words of 64 bits follows.
pub unsafe trait Counts: Plain {}

/// A slot table, and the counters of each CPU beside it.
#[derive(Debug)]
pub struct CpuTable<S, V, C> {
    slots: SlotTable<S, C>,
    counts: Counters<V>,
}

/// A slot, its value, the sum of its counters and what is remembered of it.
pub type Counted<'a, S, V, C> = (u32, S, V, &'a mut Option<C>);

#[derive(Debug)]
struct Counters<V> {
    map: MapHandle,
    counts: std::marker::PhantomData<V>,
}

/// As [`super::size`], for a table whose counters each CPU has of its own.
///
/// # Errors
/// If the object has no such table, or is loaded already.
pub fn size_percpu(object: &mut OpenObject, name: &str, max: u32) -> libbpf_rs::Result<()> {
    super::size(object, name, max)?;
    object::open_map(object, &format!("{name}_counts"))?.set_max_entries(max + 1)
}

impl<S: Slot, V: Counts, C> CpuTable<S, V, C> {
    /// Over the maps of the table of that name, which was given its size by [`size_percpu`].
    ///
    /// # Errors
    /// If the array cannot be mapped.
    pub fn new(object: &Object, name: &'static str) -> libbpf_rs::Result<Self> {
        let map = object::map(object, &format!("{name}_counts"))?;
        let mut slots = SlotTable::new(object, name)?;
        slots.fixed_bytes += own::map_bytes(&map).unwrap_or(0);
        Ok(CpuTable { slots, counts: Counters { map, counts: std::marker::PhantomData } })
    }

    /// Slots that are in use, with the sum of their counters, `other` first if anything was counted there.
    ///
    /// # Errors
    /// If the array has grown and cannot be mapped further, or the kernel does not tell the counters.
    pub fn live(&mut self) -> libbpf_rs::Result<Vec<Counted<'_, S, V, C>>> {
        let counts = &self.counts;
        let slots = self.slots.live()?;
        slots.map(|(slot, value, memory)| Ok((slot, value, counts.sum(slot)?, memory))).collect()
    }

    /// As [`SlotTable::expire`]; `idle` is given the time of the last use. What is remembered of a slot are its labels:
    /// slots that share them are shown as one sum, which would fall if one of them went, so they stay.
    ///
    /// # Errors
    /// If a map operation fails; the table stays consistent, and the slot is tried again.
    pub fn expire(&mut self, idle: impl Fn(u64) -> bool) -> libbpf_rs::Result<()>
    where
        C: Eq + Hash,
    {
        let counts = &self.counts;
        self.slots.recycle(|_, slot| counts.clear(slot))?;
        let shared = shared(&self.slots.memory);
        self.slots.retire(|_, slot| {
            let used: SlotUse = from_bytes(counts.sum(slot as u32)?.as_bytes());
            Ok((used.joins, idle(used.last_ns) && !shared.contains(&slot)))
        })
    }

    /// How often something was counted in `other`.
    pub fn folded(&self) -> u64 {
        self.slots.folded()
    }

    /// Its maps as one.
    pub fn report(&self) -> MapReport {
        self.slots.report()
    }
}

/// The slots of which the same is remembered as of another.
fn shared<C: Eq + Hash>(memory: &[Option<C>]) -> HashSet<usize> {
    let mut first = HashMap::new();
    let mut shared = HashSet::new();
    for (slot, labels) in memory.iter().enumerate().filter_map(|(slot, labels)| Some((slot, labels.as_ref()?))) {
        if let Some(&other) = first.get(labels) {
            shared.extend([slot, other]);
        } else {
            first.insert(labels, slot);
        }
    }
    shared
}

impl<V: Counts> Counters<V> {
    /// Over all CPUs; of the times of last use the latest.
    fn sum(&self, slot: u32) -> libbpf_rs::Result<V> {
        let per_cpu = self.map.lookup_percpu(&slot.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
        let mut sum = SlotUse::default();
        let mut words = vec![0u64; (size_of::<V>() - size_of::<SlotUse>()) / size_of::<u64>()];
        for bytes in &per_cpu {
            let (used, counters) = bytes.split_at(size_of::<SlotUse>());
            let used: SlotUse = from_bytes(used);
            sum.last_ns = sum.last_ns.max(used.last_ns);
            sum.joins = sum.joins.wrapping_add(used.joins);
            for (sum, word) in words.iter_mut().zip(counters.chunks_exact(size_of::<u64>())) {
                *sum = sum.wrapping_add(from_bytes(word));
            }
        }
        let mut bytes = sum.as_bytes().to_vec();
        words.iter().for_each(|word| bytes.extend_from_slice(&word.to_ne_bytes()));
        Ok(from_bytes(&bytes))
    }

    fn clear(&self, slot: u32) -> libbpf_rs::Result<()> {
        let zero = vec![vec![0; self.map.value_size().next_multiple_of(8) as usize]; libbpf_rs::num_possible_cpus()?];
        self.map.update_percpu(&slot.to_ne_bytes(), &zero, MapFlags::ANY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_are_shown_as_one_are_found() {
        assert_eq!(shared(&[Some("a"), None, Some("b"), Some("a"), None, Some("c"), Some("a")]), [0, 3, 6].into());
        assert_eq!(shared::<&str>(&[None, None]), [].into());
    }
}
