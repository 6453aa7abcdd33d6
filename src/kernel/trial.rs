//! Programs that are loaded to see whether they may be, and let go again.

use std::os::fd::{FromRawFd, OwnedFd};

use libbpf_rs::btf::TypeId;
use libbpf_sys::{bpf_attach_type, bpf_insn, bpf_prog_load_opts};

/// Any would do; this one is in every kernel.
pub const TRACEPOINT: &str = "sched_switch";

/// `r0 = 0; exit`: a program that does nothing.
pub fn nothing() -> [bpf_insn; 2] {
    [0xb7, 0x95].map(|code| bpf_insn { code, ..Default::default() })
}

/// Whether this process may load the program, of the kind that hangs on `target` in this way.
pub fn loads(program: &[bpf_insn], attach_type: bpf_attach_type, target: TypeId) -> bool {
    let mut options = bpf_prog_load_opts {
        sz: size_of::<bpf_prog_load_opts>() as libbpf_sys::size_t,
        expected_attach_type: attach_type,
        attach_btf_id: target.into(),
        ..Default::default()
    };
    // SAFETY: all pointers are to values that outlive the call, and the lengths are theirs.
    let outcome = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_TRACING,
            c"nothing".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as libbpf_sys::size_t,
            &mut options,
        )
    };
    if outcome < 0 {
        return false;
    }
    // SAFETY: a descriptor that the call made, and nobody else has.
    drop(unsafe { OwnedFd::from_raw_fd(outcome) });
    true
}
