//! Whether the kernel can put probes into its functions.

use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::{fs, io};

/// Where perf says what it can create events of.
const SOURCES: &str = "/sys/bus/event_source/devices";

/// By what perf has, and on riscv64 by trying: where that kernel can trace functions (CONFIG_DYNAMIC_FTRACE), their first
/// instruction is ftrace's, and a probe there is refused (`check_ftrace_location()` of kernel/kprobes.c).
pub fn offered() -> Option<bool> {
    let sources = Path::new(SOURCES);
    let source = sources.is_dir().then(|| sources.join("kprobe").exists())?;
    if !source || cfg!(not(target_arch = "riscv64")) {
        return Some(source);
    }
    let number = fs::read_to_string(sources.join("kprobe/type")).ok()?.trim().parse().ok()?;
    match create(number) {
        Ok(()) => Some(true),
        Err(error) => (error.raw_os_error() == Some(libc::EINVAL)).then_some(false),
    }
}

/// The first 72 bytes of `struct perf_event_attr` of include/uapi/linux/perf_event.h (PERF_ATTR_SIZE_VER1).
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    until_function: [u64; 6],
    function: *const libc::c_char,
    offset: u64,
}

/// A probe at the begin of a function that every kernel has, and away with it.
fn create(kind: u32) -> io::Result<()> {
    let function = c"vfs_read".as_ptr();
    let size = size_of::<Attributes>() as u32;
    let attributes = Attributes { kind, size, until_function: [0; 6], function, offset: 0 };
    let (every_process, cpu, group, close_on_exec) = (-1, 0, -1, 8);
    // SAFETY: the kernel reads `size` bytes, and a name that ends in a zero.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, every_process, cpu, group, close_on_exec)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the call made, and nobody else has.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    Ok(())
}
