//! Arrays of plain values that programs write and the daemon reads now and then.

use std::io;
use std::num::NonZeroUsize;

use libbpf_rs::MapCore;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{SysconfVar, sysconf};

use super::plain::Plain;

/// The first values of an array that can be mapped. It is mapped for the time of the call, as what is mapped counts as
/// resident.
///
/// # Errors
/// If it cannot be mapped.
pub fn first<V: Plain>(array: &impl MapCore, count: usize) -> io::Result<Vec<V>> {
    assert!(array.value_size() as usize == size_of::<V>() && count <= array.max_entries() as usize);
    let page = sysconf(SysconfVar::PAGE_SIZE)?.map_or(4096, |size| size as usize);
    let Some(bytes) = NonZeroUsize::new((count * size_of::<V>()).next_multiple_of(page)).filter(|_| count > 0) else {
        return Ok(Vec::new());
    };
    // SAFETY: a fresh mapping at an address of the kernel's choice, large enough for `count` values, which any bytes are;
    // it is unmapped below, when nothing points into it any more.
    unsafe {
        let base = mmap(None, bytes, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, array.as_fd(), 0)?;
        let values = (0..count).map(|index| base.cast::<V>().add(index).read_volatile()).collect();
        munmap(base, bytes.get())?;
        Ok(values)
    }
}
