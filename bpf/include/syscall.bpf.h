/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The system call that the current task is in, from the registers with which it entered the kernel. Linux 5.15. */
#ifndef SIDECAR_SYSCALL_BPF_H
#define SIDECAR_SYSCALL_BPF_H

#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

struct native_call {
	int number;
	__u64 args[4];
};

/* Numbers: arch/x86/entry/syscalls/syscall_64.tbl, and include/uapi/asm-generic/unistd.h for arm64 and riscv64. */
enum {
	X86_READ = 0,
	X86_PREAD64 = 17,
	X86_FADVISE64 = 221,
	GENERIC_READ = 63,
	GENERIC_PREAD64 = 67,
	GENERIC_FADVISE64 = 223,
};

/* The kernel's architecture counts, and not the daemon's: one of 32 bits may run on a kernel of 64. */
static __always_inline bool is_call(const struct native_call *call, int x86, int generic)
{
	return call->number == (bpf_core_field_exists(struct pt_regs___x86, orig_ax) ? x86 : generic);
}

static __always_inline bool native_x86(struct native_call *call, struct task_struct *task, struct pt_regs___x86 *regs)
{
	if (task->thread_info.status & TS_COMPAT)
		return false;
	call->number = regs->orig_ax;
	call->args[0] = regs->di;
	call->args[1] = regs->si;
	call->args[2] = regs->dx;
	call->args[3] = regs->r10;
	return true;
}

static __always_inline bool native_arm64(struct native_call *call, struct pt_regs___aarch64 *regs)
{
	if (regs->pstate & PSR_MODE32_BIT)
		return false;
	call->number = regs->syscallno;
	call->args[0] = regs->orig_x0;
	call->args[1] = regs->regs[1];
	call->args[2] = regs->regs[2];
	call->args[3] = regs->regs[3];
	return true;
}

static __always_inline bool native_riscv(struct native_call *call, struct pt_regs___riscv64 *regs)
{
	if ((regs->status & SR_UXL) == SR_UXL_32)
		return false;
	call->number = regs->a7;
	call->args[0] = regs->orig_a0;
	call->args[1] = regs->a1;
	call->args[2] = regs->a2;
	call->args[3] = regs->a3;
	return true;
}

/* False if it is one of the 32-bit kind, whose numbers mean something else. A thread of the kernel is in none. */
static __always_inline bool native_call(struct native_call *call)
{
	struct task_struct *task = bpf_get_current_task_btf();
	void *regs = (void *)bpf_task_pt_regs(task);

	if (bpf_core_field_exists(struct pt_regs___x86, orig_ax))
		return native_x86(call, task, regs);
	if (bpf_core_field_exists(struct pt_regs___aarch64, syscallno))
		return native_arm64(call, regs);
	if (bpf_core_field_exists(struct pt_regs___riscv64, orig_a0))
		return native_riscv(call, regs);
	return false;
}

/* What the current task has open by that number; NULL if it has nothing, any more. */
static __always_inline struct file *file_of(int fd)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slot = BPF_CORE_READ(table, fd);
	struct file *file = NULL;

	if ((__u32)fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), slot + fd);
	return file;
}

#endif
