//! What we cost the kernel, and no RSS shows: run time of our programs and memory of our maps.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Runs that the kernel left out since the program was loaded, because the program was at work on that CPU already
/// (`bpf_prog_info.recursion_misses`). `None` if the kernel does not tell.
pub fn missed_runs(program: BorrowedFd<'_>) -> Option<u64> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: `info` is zeroed, so it asks for no arrays, and `size` is its size.
    let outcome = unsafe { libbpf_sys::bpf_obj_get_info_by_fd(program.as_raw_fd(), (&raw mut info).cast(), &mut size) };
    (outcome == 0).then_some(info.recursion_misses)
}

/// Kernel memory of a map in bytes, as its descriptor's fdinfo tells. Socket storage is not in it: that belongs to the
/// sockets.
pub fn map_bytes(map: &impl AsFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd())).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"))?;
    line.trim().parse().ok()
}
