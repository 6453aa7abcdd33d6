//! Slot tables whose counters each CPU has of its own (SLOT_TABLE_PERCPU).

use std::hash::Hash;
use std::mem::size_of;

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, OpenObject};

use super::groups::{Groups, Sum};
use super::mapping::Mapping;
use super::{Slot, Slots};
use crate::bpf::object;
use crate::bpf::own;
use crate::bpf::plain::{Plain, from_bytes};
use crate::bpf::plan::Plan;
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
pub struct CpuTable<S: Slot, V, L> {
    slots: Slots<S>,
    counts: Counters<V>,
    groups: Groups<S::Key, L, V>,
}

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

impl<S: Slot, V: Counts, L: Clone + Eq + Hash> CpuTable<S, V, L> {
    /// Over the maps of the table of that name, which was given its size by [`size_percpu`].
    ///
    /// # Errors
    /// If the array cannot be mapped.
    pub fn new(object: &Object, name: &'static str, plan: &Plan) -> libbpf_rs::Result<Self> {
        let map = object::map(object, &format!("{name}_counts"))?;
        let mut slots = Slots::new(object, name, plan)?;
        slots.fixed_bytes += own::map_bytes(&map).unwrap_or(0);
        let counts = Counters { map, counts: std::marker::PhantomData };
        Ok(CpuTable { slots, counts, groups: Groups::default() })
    }

    /// As [`super::SlotTable::sums`].
    ///
    /// # Errors
    /// If the array has grown and cannot be mapped further, or the kernel does not tell the counters.
    pub fn sums(
        &mut self,
        generation: u64,
        name: impl FnMut(u32, &S::Key) -> Option<L>,
    ) -> libbpf_rs::Result<Vec<(&L, V)>> {
        let live = self.slots.live()?;
        self.groups.name(&self.slots.keys(&live), &self.slots.keys(&self.slots.retired), generation, name);
        let (counts, groups) = (&self.counts, &self.groups);
        let merged = groups.sums(&live, &self.slots.retired, |slot| counts.sum(slot))?;
        let mut sums = Vec::with_capacity(live.len());
        for slot in live {
            if let Some(name) = groups.of(slot)
                && let Some(sum) = merged.show(slot, counts.sum(slot)?)
            {
                sums.push((name, sum));
            }
        }
        Ok(sums)
    }

    /// As [`super::SlotTable::expire`]; `idle` is given the time of the last use.
    ///
    /// # Errors
    /// If a map operation fails; the table stays consistent, and the slot is tried again.
    pub fn expire(&mut self, idle: impl Fn(u64) -> bool) -> libbpf_rs::Result<()> {
        let (counts, groups) = (&self.counts, &mut self.groups);
        self.slots.recycle(|slots, slot| {
            groups.leave(slot, slots.mapping.key(slot as usize), &counts.sum(slot)?);
            counts.clear(slot)
        })?;
        let look = |_: &Mapping<S>, slot| {
            let used: SlotUse = from_bytes(counts.sum(slot as u32)?.as_bytes());
            Ok((used.joins, idle(used.last_ns)))
        };
        self.slots.retire(look, |slots, slot| groups.retire(slot, &slots.retired, |slot| counts.sum(slot)).map(|_| ()))
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

impl<V: Counts> Sum for V {
    fn add(&mut self, other: &V) {
        *self = sum([self.as_bytes(), other.as_bytes()]);
    }
}

/// Over counters as the kernel has them; of the times of last use the latest.
fn sum<'a, V: Counts>(each: impl IntoIterator<Item = &'a [u8]>) -> V {
    let mut sum = SlotUse::default();
    let mut words = vec![0u64; (size_of::<V>() - size_of::<SlotUse>()) / size_of::<u64>()];
    for bytes in each {
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
    from_bytes(&bytes)
}

impl<V: Counts> Counters<V> {
    /// Over all CPUs.
    fn sum(&self, slot: u32) -> libbpf_rs::Result<V> {
        let per_cpu = self.map.lookup_percpu(&slot.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
        Ok(sum(per_cpu.iter().map(Vec::as_slice)))
    }

    fn clear(&self, slot: u32) -> libbpf_rs::Result<()> {
        let zero = vec![vec![0; self.map.value_size().next_multiple_of(8) as usize]; libbpf_rs::num_possible_cpus()?];
        self.map.update_percpu(&slot.to_ne_bytes(), &zero, MapFlags::ANY)
    }
}
