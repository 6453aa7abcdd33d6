//! Calls of `posix_fadvise`, per process and advice, and what DONTNEED does to the page cache.
//!
//! | hook | kind | cost |
//! |---|---|---|
//! | `fadvise64` | fexit of `ksys_fadvise64_64`; on arm64 and riscv64 of `__arm64_sys_fadvise64_64` and so on | event |
//! | | kretprobe on it: of calls that wait at the same time the kernel may miss some | event |
//! | | tracepoint of its end: without calls of 32-bit processes | every system call of the machine |
//! | `ksys_fadvise64_64` | on arm64 and riscv64: fexit, for calls of 32-bit processes | event |
//! | `mm_filemap_delete_from_page_cache` | tp_btf | event: tens of ns for each folio that leaves the page cache |
//! | `mm_filemap_add_to_page_cache` | tp_btf | event: as much for each that enters, while evicted pages are remembered |
//!
//! `ksys_fadvise64_64` is what every system call of the kind goes through, the 32-bit ones too, before the descriptor is
//! looked up. Where the system call of 64 bits is the only one beside it in its file, the compiler may make it a part of
//! that, and then only the others come through it. `vfs_fadvise` behind it does not see bad descriptors, and does see
//! `readahead`, MADV_WILLNEED and overlayfs calling itself. io_uring goes around both hooks: its calls are not counted.
//!
//! Only the end of a call is hooked. Whoever needs to know that a task is within one looks at the registers with which it
//! entered the kernel.

mod decode;
mod metrics;
mod probe;
mod skel;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Spec;
use crate::bpf::hook::{Alternative, Hook};
use crate::duration;
use crate::kernel::{LINUX_5_13, LINUX_WITH_FETCH};
use crate::status::HookKind;

/// `collector.fadvise`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Pages that were evicted by DONTNEED are counted as read back if they come back within this time.
    #[serde(with = "duration")]
    pub read_back_window: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config { read_back_window: Duration::from_secs(60) }
    }
}

/// What this collector is.
pub const SPEC: Spec = Spec {
    name: "fadvise",
    summary: "posix_fadvise calls by process and advice, and the pages that DONTNEED evicts from the page cache",
    hooks: HOOKS,
    asked: |config| &config.fadvise.hook,
    enums: &[],
    lacks: |_| "",
    needs: None,
    rank: 30,
    families: metrics::ALL,
    start: probe::start,
};

/// What the system call is to the kernel, and the programs for that.
struct SystemCall {
    function: &'static str,
    fexit: &'static str,
    kretprobe: &'static str,
    tracepoint: &'static str,
}

/// A process of 32 bits on arm64 has the kernel of arm64.
const CALL: SystemCall = if cfg!(target_arch = "x86_64") {
    SystemCall {
        function: "ksys_fadvise64_64",
        fexit: "fadvise_fexit",
        kretprobe: "fadvise_return",
        tracepoint: "syscalls/sys_exit_fadvise64",
    }
} else if cfg!(target_arch = "riscv64") {
    SystemCall {
        function: "__riscv_sys_fadvise64_64",
        fexit: "fadvise_fexit_riscv",
        kretprobe: "fadvise_return_riscv",
        tracepoint: "syscalls/sys_exit_fadvise64_64",
    }
} else {
    SystemCall {
        function: "__arm64_sys_fadvise64_64",
        fexit: "fadvise_fexit_arm64",
        kretprobe: "fadvise_return_arm64",
        tracepoint: "syscalls/sys_exit_fadvise64_64",
    }
};

const HOOKS: &[Hook] = if cfg!(target_arch = "x86_64") {
    &[CALLS, EVICTED, READ_BACK]
} else {
    &[CALLS, CALLS_OF_32_BITS, EVICTED, READ_BACK]
};

const CALLS: Hook = Hook {
    name: "fadvise64",
    without: None,
    alternatives: &[
        Alternative::new(HookKind::Fexit, CALL.fexit, CALL.function).since(LINUX_5_13),
        Alternative::new(HookKind::Kprobe, CALL.kretprobe, CALL.function)
            .lacking("of many calls that wait for a disk at the same time some are not counted"),
        Alternative::new(HookKind::Tracepoint, "fadvise_syscall", CALL.tracepoint)
            .lacking("calls of 32-bit processes are not counted")
            .taxing("about 40 ns of every system call of the machine"),
    ],
};

const CALLS_OF_32_BITS: Hook = Hook {
    name: "ksys_fadvise64_64",
    without: Some("calls of 32-bit processes are not counted"),
    alternatives: &[Alternative::new(HookKind::Fexit, "fadvise_fexit_compat", "ksys_fadvise64_64")],
};

const EVICTED: Hook = Hook {
    name: "mm_filemap_delete_from_page_cache",
    without: Some("what DONTNEED evicts is not known"),
    alternatives: &[Alternative::tp_btf("fadvise_evicted", "mm_filemap_delete_from_page_cache")],
};

const READ_BACK: Hook = Hook {
    name: "mm_filemap_add_to_page_cache",
    without: Some("what is read back after DONTNEED is not known"),
    alternatives: &[
        Alternative::tp_btf("fadvise_read_back", "mm_filemap_add_to_page_cache").since(LINUX_WITH_FETCH),
        Alternative::tp_btf("fadvise_read_back", "mm_filemap_add_to_page_cache")
            .before(LINUX_WITH_FETCH)
            .lacking("of neighbouring pages that two CPUs read back at the same moment some may count twice, or never"),
    ],
};
