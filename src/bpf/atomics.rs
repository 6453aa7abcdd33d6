//! Atomic operations with a result, on kernels that have none (before Linux 5.12).

use std::slice;

use libbpf_rs::{AsRawLibbpf, Error, OpenProgramMut};
use libbpf_sys::bpf_insn;

/// A 32-bit or 64-bit store that is an atomic operation, of the class BPF_STX and the mode BPF_ATOMIC of
/// include/uapi/linux/bpf.h; `imm` says which. Before 5.12 there was only addition, by the name of BPF_XADD.
const ATOMICS: [u8; 2] = [0xc3, 0xdb];
const ADD: i32 = 0;

/// `call`, and a number that no helper has.
const CALL: u8 = 0x85;
const NO_HELPER: i32 = 0x0bad_5120;

/// Puts a call of a helper that does not exist in the place of every atomic operation that the kernel does not know.
///
/// The verifier of such a kernel refuses those operations wherever they stand, and this call only where it is reached: the
/// programs have a branch without them for such kernels (`has_fetch()` of bpf/include/compat.bpf.h). Should one be
/// reached all the same, the program is refused, and nothing is counted wrong.
fn take_out(instructions: &mut [bpf_insn]) {
    let mut index = 0;
    while let Some(instruction) = instructions.get_mut(index) {
        if ATOMICS.contains(&instruction.code) && instruction.imm != ADD {
            *instruction = bpf_insn { code: CALL, imm: NO_HELPER, ..bpf_insn::default() };
        }
        // A constant of 64 bits takes two, the second of which is no instruction.
        index += if instruction.code == LOAD_64 { 2 } else { 1 };
    }
}

/// `BPF_LD | BPF_IMM | BPF_DW`.
const LOAD_64: u8 = 0x18;

/// As [`take_out`], in a program that is not loaded yet; functions that are not inlined are not part of it.
///
/// # Errors
/// If there is no memory.
pub fn take_out_of(program: &mut OpenProgramMut<'_>) -> libbpf_rs::Result<()> {
    let raw = program.as_libbpf_object().as_ptr();
    // SAFETY: libbpf says where the instructions are and how many; nobody else has this program now.
    let instructions = unsafe {
        let (first, count) = (libbpf_sys::bpf_program__insns(raw), libbpf_sys::bpf_program__insn_cnt(raw));
        slice::from_raw_parts(first, count as usize)
    };
    let mut instructions = instructions.to_vec();
    take_out(&mut instructions);
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
        take_out(&mut program);
        let codes = |program: &[bpf_insn]| program.iter().map(|one| (one.code, one.imm)).collect::<Vec<_>>();
        assert_eq!(codes(&program), codes(&kept));

        let mut program = [(0xdb, FETCH_ADD), (0xc3, FETCH_ADD), (0xdb, OR), (0xc3, EXCHANGE), (0x95, 0)]
            .map(|(code, imm)| instruction(code, imm));
        take_out(&mut program);
        assert_eq!(
            codes(&program),
            [(CALL, NO_HELPER), (CALL, NO_HELPER), (CALL, NO_HELPER), (CALL, NO_HELPER), (0x95, 0)]
        );
    }
}
