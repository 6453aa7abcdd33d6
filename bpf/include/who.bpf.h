/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef SIDECAR_WHO_BPF_H
#define SIDECAR_WHO_BPF_H

#include "cgroup.bpf.h"
#include "kernel.h"
#include "who.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* Name of the process that a task belongs to. */
static __always_inline void process_comm(__u8 *comm, struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	/*
	 * Before 5.17 ("fs/exec: replace strlcpy with strscpy_pad in __set_task_comm") what is left of a longer name
	 * stays behind the end of a shorter one.
	 */
	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		__builtin_memset(comm, 0, sizeof(leader->comm));
		bpf_probe_read_kernel_str(comm, sizeof(leader->comm), leader->comm);
		return;
	}
	bpf_probe_read_kernel(comm, sizeof(leader->comm), leader->comm);
}

static __always_inline bool same_comm(const __u8 *a, const __u8 *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

/* The process that the current task belongs to. Only where the kernel works on its behalf: not in a softirq. */
static __always_inline void who_current(struct who *who)
{
	struct task_struct *task = distrusted(current_task());

	process_comm(who->comm, task);
	who->cgroup = cgroup_number(task_cgroup(task));
}

#endif
