//! The slots in place: the array of a table, mapped into this process.

use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libbpf_rs::{MapCore, MapHandle};
use nix::sys::mman::{MapFlags as MmapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{SysconfVar, sysconf};

use super::{Slot, SlotHead};

/// The first slots of the array, as far as they are in use: what is mapped counts as resident.
#[derive(Debug)]
pub struct Mapping<V> {
    base: NonNull<V>,
    bytes: NonZeroUsize,
    /// How many are mapped.
    pub slots: usize,
}

impl<V: Slot> Mapping<V> {
    /// Maps the first `slots`.
    pub fn new(array: &MapHandle, slots: usize) -> io::Result<Self> {
        debug_assert_eq!(array.value_size() as usize, size_of::<V>());
        const { assert!(size_of::<V>().is_multiple_of(size_of::<u64>())) };
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
    pub fn read(&self, slot: usize) -> V {
        let mut value = MaybeUninit::<V>::uninit();
        let (from, to) = (self.at(slot).cast::<u64>(), value.as_mut_ptr().cast::<u64>());
        // Word by word, as a machine of 32 bits would read halves of two values.
        for word in 0..size_of::<V>() / size_of::<u64>() {
            // SAFETY: within the slot, which is mapped and aligned (the array's elements are multiples of 8 bytes), and
            // within the copy.
            unsafe { to.add(word).write(AtomicU64::from_ptr(from.add(word).as_ptr()).load(Ordering::Relaxed)) };
        }
        // SAFETY: all of its words are there, and any bytes are a `V`.
        unsafe { value.assume_init() }
    }

    /// When it was used, and whether.
    pub fn head(&self, slot: usize) -> SlotHead {
        // SAFETY: every value begins with the head.
        unsafe { self.at(slot).cast::<SlotHead>().read_volatile() }
    }

    /// Its key.
    pub fn key(&self, slot: usize) -> V::Key {
        // SAFETY: the key follows the head, which is as long as the alignment of anything in a map; any bytes are a key.
        unsafe { self.at(slot).cast::<u8>().add(size_of::<SlotHead>()).cast::<V::Key>().read_volatile() }
    }

    /// The same as the index has it.
    pub fn key_bytes(&self, slot: usize) -> &[u8] {
        // SAFETY: the key follows the head; programs write it only while the slot is in no index.
        unsafe {
            let key = self.at(slot).cast::<u8>().add(size_of::<SlotHead>());
            std::slice::from_raw_parts(key.as_ptr(), size_of::<V::Key>())
        }
    }

    /// Marks the slot dead, or takes that back.
    pub fn set_dead(&self, slot: usize, dead: bool) {
        let head = self.at(slot).cast::<SlotHead>().as_ptr();
        // SAFETY: an aligned word of the mapping, shared with programs, which only read it.
        let word = unsafe { AtomicU32::from_ptr(&raw mut (*head).dead) };
        word.store(dead.into(), Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Back to nothing.
    pub fn clear(&self, slot: usize) {
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
