//! Whether programs may call the function of the kernel that tells the verifier to take a pointer for one of some type, and
//! to trust it no further. It came with 6.2 (commit a35b9af4ec2c, "bpf: Add a kfunc for generic type cast"). Programs that
//! are interpreted call no function of the kernel, nor do those of every architecture: nothing but trying tells.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, Struct, Typedef};
use libbpf_sys::bpf_insn;

use super::tracepoint;
use super::trial::{TRACEPOINT, loads, nothing};

const FUNCTION: &str = "bpf_rdonly_cast";

/// Any would do; this one is among the first.
const STRUCT: &str = "list_head";

/// Its number in BTF, if a program that calls it can be loaded.
pub fn offered(btf: &Btf<'_>) -> Option<u32> {
    let function = u32::from(btf.type_by_name::<Func<'_>>(FUNCTION)?.type_id());
    let of = u32::from(btf.type_by_name::<Struct<'_>>(STRUCT)?.type_id());
    let tracepoint = btf.type_by_name::<Typedef<'_>>(&tracepoint(TRACEPOINT))?;
    let mut program = call(function, of).to_vec();
    program.extend(nothing());
    loads(&program, libbpf_sys::BPF_TRACE_RAW_TP, tracepoint.type_id()).then_some(function)
}

/// `r1 = r10; r2 = of; call function`.
fn call(function: u32, of: u32) -> [bpf_insn; 3] {
    let instruction = |code, dst, src, imm: u32| {
        let mut instruction = bpf_insn { code, imm: imm.cast_signed(), ..Default::default() };
        instruction.set_dst_reg(dst);
        instruction.set_src_reg(src);
        instruction
    };
    [instruction(0xbf, 1, 10, 0), instruction(0xb7, 2, 0, of), instruction(0x85, 0, 2, function)]
}
