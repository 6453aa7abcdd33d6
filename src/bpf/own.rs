//! What we cost the kernel: run time of our programs and memory of our maps, which no RSS shows.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use tracing::warn;

use crate::status::ProgramReport;

/// The kernel's run-time statistics of BPF programs, off at first. They are on for as long as somebody on the machine holds
/// such a descriptor; the global sysctl is not touched.
#[derive(Debug, Default)]
pub struct RunStatistics {
    fd: RefCell<Option<OwnedFd>>,
}

impl RunStatistics {
    /// Switches them on.
    ///
    /// # Errors
    /// On kernels before 5.8, or without the privilege.
    pub fn enable(&self) -> io::Result<()> {
        // SAFETY: takes an integer and returns a descriptor or an error.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just opened for us.
        *self.fd.borrow_mut() = Some(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(())
    }

    /// Does something without them. What other programs do meanwhile is not counted: use it for moments.
    pub fn pause<T>(&self, action: impl FnOnce() -> T) -> T {
        let on = self.fd.take().is_some();
        let outcome = action();
        if on && let Err(error) = self.enable() {
            warn!(%error, "the kernel measures our programs no longer");
        }
        outcome
    }
}

/// Runs and run time of a program, from `bpf_prog_info`; zero while statistics are off.
///
/// # Errors
/// If the kernel does not answer.
pub fn program(name: &str, fd: BorrowedFd<'_>) -> io::Result<ProgramReport> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: `info` is zeroed, so it asks for no arrays, and `size` is its size.
    let outcome = unsafe { libbpf_sys::bpf_obj_get_info_by_fd(fd.as_raw_fd(), (&raw mut info).cast(), &mut size) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ProgramReport { name: name.to_owned(), runs: info.run_cnt, run_ns: info.run_time_ns })
}

/// Kernel memory of a map in bytes, as its descriptor's fdinfo tells. Socket storage is not in it: that belongs to the
/// sockets.
pub fn map_bytes(map: &impl AsFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd())).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"))?;
    line.trim().parse().ok()
}
