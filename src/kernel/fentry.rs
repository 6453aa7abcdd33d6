//! Whether programs may hang on functions of the kernel. Some hosts refuse that whatever the kernel could do, and nothing
//! but trying tells.

use std::os::fd::{FromRawFd, OwnedFd};

use libbpf_rs::btf::types::{Func, Typedef};
use libbpf_rs::btf::{Btf, TypeId};

use super::tracepoint;

/// Any function and any tracepoint would do; these are in every kernel.
const FUNCTION: &str = "vfs_read";
const TRACEPOINT: &str = "sched_switch";

/// Loads a program that does nothing, and lets it go again. `None` if this process may not load any.
pub fn allowed(btf: &Btf<'_>) -> Option<bool> {
    let function = btf.type_by_name::<Func<'_>>(FUNCTION)?;
    let tracepoint = btf.type_by_name::<Typedef<'_>>(&tracepoint(TRACEPOINT))?;
    if loads(libbpf_sys::BPF_TRACE_FENTRY, function.type_id()) {
        return Some(true);
    }
    // Refused as a function, but a tracepoint is fine?
    loads(libbpf_sys::BPF_TRACE_RAW_TP, tracepoint.type_id()).then_some(false)
}

/// `r0 = 0; exit`: a program that does nothing.
fn nothing() -> [libbpf_sys::bpf_insn; 2] {
    [0xb7, 0x95].map(|code| libbpf_sys::bpf_insn { code, ..Default::default() })
}

fn loads(attach_type: libbpf_sys::bpf_attach_type, target: TypeId) -> bool {
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
        expected_attach_type: attach_type,
        attach_btf_id: target.into(),
        ..Default::default()
    };
    let program = nothing();
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
