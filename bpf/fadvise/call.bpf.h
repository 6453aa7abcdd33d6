/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The arguments of a call, from the registers with which the caller entered the kernel. */
#ifndef SIDECAR_FADVISE_CALL_BPF_H
#define SIDECAR_FADVISE_CALL_BPF_H

#include "kernel.h"
#include "syscall.bpf.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

struct fadvise_args {
	int fd;
	int advice;
	__s64 offset;
	__s64 len;
};

/* arch/x86/entry/syscalls/syscall_32.tbl */
enum { IA32_FADVISE64 = 250, IA32_FADVISE64_64 = 272 };

static __always_inline __s64 halves(__u64 low, __u64 high)
{
	return (__u32)low | high << 32;
}

static __always_inline bool args_ia32(struct fadvise_args *args, struct pt_regs___x86 *regs)
{
	int number = regs->orig_ax;

	if (number != IA32_FADVISE64 && number != IA32_FADVISE64_64)
		return false;
	args->fd = regs->bx;
	args->offset = halves(regs->cx, regs->dx);
	if (number == IA32_FADVISE64) {
		args->len = (__u32)regs->si;
		args->advice = regs->di;
	} else {
		args->len = halves(regs->si, regs->di);
		args->advice = regs->bp;
	}
	return true;
}

/* Whether the current task, which is no thread of the kernel, is in a call, and with what arguments. */
static __always_inline bool args_of_current(struct fadvise_args *args)
{
	struct native_call call = {};

	if (!native_call(&call))
		return bpf_core_field_exists(struct pt_regs___x86, orig_ax) &&
		       args_ia32(args, (void *)bpf_task_pt_regs(bpf_get_current_task_btf()));
	if (!is_call(&call, X86_FADVISE64, GENERIC_FADVISE64))
		return false;
	args->fd = call.args[0];
	args->offset = call.args[1];
	args->len = call.args[2];
	args->advice = call.args[3];
	return true;
}

/* What the function returned at whose return a kretprobe was hit. */
static __always_inline int returned(void *regs)
{
	if (bpf_core_field_exists(struct pt_regs___x86, ax))
		return BPF_CORE_READ((struct pt_regs___x86 *)regs, ax);
	if (bpf_core_field_exists(struct pt_regs___aarch64, regs))
		return BPF_CORE_READ((struct pt_regs___aarch64 *)regs, regs[0]);
	return BPF_CORE_READ((struct pt_regs___riscv64 *)regs, a0);
}

#endif
