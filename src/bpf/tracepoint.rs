//! Classic tracepoints, by their number: libbpf would look for it in tracefs each time, where it may not be mounted.

use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use libbpf_rs::{Link, ProgramMut};
use libc::c_ulong;

/// include/uapi/linux/perf_event.h
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: c_ulong = 1 << 3;

/// The first version of `struct perf_event_attr`.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    bp_addr: u64,
}

/// Has the program run whenever the tracepoint of that number is hit, on any CPU.
///
/// # Errors
/// If the kernel refuses.
pub fn attach(program: &ProgramMut<'_>, number: u32) -> libbpf_rs::Result<Link> {
    let attr = PerfEventAttr {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<PerfEventAttr>() as u32,
        config: number.into(),
        sample_period: 1,
        wakeup_events: 1,
        ..PerfEventAttr::default()
    };
    let (any_process, cpu, no_group) = (-1, 0, -1);
    // SAFETY: `attr` says its size; the rest are integers.
    let outcome = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, any_process, cpu, no_group, PERF_FLAG_FD_CLOEXEC)
    };
    if outcome < 0 {
        return Err(Error::last_os_error().into());
    }
    // SAFETY: a descriptor that the call made, and nobody else has.
    let event = unsafe { OwnedFd::from_raw_fd(outcome as RawFd) };
    let link = program.attach_perf_event(event.as_raw_fd())?;
    let _ = event.into_raw_fd(); // the link closes it
    Ok(link)
}
