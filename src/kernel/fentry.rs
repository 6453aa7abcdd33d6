//! Whether programs may hang on functions of the kernel. Some hosts refuse that whatever the kernel could do, and nothing
//! but trying tells.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, Typedef};

use super::tracepoint;
use super::trial::{TRACEPOINT, loads, nothing};

/// Any would do; this one is in every kernel.
const FUNCTION: &str = "vfs_read";

/// Loads a program that does nothing, and lets it go again. `None` if this process may not load any.
pub fn allowed(btf: &Btf<'_>) -> Option<bool> {
    let function = btf.type_by_name::<Func<'_>>(FUNCTION)?;
    let tracepoint = btf.type_by_name::<Typedef<'_>>(&tracepoint(TRACEPOINT))?;
    if loads(&nothing(), libbpf_sys::BPF_TRACE_FENTRY, function.type_id()) {
        return Some(true);
    }
    // Refused as a function, but a tracepoint is fine?
    loads(&nothing(), libbpf_sys::BPF_TRACE_RAW_TP, tracepoint.type_id()).then_some(false)
}
