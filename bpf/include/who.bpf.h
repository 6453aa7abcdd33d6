/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef SIDECAR_WHO_BPF_H
#define SIDECAR_WHO_BPF_H

#include "kernel.h"
#include "who.h"
#include <bpf/bpf_helpers.h>

/* The process that the current task belongs to. Only where the kernel works on its behalf: not in a softirq. */
static __always_inline void who_current(struct who *who)
{
	struct task_struct *task = bpf_get_current_task_btf();

	bpf_probe_read_kernel(who->comm, sizeof(who->comm), task->group_leader->comm);
}

#endif
