//! What the programs have in the place of instructions that not every kernel takes.

use std::slice;

use libbpf_rs::{AsRawLibbpf, Error, OpenProgramMut};
use libbpf_sys::bpf_insn;

/// A 32-bit or 64-bit store that is an atomic operation, of the class BPF_STX and the mode BPF_ATOMIC of
/// include/uapi/linux/bpf.h; `imm` says which. Before 5.12 there was only addition, by the name of BPF_XADD.
const ATOMICS: [u8; 2] = [0xc3, 0xdb];
const ADD: i32 = 0;

/// `call`, and numbers that no helper has; the second is `distrust()` of bpf/include/compat.bpf.h.
const CALL: u8 = 0x85;
const NO_HELPER: i32 = 0x0bad_5120;
const DISTRUST: i32 = 0x0bad_0602;

/// Of a `call`, BPF_PSEUDO_KFUNC_CALL: the number is that of a function of the kernel.
const OF_THE_KERNEL: u8 = 2;

/// `BPF_ALU64 | BPF_MOV | BPF_X`.
const MOVE: u8 = 0xbf;

/// `BPF_LD | BPF_IMM | BPF_DW`.
const LOAD_64: u8 = 0x18;

/// Before 5.12 (no `fetch`) there are no atomic operations with a result: a call of a helper that does not exist takes the
/// place of each. The verifier of such a kernel refuses those operations wherever they stand, and this call only where it
/// is reached: the programs have a branch without them for such kernels (`has_fetch()` of bpf/include/compat.bpf.h).
/// Should one be reached all the same, the program is refused, and nothing is counted wrong.
///
/// Distrust of a pointer becomes a call of the kernel's function `cast`, or `r0 = r1` where there is none.
fn rewrite(instructions: &mut [bpf_insn], fetch: bool, cast: Option<u32>) {
    let mut index = 0;
    while let Some(instruction) = instructions.get_mut(index) {
        if !fetch && ATOMICS.contains(&instruction.code) && instruction.imm != ADD {
            *instruction = bpf_insn { code: CALL, imm: NO_HELPER, ..bpf_insn::default() };
        }
        if (instruction.code, instruction.imm) == (CALL, DISTRUST) {
            *instruction = cast.map_or_else(r0_is_r1, call_of_the_kernel);
        }
        // A constant of 64 bits takes two, the second of which is no instruction.
        index += if instruction.code == LOAD_64 { 2 } else { 1 };
    }
}

fn r0_is_r1() -> bpf_insn {
    let mut instruction = bpf_insn { code: MOVE, ..bpf_insn::default() };
    instruction.set_src_reg(1);
    instruction
}

fn call_of_the_kernel(function: u32) -> bpf_insn {
    let mut instruction = bpf_insn { code: CALL, imm: function.cast_signed(), ..bpf_insn::default() };
    instruction.set_src_reg(OF_THE_KERNEL);
    instruction
}

/// Makes a program that is not loaded yet fit for a kernel: whether it knows atomic operations with a result, and the number
/// of its function `bpf_rdonly_cast`, if programs may call it. Functions that are not inlined are not part of the program.
///
/// # Errors
/// If there is no memory.
pub fn fit(program: &mut OpenProgramMut<'_>, fetch: bool, cast: Option<u32>) -> libbpf_rs::Result<()> {
    let raw = program.as_libbpf_object().as_ptr();
    // SAFETY: libbpf says where the instructions are and how many; nobody else has this program now.
    let instructions = unsafe {
        let (first, count) = (libbpf_sys::bpf_program__insns(raw), libbpf_sys::bpf_program__insn_cnt(raw));
        slice::from_raw_parts(first, count as usize)
    };
    let mut instructions = instructions.to_vec();
    rewrite(&mut instructions, fetch, cast);
    // SAFETY: libbpf copies them.
    let outcome = unsafe {
        libbpf_sys::bpf_program__set_insns(raw, instructions.as_mut_ptr(), instructions.len() as libbpf_sys::size_t)
    };
    if outcome < 0 { Err(Error::from_raw_os_error(-outcome)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, imm: i32) -> bpf_insn {
        bpf_insn { code, imm, ..bpf_insn::default() }
    }

    #[test]
    fn atomics_that_are_no_plain_addition_are_taken_out_and_nothing_else() {
        const FETCH_ADD: i32 = 0x01;
        const OR: i32 = 0x40;
        const EXCHANGE: i32 = 0xe1;
        let (r0_is_1, exit) = (instruction(0xb7, 1), instruction(0x95, 0));
        // A constant whose second half looks like an operation.
        let constant = [instruction(LOAD_64, 5), instruction(0xdb, FETCH_ADD)];
        let kept = [r0_is_1, instruction(0xdb, ADD), instruction(0xc3, ADD), constant[0], constant[1], exit];
        let mut program = kept;
        rewrite(&mut program, false, None);
        let codes = |program: &[bpf_insn]| program.iter().map(|one| (one.code, one.imm)).collect::<Vec<_>>();
        assert_eq!(codes(&program), codes(&kept));

        let all = [(0xdb, FETCH_ADD), (0xc3, FETCH_ADD), (0xdb, OR), (0xc3, EXCHANGE), (0x95, 0)]
            .map(|(code, imm)| instruction(code, imm));
        let mut program = all;
        rewrite(&mut program, true, None);
        assert_eq!(codes(&program), codes(&all));
        rewrite(&mut program, false, None);
        assert_eq!(
            codes(&program),
            [(CALL, NO_HELPER), (CALL, NO_HELPER), (CALL, NO_HELPER), (CALL, NO_HELPER), (0x95, 0)]
        );
    }
    #[test]
    fn distrust_is_a_call_where_programs_may_make_it() {
        let program =
            [instruction(CALL, 1), instruction(CALL, DISTRUST), instruction(LOAD_64, 0), instruction(CALL, DISTRUST)];
        let rewritten = |cast| {
            let mut program = program;
            rewrite(&mut program, true, cast);
            program.map(|one| (one.code, one.dst_reg(), one.src_reg(), one.imm))
        };
        let (first, constant, second_half) = ((CALL, 0, 0, 1), (LOAD_64, 0, 0, 0), (CALL, 0, 0, DISTRUST));
        assert_eq!(rewritten(None), [first, (MOVE, 0, 1, 0), constant, second_half]);
        assert_eq!(rewritten(Some(4711)), [first, (CALL, 0, OF_THE_KERNEL, 4711), constant, second_half]);
    }
}
