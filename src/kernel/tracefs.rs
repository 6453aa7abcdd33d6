//! Numbers of classic tracepoints, which only tracefs tells. Where nobody has mounted it, we do: detached, so that no
//! one else sees it.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_long, syscall};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

const MOUNT_POINT: &str = "/sys/kernel/tracing";

/// include/uapi/linux/mount.h
const FSOPEN_CLOEXEC: c_long = 1;
const FSCONFIG_CMD_CREATE: c_long = 6;
const FSMOUNT_CLOEXEC: c_long = 1;

/// The numbers of those of the wanted tracepoints that there are. They are named as in `syscalls/sys_exit_fadvise64`.
///
/// # Errors
/// If tracefs can be neither read nor mounted.
pub fn numbers(wanted: &HashSet<String>) -> io::Result<BTreeMap<String, u32>> {
    let root = mounted().or_else(|_| mount())?;
    let number = |name: &String| Some((name.clone(), number(&root, name)?));
    Ok(wanted.iter().filter(|name| name.contains('/')).filter_map(number).collect())
}

fn number(root: &OwnedFd, name: &str) -> Option<u32> {
    let path = format!("events/{name}/id");
    let file = openat(root, path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn mounted() -> io::Result<OwnedFd> {
    let root = open(MOUNT_POINT, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    openat(&root, "events", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(root)
}

/// Since Linux 5.2; takes CAP_SYS_ADMIN.
fn mount() -> io::Result<OwnedFd> {
    let none: *const u8 = std::ptr::null();
    let name: &CStr = c"tracefs";
    // SAFETY: a string that ends, and a flag.
    let context = owned(unsafe { syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })?;
    let fd = c_long::from(context.as_raw_fd());
    // SAFETY: this command takes neither key nor value.
    let created = unsafe { syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, none, none, 0) };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers alone.
    owned(unsafe { syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, 0) })
}

fn owned(outcome: c_long) -> io::Result<OwnedFd> {
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that a system call has just made, and nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(outcome as RawFd) })
}
