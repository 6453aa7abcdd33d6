//! Events of perf, which probes in functions and classic tracepoints are.

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

/// PERF_TYPE_SOFTWARE of include/uapi/linux/perf_event.h, whose first kind, a clock, every kernel has.
const SOFTWARE: u32 = 1;

/// The first 72 bytes of `struct perf_event_attr` there (PERF_ATTR_SIZE_VER1).
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    until_function: [u64; 6],
    function: *const libc::c_char,
    offset: u64,
}

/// Whether we may have events of the whole machine: that takes `CAP_PERFMON`, and `CAP_SYS_ADMIN` where the kernel is one of
/// Debian's older ones and its `kernel.perf_event_paranoid` is 3. `None` if it could not be told.
pub fn allowed() -> Option<bool> {
    match create(SOFTWARE, None) {
        Ok(()) => Some(true),
        Err(error) => matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::ENOSYS)).then_some(false),
    }
}

/// Makes an event of this kind, or a probe at the begin of a function if it is of that kind, and takes it away again.
///
/// # Errors
/// The kernel's.
pub fn create(kind: u32, function: Option<&CStr>) -> io::Result<()> {
    let size = size_of::<Attributes>() as u32;
    let function = function.map_or(ptr::null(), CStr::as_ptr);
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
