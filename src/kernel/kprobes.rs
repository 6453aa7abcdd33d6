//! Whether the kernel can put probes into its functions.

use std::fs;
use std::path::Path;

use super::perf;

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
    let kind = fs::read_to_string(sources.join("kprobe/type")).ok()?.trim().parse().ok()?;
    // At the begin of a function that every kernel has.
    match perf::create(kind, Some(c"vfs_read")) {
        Ok(()) => Some(true),
        Err(error) => (error.raw_os_error() == Some(libc::EINVAL)).then_some(false),
    }
}
