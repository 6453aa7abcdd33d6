//! The userspace side of a slot table (`bpf/include/slots.bpf.h`): reading the slots in place, and giving idle ones back.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::sys::mman::{MapFlags as MmapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{SysconfVar, sysconf};

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
    array: MapHandle,
    index: MapHandle,
    freed: MapHandle,
    capacity: u32,
    mapping: Mapping<V>,
    /// What the owner of the table remembers of each slot in use, until it is recycled.
    memory: Vec<Option<C>>,
    /// Out of the index for at least one round, so that no program holds them any more.
    retired: Vec<u32>,
}

impl<V: Slot, C> SlotTable<V, C> {
    /// Over the three maps of a table.
    ///
    /// # Errors
    /// If the array cannot be mapped.
    pub fn new(array: MapHandle, index: MapHandle, freed: MapHandle) -> io::Result<Self> {
        let capacity = array.max_entries();
        let mapping = Mapping::new(&array, 1)?;
        Ok(SlotTable { array, index, freed, capacity, mapping, memory: Vec::new(), retired: Vec::new() })
    }

    /// Slots that are in use, `other` first if anything was counted there. `next` is the pool's first slot that was
    /// never used.
    ///
    /// # Errors
    /// If the array has grown and cannot be mapped further.
    pub fn live(&mut self, next: u32) -> io::Result<impl Iterator<Item = (u32, V, &mut Option<C>)>> {
        let used = next.clamp(1, self.capacity);
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

    /// Retires slots that `idle` says nobody needs, and recycles those retired in the round before; `last` sees the
    /// final value of each. Call it at most once per interval: the time between two rounds is what lets a program that
    /// had just looked a slot up finish with it.
    ///
    /// # Errors
    /// If a map operation fails; the table stays consistent, and the slot is tried again.
    pub fn expire(&mut self, idle: impl Fn(&V) -> bool, mut last: impl FnMut(u32, V)) -> libbpf_rs::Result<()> {
        for slot in std::mem::take(&mut self.retired) {
            last(slot, self.mapping.read(slot as usize));
            self.mapping.clear(slot as usize);
            self.memory[slot as usize] = None;
            self.freed.update(&[], &slot.to_ne_bytes(), MapFlags::ANY)?;
        }
        for slot in 1..self.memory.len() {
            let head = self.mapping.head(slot);
            if head.joins == 0 || head.dead != 0 || !idle(&self.mapping.read(slot)) {
                continue;
            }
            if self.mapping.bury(slot, head.joins) {
                self.index.delete(self.mapping.key(slot))?;
                self.retired.push(slot as u32);
            }
        }
        Ok(())
    }
}

/// The first slots of the array, as far as they are in use: what is mapped counts as resident.
#[derive(Debug)]
struct Mapping<V> {
    base: NonNull<V>,
    bytes: NonZeroUsize,
    slots: usize,
}

impl<V: Slot> Mapping<V> {
    fn new(array: &MapHandle, slots: usize) -> io::Result<Self> {
        debug_assert_eq!(array.value_size() as usize, size_of::<V>());
        let page = sysconf(SysconfVar::PAGE_SIZE)?.map_or(4096, |size| size as usize);
        let bytes = NonZeroUsize::new((slots * size_of::<V>()).next_multiple_of(page)).expect("at least one slot");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice; it is unmapped in drop, where the last reference
        // into it has gone, as none outlives a method of this type.
        let base = unsafe { mmap(None, bytes, protection, MmapFlags::MAP_SHARED, array.as_fd(), 0)? };
        Ok(Mapping { base: base.cast(), bytes, slots })
    }

    fn at(&self, slot: usize) -> NonNull<V> {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        // SAFETY: within the mapping, as the line above makes sure.
        unsafe { self.base.add(slot) }
    }

    /// A copy. Programs may be adding to it: every counter is some value that it had during the call.
    fn read(&self, slot: usize) -> V {
        // SAFETY: mapped and aligned (the array's elements are multiples of 8 bytes); any bytes are a `V`.
        unsafe { self.at(slot).read_volatile() }
    }

    fn head(&self, slot: usize) -> SlotHead {
        // SAFETY: every value begins with the head.
        unsafe { self.at(slot).cast::<SlotHead>().read_volatile() }
    }

    fn key(&self, slot: usize) -> &[u8] {
        // SAFETY: the key follows the head; programs write it only while the slot is in no index.
        unsafe {
            let key = self.at(slot).cast::<u8>().add(size_of::<SlotHead>());
            std::slice::from_raw_parts(key.as_ptr(), size_of::<V::Key>())
        }
    }

    /// Marks the slot dead unless a program has taken it since `joins` was read.
    fn bury(&self, slot: usize, joins: u32) -> bool {
        let head = self.at(slot).cast::<SlotHead>().as_ptr();
        // SAFETY: aligned words of the mapping, shared with programs, which use atomic operations on them too.
        let (seen, dead) =
            unsafe { (AtomicU32::from_ptr(&raw mut (*head).joins), AtomicU32::from_ptr(&raw mut (*head).dead)) };
        dead.store(1, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        let unused = seen.load(Ordering::SeqCst) == joins;
        if !unused {
            dead.store(0, Ordering::SeqCst);
        }
        unused
    }

    fn clear(&self, slot: usize) {
        // SAFETY: within the mapping; all-zero bytes are a `V`, and no program has the slot.
        unsafe { self.at(slot).write_bytes(0, 1) }
    }
}

impl<V> Drop for Mapping<V> {
    fn drop(&mut self) {
        // SAFETY: what `new` mapped, and nothing points into it any more.
        let unmapped = unsafe { munmap(self.base.cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "the mapping was whole");
    }
}
